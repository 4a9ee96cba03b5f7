"""The ledger partitioned by month, on PostgreSQL. Tables change inside the test's transaction, which is rolled back."""

from datetime import UTC, date, datetime
from io import StringIO
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from pytest_django import Settings

from analytics.ledger import partitions, retention
from analytics.metrics.sources import Table
from analytics.metrics.usage import usage_by_day_and_model
from analytics.models import AnalyticsEvent, RollupDay, UsageEvent
from analytics.query import Period, Query, days_between
from analytics.rollups.store import build_day
from analytics.tests.sample_week import ANN, BOB, MON, at, row, turn, write_week
from bench.openai_double import OpenAIDouble
from conftest import ApiClient

pytestmark = pytest.mark.usefixtures("db", "noon")

is_postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="only PostgreSQL has partitions")
JULY_20 = datetime(2026, 7, 20, 12, tzinfo=UTC)
OCTOBER_5 = datetime(2026, 10, 5, 12, tzinfo=UTC)


@pytest.fixture
def partitioned() -> None:
    """Convert the tables in June: the first partition ends with it."""
    write_week()
    call_command("partition_ledger", stdout=StringIO())


def purge(now: datetime) -> dict[str, int]:
    deleted: dict[str, int] = {}
    for day in retention.expired(now):
        for what, count in retention.purge_day(day):
            deleted[what] = deleted.get(what, 0) + count
    return deleted


def forget_week() -> None:
    UsageEvent.objects.all().delete()
    AnalyticsEvent.objects.all().delete()


def figures_of_july() -> Any:
    return usage_by_day_and_model(Table(Query(Period(date(2026, 7, 1), date(2026, 7, 31)))))


def build(first: date, last: date) -> None:
    for day in days_between(first, last):
        build_day(day)


@pytest.mark.skipif(connection.vendor == "postgresql", reason="PostgreSQL has them")
def test_sqlite_has_no_partitions() -> None:
    with pytest.raises(CommandError, match="Only PostgreSQL"):
        call_command("partition_ledger")

    assert partitions.add_months(timezone.now()) == 0


@is_postgresql
def test_the_table_becomes_the_first_partition(partitioned: None) -> None:
    found = partitions.partitions("usage_events")

    months = ["2026_07", "2026_08", "2026_09"]
    assert found == ["usage_events_before_2026_07", *(f"usage_events_{month}" for month in months)]


@is_postgresql
def test_no_row_is_lost() -> None:
    write_week()
    before = list(UsageEvent.objects.order_by("pk").values()), AnalyticsEvent.objects.count()

    call_command("partition_ledger", stdout=StringIO())

    assert (list(UsageEvent.objects.order_by("pk").values()), AnalyticsEvent.objects.count()) == before


@is_postgresql
def test_ids_go_on(partitioned: None) -> None:
    newest = UsageEvent.objects.latest("pk").pk

    turn(ANN, JULY_20)

    assert UsageEvent.objects.latest("pk").pk == newest + 1


@is_postgresql
def test_a_turn_is_served(partitioned: None, alice: ApiClient, upstream: OpenAIDouble) -> None:
    conversation = alice.conversation()

    first, again = (alice.say(conversation, "Hi", key="k1") for _ in range(2))

    assert (first.status_code, again["Idempotent-Replayed"]) == (200, "true")
    assert UsageEvent.objects.get(request_id=first.json()["id"]).status == "completed"


@is_postgresql
def test_an_event_sent_again_is_stored_once(partitioned: None, alice: ApiClient) -> None:
    event = {"name": "opened", "id": "e1", "user": "ann"}

    for _ in range(2):
        assert alice.send("/v1/events", {"events": [event]}).status_code == 201

    assert AnalyticsEvent.objects.filter(event_name="client.opened").count() == 1


@is_postgresql
@pytest.mark.parametrize("when", [at(MON, 10), JULY_20])
def test_a_request_id_is_unique_in_its_partition(partitioned: None, when: datetime) -> None:
    turn(BOB, JULY_20)
    twin = UsageEvent.objects.filter(created_at__date=when.date()).first()
    assert twin

    twin.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        twin.save(force_insert=True)


@is_postgresql
def test_months_are_added_ahead(partitioned: None) -> None:
    assert partitions.add_months(OCTOBER_5) == 8

    assert partitions.partitions("usage_events")[-1] == "usage_events_2027_01"
    assert partitions.add_months(OCTOBER_5) == 0


@is_postgresql
def test_a_month_is_dropped_whole(partitioned: None, settings: Settings) -> None:
    settings.RAW_RETENTION_DAYS = 10
    forget_week()
    for day in (1, 15, 31):
        turn(ANN, datetime(2026, 7, day, 10, tzinfo=UTC))
    kept = turn(ANN, datetime(2026, 8, 1, 10, tzinfo=UTC))
    with time_machine.travel(datetime(2026, 8, 10, 12, tzinfo=UTC)):
        build(date(2026, 7, 1), date(2026, 8, 8))
        assert purge(timezone.now()) == {}
        assert not RollupDay.objects.filter(purged_at__isnull=False).exists()
        figures = figures_of_july()

    with time_machine.travel(datetime(2026, 8, 11, 12, tzinfo=UTC)):
        assert purge(timezone.now()) == {"usage events": 3, "analytics events": 3}

    assert "usage_events_2026_07" not in partitions.partitions("usage_events")
    assert [row.request_id for row in UsageEvent.objects.all()] == [kept]
    assert RollupDay.objects.filter(purged_at__isnull=False).count() == 31
    assert figures_of_july() == figures


@is_postgresql
def test_the_first_partition_is_purged_row_by_row(partitioned: None, settings: Settings) -> None:
    settings.RAW_RETENTION_DAYS = 10
    forget_week()
    turn(ANN, at(MON, 10))
    with time_machine.travel(datetime(2026, 7, 11, 12, tzinfo=UTC)):
        build(MON.date(), date(2026, 7, 9))
        assert purge(timezone.now()) == {"usage events": 1, "analytics events": 1}

    assert "usage_events_before_2026_07" in partitions.partitions("usage_events")


@is_postgresql
def test_a_month_with_a_pending_turn_is_kept(partitioned: None, settings: Settings) -> None:
    settings.RAW_RETENTION_DAYS = 10
    forget_week()
    row(ANN, datetime(2026, 7, 15, 10, tzinfo=UTC), "pending")
    with time_machine.travel(OCTOBER_5.replace(month=8, day=12)):
        build(date(2026, 7, 1), date(2026, 8, 2))
        with pytest.raises(retention.NotYet):
            purge(timezone.now())

    assert UsageEvent.objects.count() == 1
