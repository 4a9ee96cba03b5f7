"""Rollups while something else goes on: another build, a settle, a scrape, a clock that is wrong."""

from datetime import date, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from analytics import build, exposition, metrics, recording, rollups
from analytics.tests.ledger import ANN, BOB, SAT, SUN, TODAY, at, event, row, turn, week, write_week
from analytics.usage import turns
from analytics.windows import ALL, Window

SETTLED = TODAY + timedelta(hours=1)
BOUGHT: dict[str, Any] = {"model": "gpt", "served_model": "gpt", "tokens": recording.Tokens(9, 1, 10)}


def roll() -> None:
    for day in rollups.due(SETTLED):
        rollups.build_day(day)


def counters() -> dict[tuple[str, ...], float]:
    families = [family for family in exposition.Totals().collect() if family.type == "counter"]
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
