"""What a process counts for Prometheus: of requests, turns, errors and what is in use; and who reads it."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError, connection, connections
from django.test import Client
from django.utils import timezone
from prometheus_client import parser
from pytest_django import Settings

from analytics import instruments
from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import IdempotencyKey
from chat.turns import lifecycle
from chat.turns.recovery import settle_all_abandoned
from conftest import ApiClient
from llmapi import observe
from llmapi.launch import ROOT

DEPLOY = ROOT / "deploy"
CHAT = {"route": "/v1/chat/completions", "method": "POST"}
MODEL = "gpt-4o-mini"


def count(name: str, **labels: str) -> float:
    return instruments.REGISTRY.get_sample_value(f"llmapi_{name}", labels) or 0


@pytest.fixture
def added() -> Callable[..., float]:
    """`added(name, **labels)`: by how much a count has grown since the test began; other tests count as well."""
    before = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in instruments.families()
        for sample in family.samples
    }
    return lambda name, **labels: count(name, **labels) - before.get((f"llmapi_{name}", *sorted(labels.items())), 0)


def test_a_turn(alice: ApiClient, upstream: OpenAIDouble, added: Callable[..., float]) -> None:
    upstream.plan(Behaviour(text="one two", cached=1))

    alice.say(alice.conversation(), "Hi")

    assert added("turn_seconds_count", model=MODEL, status="completed") == 1
    assert added("turn_tokens_total", model=MODEL, kind="prompt") == upstream.sold[0]["prompt_tokens"]
    assert added("turn_tokens_total", model=MODEL, kind="completion") == upstream.sold[0]["completion_tokens"]
    assert added("turn_tokens_total", model=MODEL, kind="cached") == 1
    cost = UsageEvent.objects.get().cost_nanos
    assert cost
    assert added("turn_cost_usd_total", model=MODEL) == pytest.approx(cost / 1e9)
    assert added("first_token_seconds_count", model=MODEL) == 0
    assert added("request_seconds_count", **CHAT, status="2xx") == 1


def test_a_stream(transactional_db: None, upstream: OpenAIDouble, added: Callable[..., float]) -> None:
    alice = ApiClient("alice")

    alice.say(alice.conversation(), "Hi", stream=True).getvalue()

    assert added("turn_seconds_count", model=MODEL, status="completed") == 1
    assert added("first_token_seconds_count", model=MODEL) == 1


def test_a_turn_that_fails(alice: ApiClient, upstream: OpenAIDouble, added: Callable[..., float]) -> None:
    upstream.plan(Behaviour(status=500))

    answer = alice.say(alice.conversation(), "Hi")

    assert answer.status_code == 502
    assert added("turn_seconds_count", model=MODEL, status="failed") == 1
    assert added("failed_turns_total", model=MODEL, code="upstream_error") == 1
    assert added("errors_total", code="upstream_error") == 1
    assert added("request_seconds_count", **CHAT, status="5xx") == 1
    assert added("turn_seconds_count", model=MODEL, status="completed") == 0


def test_a_stream_that_fails(transactional_db: None, upstream: OpenAIDouble, added: Callable[..., float]) -> None:
    alice = ApiClient("alice")
    upstream.plan(Behaviour(pieces=["one", "two"], stop_after=1))

    body = alice.say(alice.conversation(), "Hi", stream=True).getvalue()

    assert b"upstream_error" in body
    assert added("errors_total", code="upstream_error") == 1
    assert added("failed_turns_total", model=MODEL, code="upstream_error") == 1


def test_a_superseded_turn_is_counted_as_the_ledger_has_it(
    alice: ApiClient, upstream: OpenAIDouble, added: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = lifecycle.complete

    def lose_the_key(turn: Any) -> Any:
        IdempotencyKey.objects.update(request_id="r_other")
        return original(turn)

    monkeypatch.setattr(lifecycle, "complete", lose_the_key)

    alice.say(alice.conversation(), "Hi", key="k")

    assert added("turn_seconds_count", model=MODEL, status="abandoned") == 1
    assert added("turn_seconds_count", model=MODEL, status="completed") == 0


def test_a_refusal(alice: ApiClient, added: Callable[..., float]) -> None:
    alice.token_row.rate_limit_per_min = 1
    alice.token_row.save()

    answers = [alice.get("/v1/models") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 429]
    assert added("errors_total", code="rate_limit_exceeded") == 1
    assert added("request_seconds_count", route="/v1/models", method="GET", status="4xx") == 1


def test_a_turn_of_a_dead_process(alice: ApiClient, upstream: OpenAIDouble, added: Callable[..., float]) -> None:
    alice.say(alice.conversation(), "Hi")
    observe.sample_ledger()
    assert count("overdue_turn_seconds") == 0
    ended = timezone.now() - timedelta(minutes=5)
    UsageEvent.objects.update(status="pending", finished_at=None, locked_until=ended)

    observe.sample_ledger()
    assert 299 < count("overdue_turn_seconds") < 400

    settle_all_abandoned()
    observe.sample_ledger()
    assert count("overdue_turn_seconds") == 0
    assert added("abandoned_turns_total") == 1


def test_a_lease_that_lasts_is_not_overdue(alice: ApiClient, upstream: OpenAIDouble) -> None:
    alice.say(alice.conversation(), "Hi")
    UsageEvent.objects.update(status="pending", finished_at=None, locked_until=timezone.now() + timedelta(minutes=5))

    observe.sample_ledger()

    assert count("overdue_turn_seconds") == 0


@pytest.mark.parametrize(
    ("method", "path", "labels"),
    [
        ("GET", "/v1/conversations/c_1", ("/v1/conversations/<slug:conversation_id>", "GET", "4xx")),
        ("GET", "/v1/conversations/c_2", ("/v1/conversations/<slug:conversation_id>", "GET", "4xx")),
        ("GET", "/admin/analytics/usageevent/7/change/", ("/admin/", "GET", "3xx")),
        ("BREW", "/nowhere/at/all", ("none", "other", "4xx")),
        ("GET", "/nowhere/else", ("none", "GET", "4xx")),
    ],
)
def test_labels_do_not_grow_with_paths_and_methods(
    alice: ApiClient, added: Callable[..., float], method: str, path: str, labels: tuple[str, str, str]
) -> None:
    alice.generic(method, path)

    route, known_method, status = labels
    assert added("request_seconds_count", route=route, method=known_method, status=status) == 1


def test_labels_do_not_grow_with_models(settings: Settings) -> None:
    assert instruments.model_label(MODEL) == MODEL
    assert instruments.model_label("whatever a client writes") == "other"


def test_the_pool(monkeypatch: pytest.MonkeyPatch, added: Callable[..., float]) -> None:
    stats = {"pool_size": 5, "pool_available": 2, "pool_max": 9, "requests_waiting": 3, "requests_errors": 4}
    pools = {"default": SimpleNamespace(get_stats=lambda: stats)}
    monkeypatch.setattr(connections["default"], "_connection_pools", pools, raising=False)

    observe.sample_pool()
    observe.sample_pool()

    states = {state: count("database_connections", state=state) for state in ("in_use", "free", "max")}
    assert states == {"in_use": 3, "free": 2, "max": 9}
    assert count("queued_requests", queue="database") == 3
    assert added("database_pool_errors_total") == 4
    # A new pool counts from zero.
    pools["default"] = SimpleNamespace(get_stats=lambda: {**stats, "requests_errors": 1})
    observe.sample_pool()
    assert added("database_pool_errors_total") == 5


@pytest.fixture
def scrape(alice: ApiClient, settings: Settings) -> Callable[[], Any]:
    settings.METRICS_PUBLIC = True
    return lambda: Client().get("/metrics", headers={"accept": "text/plain;version=0.0.4"})


def test_without_a_database_the_processes_are_measured(scrape: Callable[[], Any]) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("connection refused")

    instruments.prepare()
    assert b"llmapi_active_users" in scrape().content
    with connection.execute_wrapper(fail):
        answer = scrape()

    assert (answer.status_code, b"llmapi_active_users" in answer.content) == (200, False)
    assert b"llmapi_running_turns" in answer.content


def test_only_who_may_reads_it(alice: ApiClient) -> None:
    headers = {"accept": "text/plain"}

    assert Client().get("/metrics", headers=headers).status_code == 401
    assert alice.get("/metrics", headers=headers).status_code == 403


def expressions() -> list[str]:
    """All expressions of the dashboard and the alerts."""
    panels = json.loads((DEPLOY / "grafana" / "llmapi.json").read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [*asked, (DEPLOY / "prometheus" / "alerts.yaml").read_text()]


def test_what_dashboard_and_alerts_ask_for_is_there(
    alice: ApiClient, upstream: OpenAIDouble, scrape: Callable[[], Any]
) -> None:
    instruments.prepare()
    alice.say(alice.conversation(), "Hi")
    observe.sample()
    families = parser.text_string_to_metric_families(scrape().content.decode())
    there = {sample.name for family in families for sample in family.samples}

    asked = {name for expression in expressions() for name in re.findall(r"\bllmapi_[a-z_]+", expression)}

    assert len(asked) > 15
    assert asked - there == set()


def test_each_alert_is_explained() -> None:
    alerts = re.findall(r"alert: (\w+)", (DEPLOY / "prometheus" / "alerts.yaml").read_text())
    tried = re.findall(r"alertname: (\w+)", (DEPLOY / "prometheus" / "alerts_test.yaml").read_text())

    assert set(alerts) == set(tried)
    assert set(alerts) == set(
        re.findall(r"^\| `(Llmapi\w+)`", (ROOT / "docs" / "observe.md").read_text(), re.MULTILINE)
    )


def test_each_metric_is_explained() -> None:
    names = {family.name for family in instruments.REGISTRY.collect()}

    explained = re.findall(r"^\| `(llmapi_\w+?)(?:_total)?`", (ROOT / "docs" / "observe.md").read_text(), re.MULTILINE)

    assert set(explained) == names


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no pool")
def test_a_real_pool(db: None) -> None:
    connection.ensure_connection()

    observe.sample_pool()

    assert count("database_connections", state="max") > 0
    assert count("database_connections", state="in_use") > 0
