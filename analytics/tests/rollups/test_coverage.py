"""As of when figures are: days that go on are built before they are read, or by the server every minute."""

import logging
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from analytics import ledger
from analytics.metrics.sources import Table
from analytics.metrics.usage import turns
from analytics.models import RollupDay
from analytics.query import DAY, midnight
from analytics.rollups import coverage, schedule, store
from analytics.rollups.coverage import Coverage, bring_up_to_date
from analytics.tests.sample_week import ANN, CID, MON, SUN, TODAY, at, event, roll_up, row, turn, week, write_week

SETTLED = TODAY + timedelta(hours=1)
LONG_AGO = timedelta(hours=3)


def completed() -> int:
    return turns(Table(week()))["completed"]


def read_coverage() -> Coverage:
    return Coverage.of(list(RollupDay.objects.unsettled()))


def open_days(now: datetime) -> list[date]:
    return list(schedule.open_days(now, list(RollupDay.objects.unsettled())))


def make_old(**days: Any) -> None:
    """Let the builds of these days be hours ago."""
    RollupDay.objects.filter(**days).update(built_at=timezone.now() - LONG_AGO)


def test_a_day_that_goes_on_is_built_before_it_is_read(db: None) -> None:
    write_week()
    roll_up()
    assert completed() == 12

    turn(ANN, timezone.now())
    bring_up_to_date()

    assert completed() == 13
    assert RollupDay.objects.get(is_partial=True).day == TODAY.date()


def test_a_day_that_has_not_changed_is_not_built_again(db: None) -> None:
    turn(ANN, at(SUN, 10))
    roll_up()
    make_old(is_partial=True)
    built_at = RollupDay.objects.get(pk=TODAY.date()).built_at

    before = timezone.now()

    found = bring_up_to_date()

    assert RollupDay.objects.get(pk=TODAY.date()).built_at == built_at
    # Nothing is missing, however long ago it was built.
    assert found.computed_at >= before


@pytest.mark.parametrize("change", ["event", "turn", "end", "invalidation"])
def test_whatever_changes_the_day_is_noticed(db: None, change: str) -> None:
    pending = row(ANN, TODAY, "pending") if change == "end" else ""
    roll_up()
    make_old(is_partial=True)
    if change == "event":
        event(ANN, timezone.now())
    elif change == "turn":
        row(ANN, timezone.now())
    elif change == "invalidation":
        RollupDay.objects.filter(pk=TODAY.date()).note_change()
    else:
        assert pending

    assert open_days(timezone.now()) == [TODAY.date()]


def test_a_day_of_many_rows_is_left_to_the_server(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "CHEAP_EVENTS", 2)
    now = timezone.now()
    turn(ANN, now)
    turn(ANN, now)
    roll_up()
    built_at = RollupDay.objects.get(pk=TODAY.date()).built_at
    turn(ANN, timezone.now())

    assert bring_up_to_date().computed_at == built_at
    assert completed() == 2

    assert schedule.run_due(timezone.now()) == 1
    assert completed() == 3


