"""Figures for staff are read from the replica; everything else, and every write, goes to the primary."""

import io
from collections.abc import Iterator
from datetime import timedelta

import pytest
import time_machine
from django.core.management import call_command
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from analytics import replica
from analytics.models import RollupDay, UsageEvent
from analytics.rollups.coverage import bring_up_to_date
from analytics.tests.sample_week import BOB, forget_builds, make_current, turn, write_built_week
from bench.openai_double import OpenAIDouble
from chat.models import ClientToken
from conftest import ApiClient

pytestmark = [
    pytest.mark.usefixtures("noon"),
    pytest.mark.django_db(transaction=True, databases=["default", "replica"]),
]

FIGURES = [
    "/metrics",
    "/metrics?format=prometheus",
    "/metrics/retention",
    "/metrics/sessions.csv",
    "/admin/",
    "/admin/analytics/usageevent/breakdown/",
    "/admin/analytics/usageevent/?model=gpt-4o-mini",
    "/admin/analytics/usageevent/user/?user=ann",
]
ROLLUPS = ("rollup", "user_days", "user_milestones", "open_sessions", "refusals_daily")


@pytest.fixture(scope="module", autouse=True)
def alias(django_db_setup: None) -> Iterator[None]:
    """Name a replica in DATABASES: the test's database, by a connection of its own."""
    primary = connections.settings["default"]
    connections.settings[replica.ALIAS] = {**primary, "TEST": {**primary["TEST"], "MIRROR": "default"}}
    yield
    del connections[replica.ALIAS]
    del connections.settings[replica.ALIAS]


@pytest.fixture
def second(transactional_db: None) -> Iterator[BaseDatabaseWrapper]:
    found = connections[replica.ALIAS]
    yield found
    found.close()
    if hasattr(found, "close_pool"):
        found.close_pool()


@pytest.fixture
def away(second: BaseDatabaseWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NAME": "/nowhere/at/all.sqlite3", "HOST": "127.0.0.1", "PORT": 1}.items():
        monkeypatch.setitem(second.settings_dict, name, value)


@pytest.fixture
def week(transactional_db: None) -> None:
    write_built_week()


def queries(of: BaseDatabaseWrapper) -> CaptureQueriesContext:
    return CaptureQueriesContext(of)


@pytest.mark.parametrize("path", FIGURES)
def test_figures_are_read_from_the_replica(second: BaseDatabaseWrapper, week: None, staff: Client, path: str) -> None:
    with queries(connection) as on_primary, queries(second) as on_replica:
        answer = staff.get(path)

    assert answer.status_code == 200
    assert on_replica.captured_queries
    of_rollups = [query["sql"] for query in on_primary if any(table in query["sql"] for table in ROLLUPS)]
    assert not of_rollups


def test_clients_are_served_by_the_primary(
    second: BaseDatabaseWrapper, alice: ApiClient, upstream: OpenAIDouble
) -> None:
    with queries(second) as on_replica:
        conversation = alice.conversation()
        assert alice.say(conversation, "Hi", key="k1").status_code == 200
        assert alice.say(conversation, "Hi", key="k1")["Idempotent-Replayed"] == "true"
        assert alice.get("/v1/usage").status_code == 200

    assert not on_replica.captured_queries


def test_a_client_token_is_looked_up_in_the_primary(second: BaseDatabaseWrapper, alice: ApiClient) -> None:
    ClientToken.objects.update(can_read_metrics=True)

    with queries(second) as on_replica:
        assert alice.get("/metrics").status_code == 200

    assert not any("client_tokens" in query["sql"] for query in on_replica)


def test_a_reader_of_the_replica_builds_nothing(second: BaseDatabaseWrapper, week: None, staff: Client) -> None:
    forget_builds()

    staff.get("/metrics")

    assert not RollupDay.objects.exists()


def test_figures_are_as_old_as_the_replica(
    second: BaseDatabaseWrapper, week: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_current()
    with time_machine.travel(timezone.now() + timedelta(minutes=10)):
        newest_commit = timezone.now() - timedelta(minutes=3)
        monkeypatch.setattr(replica, "replayed_to", lambda: newest_commit)

        with replica.reading():
            found = bring_up_to_date()

    assert found.computed_at == newest_commit


def test_figures_are_as_old_as_their_rollups(second: BaseDatabaseWrapper, week: None) -> None:
    bring_up_to_date()
    built_at = RollupDay.objects.latest("day").built_at
    turn(BOB, timezone.now() + timedelta(minutes=1))

    with replica.reading():
        assert bring_up_to_date().computed_at == built_at


def test_rows_of_the_replica_are_saved_in_the_primary(second: BaseDatabaseWrapper, week: None) -> None:
    with replica.reading():
        row = UsageEvent.objects.latest("created_at")
        with queries(second) as on_replica:
            row.save()

    assert row._state.db == "default"
    assert not on_replica.captured_queries


@pytest.mark.parametrize("options", [["metrics_report", "--format=json"], ["export", "usage_events"]])
def test_reports_are_read_from_the_replica(second: BaseDatabaseWrapper, week: None, options: list[str]) -> None:
    with queries(connection) as on_primary, queries(second) as on_replica:
        call_command(*options, stdout=io.StringIO(), stderr=io.StringIO())

    assert on_replica.captured_queries
    assert not on_primary.captured_queries


def test_an_export_says_as_of_when_it_is(second: BaseDatabaseWrapper, week: None) -> None:
    told = io.StringIO()

    call_command("export", "usage_events", stdout=io.StringIO(), stderr=told)

    assert told.getvalue().startswith("Rows as of 2026-06-15 12:00")


def test_a_replica_that_is_away_is_named_to_clients(away: None, staff: Client) -> None:
    answer = staff.get("/metrics")

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "unavailable")
    assert "REPLICA_DATABASE_URL" in error["message"]


def test_the_admin_works_without_its_dashboard(away: None, staff: Client) -> None:
    answer = staff.get("/admin/")

    page = answer.content.decode()
    assert answer.status_code == 503
    assert "REPLICA_DATABASE_URL" in page
    assert "/admin/chat/clienttoken/" in page


def test_a_page_of_figures_says_that_the_replica_is_away(away: None, staff: Client) -> None:
    answer = staff.get("/admin/analytics/usageevent/breakdown/")

    assert answer.status_code == 503
    assert "REPLICA_DATABASE_URL" in answer.content.decode()


def test_a_list_is_shown_without_its_totals(away: None, week: None, staff: Client) -> None:
    answer = staff.get("/admin/analytics/usageevent/")

    page = answer.content.decode()
    assert answer.status_code == 200
    assert "REPLICA_DATABASE_URL" in page
    assert "r_" in page


def test_a_turn_does_not_need_the_replica(away: None, alice: ApiClient, upstream: OpenAIDouble) -> None:
    assert alice.say(alice.conversation(), "Hi").status_code == 200
