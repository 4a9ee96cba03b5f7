"""Rollups while something else goes on: another build, a settle, a scrape, a clock that is wrong."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from analytics.ledger import events as client_events
from analytics.ledger import turns as recording
from analytics.metrics import cohorts, engagement, usage
from analytics.metrics.prometheus import Totals
from analytics.metrics.sources import Table
from analytics.models import AnalyticsEvent
from analytics.query import Filters, Period, Query
from analytics.rollups import build, schedule
from analytics.rollups.store import build_day
from analytics.tests.sample_week import ANN, BOB, CID, SAT, SUN, TODAY, at, event, row, table, turn, week, write_week

SETTLED = TODAY + timedelta(hours=1)
BOUGHT: dict[str, Any] = {"model": "gpt", "served_model": "gpt", "tokens": recording.Tokens(9, 1, 10)}


def roll() -> None:
    for day in schedule.due(SETTLED):
        build_day(day)


def counters() -> dict[tuple[str, ...], float]:
    families = [family for family in Totals.read().families if family.type == "counter"]
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


def set_clock(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    monkeypatch.setattr(timezone, "now", lambda: now)


@pytest.mark.parametrize("minutes", [-61, 0])
def test_a_turn_that_ends_after_its_day_was_closed_is_counted(
    db: None, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    """Its node's clock is an hour behind that of the database, or its end was that late."""
    turn(ANN, at(SUN, 10))
    request_id = row(ANN, at(SUN, 23, 59), "pending")
    schedule.run_due(SETTLED)

    set_clock(monkeypatch, SETTLED + timedelta(minutes=minutes))
    recording.complete(recording.Subject(request_id, 1, "ann"), latency_ms=1000, **BOUGHT)

    roll()
    assert usage.turns(Table(week()))["completed"] == 2


@pytest.mark.parametrize(
    "tell",
    [
        lambda: recording.record_event("chat.replayed", recording.Subject("r_1", 1, "ann")),
        lambda: client_events.record(
            1, [AnalyticsEvent(event_name="client.opened", client_token_id=1, user_id="ann", created_at=timezone.now())]
        ),
    ],
)
def test_an_event_of_a_node_whose_clock_is_slow_is_counted(
    db: None, monkeypatch: pytest.MonkeyPatch, tell: Callable[[], Any]
) -> None:
    """For its node, the day that has been built goes on."""
    turn(ANN, at(SUN, 10))
    schedule.run_due(SETTLED)

    set_clock(monkeypatch, at(SUN, 23, 58))
    tell()

    set_clock(monkeypatch, SETTLED)
    assert schedule.due(SETTLED) == [SUN.date()]
    roll()
    # A session so late may go on past midnight, so it counts once today is built.
    build_day(TODAY.date())
    assert engagement.session_time(Table(Query(Period(SUN.date(), SUN.date()))))["count"] == 2


def test_a_day_before_the_first_one_built_is_built(db: None) -> None:
    """A client tells of the evening before the ledger's first day."""
    turn(ANN, at(SUN, 10))
    build_day(SUN.date())

    event(ANN, at(SAT, 20), "client.opened")
    recording.mark_changed([SAT.date()])

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


def test_a_turn_that_is_given_up_is_activity_of_when_it_was_asked(db: None) -> None:
    """And not of the hour at which somebody tidied up."""
    opened = row(ANN, at(SUN, 23), "pending")

    recording.abandon([opened])

    samples = engagement.time_spent_samples(table())
    assert [(sample["day"], sample["seconds"]) for sample in samples] == [(SUN.date().isoformat(), 0)]


@pytest.mark.django_db(transaction=True)
def test_the_day_before_is_built_while_a_day_is_read_for_the_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    turn(ANN, at(SAT, 10))
    turn(ANN, at(SUN, 10))
    turn(BOB, at(SUN, 11))
    build_day(SAT.date())
    turn(BOB, at(SAT, 12))
    recording.mark_changed([SAT.date()])
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
        recording.mark_changed([SUN.date()])
        schedule.run_due(now + timedelta(minutes=minute))

    assert schedule.due(now) == [SUN.date()]
    schedule.run_due(now + schedule.PAUSE + timedelta(minutes=1))
    assert schedule.due(now) == []
