import csv
import io
import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from analytics.metrics.registry import report
from analytics.models import AnalyticsEvent, UsageEvent
from analytics.query import Query
from analytics.rollups import schedule, store
from analytics.rollups.coverage import bring_up_to_date
from analytics.tests.sample_week import TODAY, make_current
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import ClientToken
from conftest import ApiClient


def turn(
    user: str, at: datetime, *, status: str = "completed", tokens: int = 10, latency: int = 100, **fields: Any
) -> None:
    """One row in each ledger, as a turn leaves them."""
    number = UsageEvent.objects.count()
    UsageEvent.objects.create(
        request_id=f"r_{number}",
        client_token_id=1,
        user_id=user,
        model=fields.pop("model", "gpt-4o-mini"),
        status=status,
        prompt_tokens=tokens - 1 if tokens else 0,
        completion_tokens=1 if tokens else 0,
        total_tokens=tokens,
        latency_ms=latency,
        cost_nanos=fields.pop("cost_nanos", 1000),
        locked_until=at,
        created_at=at,
        finished_at=None if status == "pending" else at,
    )
    AnalyticsEvent.objects.create(event_name=f"chat.{status}", client_token_id=1, user_id=user, created_at=at)


@pytest.fixture
def month(db: None) -> None:
    """Today: ann twice (40 minutes apart) and bob fails once. Yesterday: ann and bob, at the edges of the day."""
    turn("ann", TODAY, latency=100)
    turn("ann", TODAY + timedelta(minutes=40), latency=300)
    turn("bob", TODAY, status="failed", tokens=0, latency=50, cost_nanos=None)
    turn("ann", TODAY - timedelta(microseconds=1), latency=200)
    turn("bob", TODAY - timedelta(days=1), latency=400, model="local", cost_nanos=None)
    turn("eve", TODAY - timedelta(days=29), status="abandoned", tokens=0)
    turn("old", TODAY - timedelta(days=29, microseconds=1), tokens=1000)


def figures_of_last_30_days() -> dict[str, Any]:
    for day in schedule.due(timezone.now()):
        store.build_day(day)
    return report(Query.last_days(30), bring_up_to_date().computed_at)


def test_every_figure_is_what_a_hand_works_out(month: None) -> None:
    figures = figures_of_last_30_days()

    dau = {row["day"]: row["users"] for row in figures["dau_last_30_days"]}
    today, yesterday = TODAY.date().isoformat(), (TODAY - timedelta(days=1)).date().isoformat()
    assert len(dau) == 30
    assert (dau[today], dau[yesterday], sum(dau.values())) == (1, 2, 3)
    assert figures["turns"] == {"pending": 0, "completed": 4, "failed": 1, "abandoned": 1}
    assert figures["success_rate"] == pytest.approx(4 / 6, abs=1e-4)
    assert figures["avg_latency_ms"] == 250
    assert figures["latency_ms"] == {"mean": 250, "p50": 200, "p95": 400, "p99": 400}
    assert figures["token_burn_last_30_days"] == 40
    assert figures["cost_usd"] is None
    assert list(figures)[:5] == list(figures["definitions"])
    for said in figures["definitions"].values():
        assert (said["from"], said["to"]) == ((TODAY - timedelta(days=29)).date().isoformat(), today)
        assert said["computed_at"] == figures["computed_at"]
    assert figures["definitions"]["dau_last_30_days"]["definition"].startswith("Daily active users: distinct users")
    assert abs(timezone.now() - datetime.fromisoformat(figures["computed_at"])) < timedelta(minutes=1)
    burn = [(row["day"], row["model"], row["total_tokens"], row["cost_usd"]) for row in figures["token_burn"]]
    assert burn == [
        (yesterday, "gpt-4o-mini", 10, 1e-6),
        (yesterday, "local", 10, None),
        (today, "gpt-4o-mini", 20, 2e-6),
    ]
    assert figures["time_spent_samples"][:2] == [
        {"day": today, "user_id": "ann", "seconds": 2400},
        {"day": today, "user_id": "bob", "seconds": 0},
    ]


def test_nothing_yet_is_null_not_zero(db: None) -> None:
    figures = figures_of_last_30_days()

    assert figures["success_rate"] is None
    assert figures["avg_latency_ms"] is None
    assert figures["token_burn_last_30_days"] == 0


def test_the_page(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    settings.METRICS_PUBLIC = True
    cid = alice.conversation()
    alice.say(cid, "Hi", user="u1")
    upstream.plan(Behaviour(status=500))
    alice.say(cid, "Hi", user="u2")

    make_current()
    with django_assert_num_queries(6):
        body = Client().get("/metrics").json()

    assert body["dau_last_30_days"][-1]["users"] == 1
    assert body["success_rate"] == 0.5
    assert body["token_burn_last_30_days"] == upstream.sold[0]["total_tokens"]


def test_who_may_read(alice: ApiClient, settings: Settings) -> None:
    assert Client().get("/metrics").status_code == 401
    assert alice.get("/metrics").status_code == 403
    ClientToken.objects.update(can_read_metrics=True)
    assert alice.get("/metrics").status_code == 200

    users = get_user_model().objects
    viewing = Permission.objects.get(codename="view_usageevent")
    for is_staff, permissions, expected in (
        (False, [], 403),
        (False, [viewing], 403),
        (True, [], 403),
        (True, [viewing], 200),
    ):
        user = users.create_user(f"{is_staff} {permissions}", is_staff=is_staff)
        user.user_permissions.set(permissions)
        browser = Client()
        browser.force_login(user)
        assert browser.get("/metrics").status_code == expected

    settings.DEBUG = True
    assert Client().get("/metrics").status_code == 200


def test_the_report(month: None, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(form: str) -> str:
        call_command("metrics_report", "--days=7", f"--format={form}")
        return capsys.readouterr().out

    assert json.loads(printed("json"))["total_tokens"] == 40
    rows = list(csv.DictReader(io.StringIO(printed("csv"))))
    assert sum(int(row["value"]) for row in rows if row["metric"] == "total_tokens") == 40
    assert {row["value"] for row in rows if row["subject"] == "local" and row["metric"] == "cost_usd"} == {""}
    table = printed("table")
    assert "80 %" in table
    assert "gpt-4o-mini" in table