def test_the_build_of_another_process_is_as_old_as_its_reading(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    read_at = timezone.now() - timedelta(seconds=5)

    def lose_the_race(day: date) -> bool:
        store.build_day(day)
        RollupDay.objects.filter(pk=day).update(built_at=read_at)
        return False

    roll_up()
    turn(ANN, timezone.now())
    monkeypatch.setattr(coverage, "build_day", lose_the_race)

    assert bring_up_to_date().computed_at == read_at


def test_a_day_of_many_users_is_left_to_the_server(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own few users are compared with those of the month before."""
    turn(ANN, at(SUN, 1))
    turn(CID, at(SUN, 2))
    roll_up()
    monkeypatch.setattr(schedule, "CHEAP_USER_DAYS", 1)

    assert not schedule.is_cheap(TODAY.date())
    assert schedule.is_cheap(SUN.date())


def test_a_reader_builds_for_a_moment_only(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The days that are left are told by as of when the figures are."""
    write_week()
    monkeypatch.setattr(coverage, "READER_SECONDS", 0)

    found = bring_up_to_date()

    assert not RollupDay.objects.built().exists()
    assert found.computed_at == midnight(MON.date())
    assert found.as_of == f"As of {MON.date()} 00:00 UTC."


def test_a_reader_builds_missing_days_in_order(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "READER_SECONDS", 60)
    write_week()

    bring_up_to_date()

    assert RollupDay.objects.built().count() == 8
    assert completed() == 12


def test_a_build_that_fails_does_not_stop_a_reader(
    db: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    turn(ANN, at(SUN, 10))
    store.build_day(SUN.date())

    def fail(day: object) -> bool:
        raise OperationalError("database is locked")

    monkeypatch.setattr(coverage, "build_day", fail)
    with caplog.at_level(logging.WARNING):
        found = bring_up_to_date()

    assert found.computed_at == TODAY
    assert "could not be built" in caplog.text


def test_an_empty_ledger_is_up_to_date(db: None) -> None:
    before = timezone.now()

    assert read_coverage().computed_at >= before
    assert read_coverage().as_of == ""


def test_a_change_of_a_final_day_is_told_until_it_is_built(db: None) -> None:
    turn(ANN, at(SUN, 10))
    roll_up()
    before = timezone.now()
    event(ANN, at(SUN, 11), "client.thumbs_up")
    RollupDay.objects.filter(pk=SUN.date()).note_change()
    RollupDay.objects.filter(pk=SUN.date()).note_change()

    changed_at = RollupDay.objects.get(pk=SUN.date()).changed_at
    assert changed_at is not None
    assert before - timedelta(seconds=1) <= changed_at <= timezone.now()
    assert read_coverage().computed_at <= changed_at

    store.build_day(SUN.date())

    assert RollupDay.objects.get(pk=SUN.date()).changed_at is None
    assert bring_up_to_date().computed_at > changed_at


def test_an_open_day_is_final_once_it_is_over(db: None) -> None:
    write_week()
    roll_up()
    turn(ANN, at(TODAY, 23, 59))

    assert schedule.due(SETTLED + DAY - timedelta(seconds=1)) == []
    assert schedule.due(SETTLED + DAY) == [TODAY.date()]
    # For an hour after midnight both days go on.
    assert open_days(SETTLED + DAY - timedelta(seconds=1)) == [
        TODAY.date(),
        TODAY.date() + DAY,
    ]


def test_the_server_builds_an_open_day_every_minute(db: None) -> None:
    write_week()
    now = timezone.now()
    # Seven days that are over, and today.
    assert schedule.run_due(now) in (7, 8)

    make_old(is_partial=True)
    event(ANN, timezone.now())

    assert schedule.run_due(now + timedelta(minutes=1)) >= 1


@pytest.mark.parametrize("late", ["event", "end of a turn that was given up"])
def test_what_comes_late_today_is_counted(db: None, set_clock: Callable[..., None], late: str) -> None:
    """No row of the day is younger than its rollups."""
    set_clock(at(TODAY, 12))
    request_id = row(ANN, at(TODAY, 9), "pending")
    ledger.abandon([request_id])
    roll_up()
    set_clock(at(TODAY, 15))

    subject = ledger.Subject(request_id, 1, "ann", model="gpt")
    if late == "event":
        ledger.record_client_events(1, [ledger.Event("client.thumbs_up", subject, age=timedelta(hours=4))])
    else:
        bought = ledger.LlmTokens(9, 1, 10)
        ledger.close_usage(ledger.Ending(subject, ledger.Status.ABANDONED, 1, code="superseded", tokens=bought))
    set_clock(at(TODAY, 16))
    bring_up_to_date()

    total = Table(week()).total
    assert (total.thumbs_up, total.total_tokens) == ((1, 0) if late == "event" else (0, 10))


@pytest.mark.django_db
def test_while_another_builds_a_reader_gets_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty readers of a process would build the same day fifty times."""
    monkeypatch.setattr(coverage.builds, "patience", 0.01)
    monkeypatch.setattr(coverage, "build_open_days", lambda started: pytest.fail("it is being built"))

    with coverage.builds.held(coverage.READERS):
        found = coverage.bring_up_to_date()

    assert found.computed_at <= timezone.now()
