"""The routes of metrics, and that what they ask of the database is few queries over indexes."""

import csv
import io
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from prometheus_client import parser as prometheus
from prometheus_client.openmetrics import parser as openmetrics
from pytest_django import DjangoAssertNumQueries, DjangoDbBlocker, Settings

from analytics import ledger
from analytics.ledger import sums
from analytics.metrics.registry import METRICS
from analytics.models import AnalyticsEvent, UsageEvent
from analytics.reports.csv import escape_cell
from analytics.rollups import build, sessions
from analytics.tests.sample_week import (
    ANN,
    CID,
    MON,
    SUN,
    TODAY,
    at,
    keep_today_built,
    make_current,
    turn,
    write_built_week,
)
from chat.models import ClientToken
from conftest import ApiClient, kept_rows


@pytest.fixture(scope="module", autouse=True)
def written(at_noon: None, django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with kept_rows(django_db_blocker):
        write_built_week()
        yield


@pytest.fixture
def browser(db: None, settings: Settings) -> Client:
    settings.METRICS_PUBLIC = True
    return Client()


def samples(answer: Any) -> dict[tuple[str, ...], float]:
    """By name and labels' values, as Prometheus' own parser of the format reads them."""
    parser = openmetrics if "openmetrics" in answer["Content-Type"] else prometheus
    families = parser.text_string_to_metric_families(answer.content.decode())
    read = [sample for family in families for sample in family.samples]
    return {(sample.name, *dict(sorted(sample.labels.items())).values()): sample.value for sample in read}


def test_a_window_and_filters(browser: Client) -> None:
    body = browser.get(f"/metrics?from={MON.date()}&to={SUN.date()}&client=1&model=gpt&app_version=1.0").json()

    assert list(body)[:5] == [
        "dau",
        "success_rate",
        "avg_latency_ms",
        "total_tokens",
        "time_spent_samples",
    ]
    # ann's six turns.
    assert body["total_tokens"] == 600
    assert body["filters"] == {"client_token_id": 1, "model": "gpt", "app_version": "1.0"}
    assert body["window"] == {"from": MON.date().isoformat(), "to": SUN.date().isoformat(), "days": 7}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("from=yesterday", "from"),
        ("from=2026-02-30", "from"),
        ("from=2026-02-02&to=2026-02-01", "from"),
        ("from=2001-01-01&to=2020-01-01", "from"),
        ("to=0001-01-01", "to"),
        ("to=9999-12-31", "to"),
        ("client=ann", "client"),
        ("client=99999999999999999999", "client"),
        ("model=", "model"),
        ("model=a%00b", "model"),
        ("app_version=" + "1" * 65, "app_version"),
        ("format=xml", "format"),
        ("app-version=1", "app-version"),
        ("clients=1", "clients"),
        ("format=prometheus&model=gpt", "model"),
        ("format=prometheus&from=2026-01-01", "from"),
    ],
)
def test_what_cannot_be_read_is_refused(browser: Client, query: str, param: str) -> None:
    answer = browser.get(f"/metrics?{query}")

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_has_a_page_and_a_table(browser: Client, name: str) -> None:
    keep_today_built()
    page, table = browser.get(f"/metrics/{name}"), browser.get(f"/metrics/{name}.csv")

    assert (page.status_code, table.status_code) == (200, 200)
    body = page.json()
    assert (body["name"], body["unit"]) == (name, METRICS[name].unit)
    assert table["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.reader(io.StringIO(table.content.decode())))
    assert len({len(row) for row in rows}) <= 1


def test_a_table(browser: Client) -> None:
    rows = list(csv.DictReader(io.StringIO(browser.get(f"/metrics/dau.csv?from={MON.date()}").content.decode())))

    assert rows[0] == {"day": MON.date().isoformat(), "users": "2"}
    assert len(rows) == 8
    assert browser.get("/metrics/nothing").status_code == 404
    assert browser.get("/metrics/dau.xml").status_code == 404
    refused = browser.get("/metrics/dau.csv?client=x")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "client")


def fail(*args: Any, **kwargs: Any) -> None:
    raise OperationalError("connection refused")


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/metrics?format=json", "/metrics/dau", "/metrics/dau.csv"],
)
def test_a_database_that_is_away(browser: Client, path: str) -> None:
    with connection.execute_wrapper(fail):
        answer = browser.get(path)

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert answer["Retry-After"] == "1"


@pytest.mark.parametrize(
    "path", ["/metrics", "/metrics?format=prometheus", "/metrics/dau", "/metrics/dau.csv", "/v1/chat/completions.pb"]
)
def test_what_a_route_allows(alice: ApiClient, settings: Settings, path: str) -> None:
    settings.METRICS_PUBLIC = True

    answer = alice.options(path)

    assert (answer.status_code, answer.content) == (200, b"")
    assert "OPTIONS" in answer["Allow"]


