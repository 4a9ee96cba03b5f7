"""A purge deletes raw rows, and no figure of any closed day."""

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from pytest_django import DjangoDbBlocker, Settings

from analytics import ledger
from analytics.ledger import retention
from analytics.metrics.prometheus import Families
from analytics.metrics.registry import METRICS
from analytics.metrics.sources import Table
from analytics.metrics.usage import usage_by_day_and_model
from analytics.models import ActivityRollup, AnalyticsEvent, RollupDay, UsageEvent
from analytics.query import ALL, Filters, Period, Query, days_between
from analytics.reconcile.comparison import reconcile
from analytics.reconcile.export_file import BadExport
from analytics.rollups import build, schedule
from analytics.rollups.store import build_day
from analytics.tests.sample_week import (
    ANN,
    BOB,
    CID,
    FRI,
    MON,
    SUN,
    THU,
    TODAY,
    TUE,
    WED,
    at,
    event,
    row,
    turn,
    write_week,
)
from conftest import NOON, kept_rows

SOME_FILTERS = [ALL, Filters(1), Filters(model="gpt"), Filters(app_version="2.0"), Filters(2, "local")]


@pytest.fixture(autouse=True)
def two_days(db: None, settings: Settings) -> None:
    """Keep rows of Saturday, Sunday and today."""
    settings.RAW_RETENTION_DAYS = 2


@pytest.fixture(scope="module")
def week(at_noon: None, django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[list[Any]]:
    """Write the week once, and return its figures."""
    with kept_rows(django_db_blocker):
        write_built_days()
        yield list(figures())


def write_built_days() -> None:
    write_week()
    event(ANN, at(MON, 11), "client.thumbs_up")
    # A day that is kept goes on from one that is not: a session, a replay, users who are not new.
    turn(BOB, at(FRI, 23, 50))
    turn(BOB, at(FRI, 23, 50) + timedelta(minutes=20))
    replayed = turn(CID, at(FRI, 9))
    event({**CID, "model": ""}, at(FRI + timedelta(days=1), 9), "chat.replayed", original_request_id=replayed)
    roll()


def roll() -> None:
    for day in schedule.due(NOON):
        build_day(day)


def run() -> str:
    out = StringIO()
    call_command("purge_expired", stdout=out, stderr=out)
    return out.getvalue()


def figures() -> Iterator[Any]:
    for period in (Period(MON.date(), TODAY.date()), Period(MON.date(), SUN.date()), Period(TUE.date(), WED.date())):
        for filters in SOME_FILTERS:
            table = Table(Query(period, filters))
            yield usage_by_day_and_model(table)
            for name, metric in METRICS.items():
                yield name, period.first, filters, metric.value(table)
    yield [(family.name, family.samples) for family in Families.read().families]


def days_of(table: type[UsageEvent] | type[AnalyticsEvent]) -> set[date]:
    return {at.date() for at in table.objects.values_list("created_at", flat=True)}


def test_no_figure_changes(week: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    printed = run()

    assert "14 usage events deleted." in printed
    assert "16 analytics events deleted." in printed
    assert days_of(UsageEvent) | days_of(AnalyticsEvent) == {FRI.date() + timedelta(days=1), TODAY.date()}
    assert list(figures()) == week
    # Whatever is built after that, and for whatever reason.
    ledger.invalidate(list(days_between(MON.date(), SUN.date())))
    roll()
    assert schedule.due(NOON) == []
    assert list(figures()) == week
    out = StringIO()
    call_command("rollup", "--rebuild", stdout=out)
    assert out.getvalue().startswith("1 days built.\nDays up to ")
    assert list(figures()) == week


def test_rollups_of_users_come_again_of_what_is_kept(week: list[Any]) -> None:
    """As after an upgrade that brings new ones."""
    run()
    ActivityRollup.objects.exclude(client_token_id=0).delete()
    assert list(figures()) != week

    ledger.invalidate(list(days_between(MON.date(), SUN.date())))
    roll()

    assert list(figures()) == week


def test_it_is_done_once(week: list[Any]) -> None:
    run()

    assert "0 usage events deleted." in run()
    assert RollupDay.objects.filter(purged_at__isnull=False).count() == 5


def test_for_ever_is_the_default(week: list[Any], settings: Settings) -> None:
    settings.RAW_RETENTION_DAYS = 0

    assert "0 usage events deleted." in run()
    assert UsageEvent.objects.filter(created_at__lt=TUE).exists()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda: RollupDay.objects.filter(day=WED.date()).update(built_at=None), "wait for the rollups"),
        (lambda: ledger.invalidate([WED.date()]), "wait for the rollups"),
        (lambda: RollupDay.objects.filter(day=WED.date()).update(is_partial=True), "wait for the rollups"),
        (lambda: row(ANN, at(TUE, 12), "pending"), "are pending"),
    ],
    ids=["not built", "stale", "partial", "pending"],
)
def test_what_is_still_to_be_built_is_kept(week: list[Any], spoil: Callable[[], Any], reason: str) -> None:
    """Tuesday is needed for Wednesday's replays, and so are all after it."""
    spoil()

    printed = run()

    assert f"Raw rows are kept: {'those' if 'rollups' in reason else 'turns'} of {TUE.date()} {reason}" in printed
    assert days_of(UsageEvent) >= {TUE.date(), WED.date()}
    assert MON.date() not in days_of(UsageEvent)


def test_a_build_that_has_read_before_a_purge_is_not_kept(week: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Thursday, when the turn of Wednesday that it had replayed goes while it is read."""
    read = build.usage_rollups

    def purge_then_read(day: date) -> Any:
        for _ in retention.purge_day(WED.date()):
            pass
        rows = read(day)
        for one in rows:
            one.replays = 0
        return rows

    monkeypatch.setattr(build, "usage_rollups", purge_then_read)
    build_day(THU.date())

    assert list(figures()) == week


def test_a_day_that_was_interrupted_is_gone_on_with(week: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 1)
    monkeypatch.setattr(retention, "JOB_SECONDS", 0)

    assert retention.run_due(NOON) == 1
    assert UsageEvent.objects.filter(created_at__lt=TUE).count() == 3
    assert list(figures()) == week

    monkeypatch.setattr(retention, "JOB_SECONDS", 60)
    assert retention.run_due(NOON) == 14 + 16 - 1
    assert list(figures()) == week


def test_a_purged_day_is_not_reconciled(week: list[Any]) -> None:
    run()
    export = f'{{"data": [{{"start_time": {MON.timestamp()}, "end_time": {TUE.timestamp()}, "results": []}}]}}'

    with pytest.raises(BadExport, match="were deleted after RAW_RETENTION_DAYS"):
        reconcile(export)
