"""Rollups while something else goes on: another build, a settle, a scrape, a clock that is wrong."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from analytics.ledger import events as client_events
from analytics.ledger import sums as aggregates
from analytics.ledger import turns as recording
from analytics.metrics import active_users as users
from analytics.metrics import cohorts as activation
from analytics.metrics import engagement as spent
from analytics.metrics import prometheus as exposition
from analytics.metrics import registry as metrics
from analytics.metrics import sources as reading
from analytics.metrics import usage
from analytics.metrics.usage import turns
from analytics.models import AnalyticsEvent, RollupDay
from analytics.query import ALL, Filters, Window
from analytics.rollups import build
from analytics.rollups import schedule as rollups
from analytics.tests.sample_week import ANN, BOB, CID, SAT, SUN, TODAY, at, event, row, turn, week, write_week

SETTLED = TODAY + timedelta(hours=1)
BOUGHT: dict[str, Any] = {"model": "gpt", "served_model": "gpt", "tokens": recording.Tokens(9, 1, 10)}


def roll() -> None:
    for day in rollups.due(SETTLED):
        rollups.build_day(day)


def counters() -> dict[tuple[str, ...], float]:
    families = [family for family in exposition.Totals.read().families if family.type == "counter"]
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_counters_do_not_fall_when_a_day_that_goes_on_is_built(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    write_week()
    roll()
    read = build.session_rows
    scraped = []

    def scrape_first(day: date) -> Any:
        turn(ANN, at(TODAY, 9, 40))
        scraped.append(counters())
        return read(day)

    monkeypatch.setattr(build, "session_rows", scrape_first)
    rollups.build_day(TODAY.date())

    later = counters()
    assert all(later[name] >= value for name, value in scraped[0].items())


def test_counters_do_not_fall_where_a_clock_is_behind(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    turn(ANN, at(SUN, 10))
    turn(ANN, at(TODAY, 0, 1))

    set_clock(monkeypatch, at(TODAY, 0, 2))
    before = counters()
    set_clock(monkeypatch, at(SUN, 23, 58))

    assert counters() == before


def set_clock(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    monkeypatch.setattr(timezone, "now", lambda: now)


@pytest.mark.parametrize("minutes", [-61, 0])
def test_a_turn_that_ends_after_its_day_was_closed_is_counted(
    db: None, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    """Its node's clock is an hour behind that of the database, or its end was that late."""
    turn(ANN, at(SUN, 10))
    request_id = row(ANN, at(SUN, 23, 59), "pending")
    rollups.run_due(SETTLED)

    set_clock(monkeypatch, SETTLED + timedelta(minutes=minutes))
    recording.complete(recording.Subject(request_id, 1, "ann"), latency_ms=1000, **BOUGHT)

    roll()
    assert turns(week())["completed"] == 2


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
    rollups.run_due(SETTLED)

    set_clock(monkeypatch, at(SUN, 23, 58))
    tell()

    set_clock(monkeypatch, SETTLED)
    assert rollups.due(SETTLED) == [SUN.date()]
    roll()
    assert spent.session_time(Window(SUN.date(), SUN.date()))["count"] == 2