def test_it_counts_against_the_limit_of_a_token(alice: ApiClient) -> None:
    ClientToken.objects.update(can_read_metrics=True, rate_limit_per_min=2)

    answers = [alice.get("/metrics/turns.csv") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"
    assert ledger.flush_refusals() == 1


def test_names_do_not_depend_on_the_window(browser: Client) -> None:
    asked, usual = browser.get(f"/metrics?from={MON.date()}").json(), browser.get("/metrics").json()

    assert usual.keys() - asked.keys() == {"dau_last_30_days", "token_burn_last_30_days"}
    assert (usual["dau"], usual["total_tokens"]) == (usual["dau_last_30_days"], usual["token_burn_last_30_days"])


def test_no_cell_is_a_formula(browser: Client) -> None:
    cells = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r\n=1", "\ufeff=1", "\u200b=1", "＝1"]
    for cell in cells:
        turn({**ANN, "user_id": cell}, at(TODAY, 12), total_tokens=10**6)

    rows = list(
        csv.DictReader(io.StringIO(browser.get("/metrics/token_burn_by_user.csv").content.decode(), newline=""))
    )

    escaped = [f"'{cell}" for cell in cells]
    assert [escape_cell(cell) for cell in cells] == escaped
    assert sorted(row["user_id"] for row in rows[: len(cells)]) == sorted(escaped)
    assert escape_cell(-1) == -1


@pytest.mark.parametrize(
    ("path", "accept", "content_type"),
    [
        ("/metrics?format=prometheus", "*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "/metrics",
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    ],
)
def test_prometheus(browser: Client, path: str, accept: str, content_type: str) -> None:
    ledger.count_refusal(1, "rate_limit_exceeded")
    ledger.flush_refusals()

    answer = browser.get(path, headers={"accept": accept})

    assert answer["Content-Type"] == content_type
    found = samples(answer)
    assert found["llmapi_turns_total", "gpt", "completed"] == 9
    assert found["llmapi_turns_total", "gpt", "failed"] == 1
    assert found["llmapi_turns_unsettled", "local", "pending"] == 1
    assert found["llmapi_tokens_total", "cached", "gpt"] == 360
    assert found["llmapi_cost_usd_total", "gpt"] == 9e-6
    assert found["llmapi_unpriced_turns_total", "local"] == 3
    assert found["llmapi_replays_total",] == 1
    assert found["llmapi_refusals_total", "rate_limit_exceeded"] == 1
    assert found["llmapi_active_users", "7"] == 3


def test_a_model_without_a_name(browser: Client) -> None:
    turn({**ANN, "model": ""}, TODAY)

    for path in ("/metrics", "/metrics?format=prometheus", "/metrics?format=openmetrics"):
        assert browser.get(path).status_code == 200


def test_no_client_is_not_all_of_them(browser: Client) -> None:
    assert browser.get("/metrics?client=0").status_code == 400


def test_json_is_what_others_are_given(browser: Client) -> None:
    for accept in ("*/*", "application/json", "text/html,*/*;q=0.8"):
        assert browser.get("/metrics", headers={"accept": accept})["Content-Type"] == "application/json"


def test_a_purge_lowers_no_counter(browser: Client) -> None:
    def totals() -> dict[tuple[str, ...], float]:
        found = samples(browser.get("/metrics?format=prometheus"))
        return {key: value for key, value in found.items() if key[0] in {"llmapi_turns_total", "llmapi_tokens_total"}}

    before = totals()

    closed = {"created_at__lt": TODAY}
    UsageEvent.objects.filter(**closed).delete()
    AnalyticsEvent.objects.filter(**closed).delete()

    assert totals() == before != {}


def test_label_values_are_escaped(browser: Client) -> None:
    turn({**CID, "model": 'a"b\\c\nd'}, at(TODAY, 12))

    for form in ("prometheus", "openmetrics"):
        assert samples(browser.get(f"/metrics?format={form}"))["llmapi_turns_total", 'a"b\\c\nd', "completed"] == 1


def test_few_queries_whatever_the_period(browser: Client, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    make_current()
    for days in (7, 365):
        with django_assert_num_queries(6):
            browser.get(f"/metrics?from={TODAY.date() - timedelta(days=days)}")
    with django_assert_num_queries(5):
        browser.get("/metrics?format=prometheus")


READS: dict[str, Callable[[date], object]] = {
    "usage": lambda day: sums.usage(day, "model"),
    "failures": lambda day: list(sums.failures(day, "model")),
    "durations": lambda day: list(sums.durations(day, "latency_ms", "model")),
    "replays": lambda day: list(sums.replays(day)),
    "users": lambda day: list(sums.user_events(day, "user_id")),
    "counted": lambda day: list(sums.counted(day, "model")),
    "sessions": lambda day: sessions.of_day(day, {}),
    "build": build.Day.read,
}


@pytest.fixture
def no_scans(db: None) -> Iterator[None]:
    """A planner that scans a table only where it has no index to use: that of a few rows always would."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET enable_seqscan = off")
    yield
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET enable_seqscan = on")


@pytest.mark.parametrize("read", READS)
def test_raw_rows_are_read_over_an_index(no_scans: None, read: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        READS[read](TODAY.date())

    explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
    raw = [q["sql"] for q in queries if "usage_events" in q["sql"] or "analytics_events" in q["sql"]]
    assert raw
    for sql in raw:
        select = sql[sql.index("SELECT") :]
        with connection.cursor() as cursor:
            cursor.execute(f"{explain} {select}")
            plan = "\n".join(str(step) for step in cursor.fetchall())
        assert "SCAN usage_events" not in plan
        assert "SCAN analytics_events" not in plan
        assert "Seq Scan" not in plan
        assert any(name in plan for name in ("usage_created", "event_created", "event_name_created", "request_id"))
