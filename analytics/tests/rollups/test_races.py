"""Rollups while something else goes on: another build, a settle, a scrape, a clock that is wrong."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
from django.utils import timezone

from analytics import ledger
from analytics.metrics import cohorts, engagement, usage
from analytics.metrics.prometheus import Families
from analytics.metrics.sources import Table
from analytics.models import AnalyticsEvent, RollupDay, UsageEvent
from analytics.query import Filters, Period, Query
from analytics.rollups import build, schedule
from analytics.rollups.store import build_day
from analytics.tests.sample_week import ANN, BOB, CID, SAT, SUN, TODAY, at, event, row, table, turn, week, write_week
from chat.sql import DjangoSession
from chat.turns import store

SETTLED = TODAY + timedelta(hours=1)
BOUGHT: dict[str, Any] = {"served_model": "gpt", "tokens": ledger.LlmTokens(9, 1, 10), "latency_ms": 1000}


def roll() -> None:
    for day in schedule.due(SETTLED):
        build_day(day)


def counters() -> dict[tuple[str, ...], float]:
    families = [family for family in Families.read().families if family.type == "counter"]
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_counters_do_not_fall_when_a_day_that_goes_on_is_built(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    write_week()
    roll()
    read = build.session_rows
    scraped = []

    def scrape_first(day: date) -> Any:
        turn(ANN, TODAY)
        scraped.append(counters())
        return read(day)

    monkeypatch.setattr(build, "session_rows", scrape_first)
    build_day(TODAY.date())

    later = counters()
    assert all(later[name] >= value for name, value in scraped[0].items())


def test_a_build_does_not_replace_a_younger_one(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that ends raises no number of changes while its day goes on."""
    row(ANN, at(TODAY, 8), "pending")
    read = build.Day.read

    def be_overtaken(day: date) -> build.Day:
        found = read(day)
        monkeypatch.setattr(build.Day, "read", read)
        UsageEvent.objects.update(status="failed", finished_at=at(TODAY, 9))
        assert build_day(day)
        return found

    monkeypatch.setattr(build.Day, "read", be_overtaken)
    build_day(TODAY.date())

    assert usage.turns(Table(week()))["failed"] == 1


@pytest.mark.parametrize("minutes", [-61, 0])
def test_a_turn_that_ends_after_its_day_was_closed_is_counted(
    db: None, set_clock: Callable[..., None], minutes: int
) -> None:
    """Whatever the clock of its node says."""
    turn(ANN, at(SUN, 10))
    request_id = row(ANN, at(SUN, 23, 59), "pending")
    schedule.run_due(SETTLED)

    set_clock(SETTLED, node=SETTLED + timedelta(minutes=minutes))
    subject = ledger.Subject(request_id, 1, "ann", model="gpt")
    ledger.close_usage(ledger.Ending(subject, ledger.Status.COMPLETED, **BOUGHT))

    roll()
    assert usage.turns(Table(week()))["completed"] == 2


@pytest.mark.parametrize("age", [timedelta(0), timedelta(minutes=5)])
def test_rows_are_dated_by_the_clock_of_the_database(db: None, set_clock: Callable[..., None], age: timedelta) -> None:
    """For their node the day that has been built goes on, and they must not be missing there."""
    turn(ANN, at(SUN, 10))
    schedule.run_due(SETTLED)
    subject = ledger.Subject("r_1", 1, "ann")

    set_clock(SETTLED, node=at(SUN, 23, 58))
    DjangoSession().run((store.OPEN_USAGE, [{**vars(subject), "is_stream": False, "is_fenced": False}]))
    ledger.record_event("chat.replayed", subject)
    ledger.record_client_events(1, [ledger.Event("client.opened", subject, age=age)])

    written = {
        UsageEvent.objects.get(request_id="r_1").created_at,
        AnalyticsEvent.objects.get(event_name="chat.replayed").created_at,
        AnalyticsEvent.objects.get(event_name="client.opened").created_at + age,
    }
    assert written == {SETTLED}
    assert schedule.due(SETTLED) == []


@pytest.mark.parametrize(("minutes", "is_late"), [(49, False), (51, True)])
def test_a_turn_is_late_before_its_day_can_be_built(
    db: None, set_clock: Callable[..., None], minutes: int, is_late: bool
) -> None:
    """Its transaction may still run when the day is read."""
    request_id = row(ANN, at(SUN, 23, 59), "pending")

    set_clock(at(SUN, 23, 59) + timedelta(minutes=minutes))
    subject = ledger.Subject(request_id, 1, "ann", model="gpt")
    ledger.close_usage(ledger.Ending(subject, ledger.Status.COMPLETED, **BOUGHT))

    assert RollupDay.objects.filter(changes=1).exists() == is_late


def test_a_day_before_the_first_one_built_is_built(db: None) -> None:
    """A client tells of the evening before the ledger's first day."""
    turn(ANN, at(SUN, 10))
    build_day(SUN.date())

    event(ANN, at(SAT, 20), "client.opened")
    ledger.invalidate([SAT.date()])

    assert schedule.due(SETTLED) == [SAT.date()]
    schedule.run_due(SETTLED)
    assert engagement.session_time(Table(week()))["count"] == 2


def test_a_day_that_is_built_between_two_reads_breaks_none(db: None) -> None:
    """A client's first turn of the day is in the parts that are read later alone."""
    turn(ANN, TODAY)
    found = table(Filters(2))
    assert usage.turns(found)["completed"] == 0

    turn(CID, TODAY)
    build_day(TODAY.date())

    (day,) = usage.latency_ms(found)["by_day"]
    assert (day["mean"], day["p50"]) == (100, 100)


def test_an_abandoned_turn_is_activity_of_when_it_was_asked(db: None) -> None:
    """And not of the hour at which somebody tidied up."""
    opened = row(ANN, at(SUN, 23), "pending")

    ledger.abandon([opened])

    samples = engagement.time_spent_samples(table())
    assert [(sample["day"], sample["seconds"]) for sample in samples] == [(SUN.date().isoformat(), 0)]


@pytest.mark.django_db(transaction=True)
def test_a_day_is_built_while_the_next_is_first_read(monkeypatch: pytest.MonkeyPatch) -> None:
    turn(ANN, at(SAT, 10))
    turn(ANN, at(SUN, 10))
    turn(BOB, at(SUN, 11))
    build_day(SAT.date())
    turn(BOB, at(SAT, 12))
    ledger.invalidate([SAT.date()])
    read = build.Day.read
    others: list[bool] = []

    def read_then_build(day: date) -> build.Day:
        built = read(day)
        if day == SUN.date() and not others:
            others.append(True)
            build_day(SAT.date())
        return built

    monkeypatch.setattr(build.Day, "read", read_then_build)
    build_day(SUN.date())
    roll()

    rows = cohorts.new_and_returning(Table(Query(Period(SAT.date(), SUN.date()))))
    assert [(row["new"], row["returning"]) for row in rows] == [(2, 0), (0, 2)]


def test_events_that_come_late_do_not_build_their_day_each_time(db: None) -> None:
    write_week()
    now = timezone.now()
    schedule.run_due(now + timedelta(hours=2))
    for minute in range(14):
        event(ANN, at(SUN, 13), "client.opened")
        ledger.invalidate([SUN.date()])
        schedule.run_due(now + timedelta(minutes=minute))

    assert schedule.due(now) == [SUN.date()]
    schedule.run_due(now + schedule.PAUSE + timedelta(minutes=1))
    assert schedule.due(now) == []