def test_who_comes_between_two_reads_breaks_none(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """New users, before and after each read of those who are active."""
    turn(ANN, at(TODAY, 1))
    read = aggregates.active_users
    came: list[str] = []

    def come() -> None:
        came.append(f"u{len(came)}")
        turn({**ANN, "user_id": came[-1]}, at(TODAY, 2))

    def read_while_they_come(window: Window, filters: Filters) -> Any:
        come()
        found = read(window, filters)
        come()
        return found

    monkeypatch.setattr(aggregates, "active_users", read_while_they_come)

    for filters in (ALL, Filters(1)):
        for metric in (users.retention, users.new_and_returning, activation.activation):
            before = len(came)
            newest = metric(week(), filters)[-1]
            assert before + 1 <= newest["new"] <= len(came) + 1
            assert newest.get("returning", 0) >= 0


def test_a_day_that_is_built_between_two_reads_breaks_none(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's first turn of the day is in the second read alone."""
    turn(ANN, at(TODAY, 1))
    monkeypatch.setattr(rollups, "MANY", 1)
    rollups.run_due(timezone.now())
    read = reading.durations

    def build_then_read(*args: Any) -> Any:
        turn(CID, at(TODAY, 2))
        rollups.build_day(TODAY.date())
        return read(*args)

    monkeypatch.setattr(reading, "durations", build_then_read)

    (found,) = usage.latency_ms(week(), Filters(2))["by_day"]
    assert (found["mean"], found["p50"]) == (100, 100)


def test_a_day_before_the_first_that_was_built_is_built(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first day of a ledger was large; then a client told of the evening before."""
    monkeypatch.setattr(rollups, "MANY", 1)
    turn(ANN, at(SUN, 10))
    rollups.run_due(at(SUN, 13))
    assert RollupDay.objects.built().get().day == SUN.date()

    event(ANN, at(SAT, 20), "client.opened")
    recording.mark_changed([SAT.date()])

    assert rollups.due(at(SUN, 14)) == [SAT.date()]
    rollups.run_due(SETTLED)
    assert spent.session_time(week())["count"] == 2


def test_what_has_changed_and_is_not_built_again_is_told(db: None) -> None:
    turn(ANN, at(SUN, 10))
    roll()
    before = timezone.now()
    assert week().computed_at >= before

    event(ANN, at(SUN, 11), "client.thumbs_up")
    recording.mark_changed([SUN.date()])
    recording.mark_changed([SUN.date()])

    changed_at = RollupDay.objects.get().changed_at
    assert changed_at is not None
    assert before - timedelta(seconds=1) <= changed_at <= timezone.now()
    assert week().computed_at == changed_at
    roll()
    assert RollupDay.objects.get().changed_at is None
    assert week().computed_at > changed_at


def test_a_turn_that_is_given_up_is_activity_of_when_it_was_asked(db: None) -> None:
    """And not of the hour at which somebody tidied up."""
    opened = row(ANN, at(SUN, 23), "pending")

    recording.abandon([opened])

    samples = spent.time_spent_samples(week())
    assert [(sample["day"], sample["seconds"]) for sample in samples] == [(SUN.date().isoformat(), 0)]


@pytest.mark.django_db(transaction=True)
def test_the_day_before_is_built_while_a_day_is_read_for_the_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    turn(ANN, at(SAT, 10))
    turn(ANN, at(SUN, 10))
    turn(BOB, at(SUN, 11))
    rollups.build_day(SAT.date())
    turn(BOB, at(SAT, 12))
    recording.mark_changed([SAT.date()])
    read = build.Day.read
    others: list[bool] = []

    def read_then_build(day: date) -> build.Day:
        built = read(day)
        if day == SUN.date() and not others:
            others.append(True)
            rollups.build_day(SAT.date())
        return built

    monkeypatch.setattr(build.Day, "read", read_then_build)
    rollups.build_day(SUN.date())
    roll()

    rows = metrics.METRICS["new_and_returning"].run(Window(SAT.date(), SUN.date()), ALL)
    assert [(row["new"], row["returning"]) for row in rows] == [(2, 0), (0, 2)]


def test_events_that_come_late_do_not_build_their_day_each_time(db: None) -> None:
    write_week()
    now = timezone.now()
    rollups.run_due(now + timedelta(hours=2))
    built = 0
    for minute in range(14):
        event(ANN, at(SUN, 13), "client.opened")
        recording.mark_changed([SUN.date()])
        built += rollups.run_due(now + timedelta(minutes=minute))

    assert built == 0
    assert rollups.run_due(now + rollups.PAUSE + timedelta(minutes=1)) == 1
