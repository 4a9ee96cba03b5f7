"""Rollups: what is read of them is what the raw rows say, once, whatever happens around the build."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import timezone

from analytics import cooperative, ledger
from analytics.ledger.endings import DIED
from analytics.metrics.sources import Table
from analytics.metrics.usage import turns, usage_by_day_and_model
from analytics.models import (
    ActivityRollup,
    AnalyticsEvent,
    Milestone,
    OpenSession,
    RollupDay,
    SessionRollup,
    UsageEvent,
    UsageRollup,
    UserDay,
)
from analytics.query import Filters, Period, Query, midnight
from analytics.rollups import build, schedule, store
from analytics.rollups.store import build_day, last_final_day
from analytics.tests.sample_week import (
    ANN,
    BOB,
    CID,
    MON,
    SUN,
    TODAY,
    TUE,
    WED,
    at,
    event,
    row,
    table,
    turn,
    week,
    write_week,
)

BOUGHT: dict[str, Any] = {"served_model": "gpt", "tokens": ledger.LlmTokens(9, 1, 10), "latency_ms": 86_400_000}
# When yesterday is over by an hour.
SETTLED = TODAY + timedelta(hours=1)


def roll() -> int:
    return sum(build_day(day) for day in schedule.due(SETTLED))


def kept() -> list[list[dict[str, Any]]]:
    """All that is in the tables, but for keys and the times of builds."""
    tables = (UsageRollup, UserDay, ActivityRollup, Milestone, SessionRollup, OpenSession, RollupDay)
    volatile = {"id", "built_at", "changes", "built_changes"}
    rows = [[{k: v for k, v in one.items() if k not in volatile} for one in kind.objects.values()] for kind in tables]
    return [sorted(kind, key=str) for kind in rows]


def test_it_works(db: None) -> None:
    write_week()

    assert roll() == 7

    found = usage_by_day_and_model(Table(Query(Period(MON.date(), SUN.date()))))
    monday = {
        "day": MON.date().isoformat(),
        "model": "gpt",
        "turns": 4,
        "failed": 0,
        "prompt_tokens": 360,
        "cached_tokens": 160,
        "completion_tokens": 40,
        "total_tokens": 400,
        "cost_usd": 4e-6,
    }
    assert found[0] == monday
    # Tuesday: ann and bob, and bob's failure; cid's model has no price.
    assert [(r["model"], r["turns"], r["failed"], r["cost_usd"]) for r in found[1:3]] == [
        ("gpt", 3, 1, 2e-6),
        ("local", 1, 0, None),
    ]


def test_a_client_reads_its_own(db: None) -> None:
    write_week()

    rows = usage_by_day_and_model(table(Filters(client_token_id=2)))

    # Tuesday, Wednesday, Thursday (abandoned: nothing sold, so it costs nothing) and today.
    assert [(r["turns"], r["total_tokens"], r["cost_usd"]) for r in rows] == [
        (1, 100, None),
        (1, 100, None),
        (1, 0, 0),
        (1, 100, None),
    ]
    assert {r["model"] for r in rows} == {"local"}


def test_building_twice_counts_nothing_twice(db: None) -> None:
    write_week()
    roll()
    once = kept()

    assert roll() == 0
    assert schedule.days_to_build(SETTLED, None, None, rebuild=True) == list(Period(MON.date(), SUN.date()).days)
    for day in schedule.days_to_build(SETTLED, None, None, rebuild=True):
        assert build_day(day)

    assert kept() == once


def test_a_day_is_closed_when_it_is_over_by_an_hour(db: None) -> None:
    turn(ANN, at(SUN, 12))

    assert schedule.due(SETTLED - timedelta(microseconds=1)) == []
    assert schedule.due(SETTLED) == [SUN.date()]


@pytest.mark.parametrize(
    "close",
    [
        lambda subject: ledger.close_usage(ledger.Ending(subject, ledger.Status.COMPLETED, **BOUGHT)) is not None,
        lambda subject: (
            ledger.close_usage(ledger.Ending(subject, ledger.Status.FAILED, 86_400_000, code="internal_error"))
            is not None
        ),
        lambda subject: ledger.abandon([subject.request_id]),
    ],
)
def test_a_row_that_is_settled_late_makes_its_day_stale(db: None, close: Callable[[ledger.Subject], Any]) -> None:
    turn(ANN, at(SUN, 10))
    request_id = row(ANN, at(SUN, 23), "pending")
    roll()
    assert turns(Table(week()))["pending"] == 1

    assert close(ledger.Subject(request_id, 1, "ann"))

    assert schedule.due(SETTLED) == [SUN.date()]
    assert roll() == 1
    UsageEvent.objects.all().delete()
    assert turns(Table(week()))["pending"] == 0
    assert sum(turns(Table(week())).values()) == 2


def test_a_row_that_was_given_up_too_early_makes_its_day_stale(db: None) -> None:
    request_id = row(ANN, at(SUN, 23), "abandoned", error_code=DIED)
    roll()

    ledger.close_usage(ledger.Ending(ledger.Subject(request_id, 1, "ann"), ledger.Status.COMPLETED, **BOUGHT))

    assert schedule.due(SETTLED) == [SUN.date()]


def test_a_turn_of_today_makes_nothing_stale(db: None, django_assert_num_queries: Any) -> None:
    now = timezone.now()
    request_id = row(ANN, now, "pending")
    ledger.invalidate([now.date()])
    ledger.close_usage(ledger.Ending(ledger.Subject(request_id, 1, "ann"), ledger.Status.COMPLETED, **BOUGHT))

    assert not RollupDay.objects.exists()


def test_a_row_that_changes_while_its_day_is_read_is_read_again(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    request_id = row(ANN, at(SUN, 23), "pending")
    read = build.session_rows

    def change_then_read(day: date) -> Any:
        ledger.abandon([request_id])
        return read(day)

    monkeypatch.setattr(build, "session_rows", change_then_read)
    roll()

    assert turns(Table(week())) == {"pending": 0, "completed": 0, "failed": 0, "abandoned": 1}
    assert schedule.due(SETTLED) == []


@pytest.mark.django_db(transaction=True)
def test_a_day_that_changes_all_the_time_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    turn(ANN, at(SUN, 10))
    read = build.session_rows
    reads = []

    def change_then_read(day: date) -> Any:
        reads.append(day)
        assert len(reads) < 20
        # Under the lock of the day, nobody can.
        if not connection.in_atomic_block:
            ledger.invalidate([day])
        return read(day)

    monkeypatch.setattr(build, "session_rows", change_then_read)

    assert build_day(SUN.date())
    assert schedule.due(SETTLED) == []


@pytest.mark.django_db(transaction=True)
def test_builds_at_the_same_time_count_nothing_twice() -> None:
    write_week()
    roll()
    once = kept()
    ledger.invalidate([TUE.date()])

    def run(_: int) -> bool:
        try:
            return build_day(TUE.date())
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(run, range(4)))

    assert any(built)
    assert kept() == once


def test_a_build_lets_others_be_served(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It computes for seconds where a day has many users, beside those who stream replies."""
    write_week()
    pauses: list[float] = []
    monkeypatch.setattr(cooperative, "WORK_SECONDS", 0)
    monkeypatch.setattr("analytics.cooperative.time.sleep", pauses.append)

    build_day(MON.date())

    # Events of four turns, their two users, and what these are in each kind of slice.
    assert len(pauses) > 30
    assert min(pauses) > 0


def test_what_a_purge_leaves_is_not_lost(db: None) -> None:
    write_week()
    roll()
    once = kept()
    UsageEvent.objects.all().delete()
    AnalyticsEvent.objects.all().delete()

    ledger.invalidate([MON.date()])
    call_command("rollup", "--rebuild", stdout=StringIO())

    assert kept() == once


def test_later_days_follow_a_change_of_who_was_active(db: None) -> None:
    write_week()
    roll()
    event(CID, at(MON, 9))
    ledger.invalidate([MON.date()])

    assert build_day(MON.date())
    assert roll() == 6

    incremental = kept()
    for kept_table in (UsageRollup, UserDay, ActivityRollup, Milestone, SessionRollup, OpenSession, RollupDay):
        kept_table.objects.all().delete()
    roll()
    assert kept() == incremental
    assert Milestone.objects.get(pk="cid").first_day == MON.date()


def test_missing_days_are_built_without_gaps(db: None) -> None:
    turn(ANN, at(MON, 1))
    turn(BOB, at(WED, 1))
    turn(CID, at(TODAY, 1))

    roll()

    assert RollupDay.objects.built().count() == 7


def test_the_chore_builds_for_a_while_only(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    write_week()
    monkeypatch.setattr(schedule, "JOB_SECONDS", 0)
    assert schedule.run_due(SETTLED) == 0

    monkeypatch.setattr(schedule, "JOB_SECONDS", 60)
    assert schedule.run_due(SETTLED) == 8


def test_the_command(db: None) -> None:
    def run(*arguments: str) -> str:
        out = StringIO()
        call_command("rollup", *arguments, stdout=out)
        return out.getvalue()

    last = last_final_day(timezone.now())
    turn(ANN, midnight(last - timedelta(days=2)))

    assert run(f"--to={last - timedelta(days=1)}") == "2 days built.\n"
    assert run() == "1 days built.\n"
    assert run() == "0 days built.\n"
    assert run("--rebuild", f"--from={last}") == "1 days built.\n"
    assert run("--rebuild") == "3 days built.\n"
    with pytest.raises(CommandError, match="not after --to"):
        run("--rebuild", f"--from={last}", f"--to={last - timedelta(days=1)}")
    with pytest.raises(CommandError, match="--rebuild"):
        run(f"--from={last}")
    with pytest.raises(CommandError, match="YYYY-MM-DD"):
        run("--to=soon")


@pytest.mark.django_db
def test_others_run_between_the_batches_of_a_large_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that writes ten thousand users takes a second."""
    pauses: list[float] = []
    monkeypatch.setattr(cooperative, "WORK_SECONDS", 0)
    monkeypatch.setattr("analytics.cooperative.time.sleep", pauses.append)
    users = [UserDay(day=TODAY, user_id=f"u{n}", client_token_id=1, model="m", turns=1) for n in range(3 * store.BATCH)]

    store.insert(UserDay, users)

    assert len(pauses) == 3
    assert UserDay.objects.count() == len(users)


@pytest.mark.django_db
def test_a_build_that_waited_for_a_lock_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader waits for it: three more tries would take four times as long."""
    tries = []

    def locked(day: date) -> None:
        tries.append(day)
        raise OperationalError("canceling statement due to lock timeout")

    monkeypatch.setattr(store, "try_to_build", locked)
    with pytest.raises(OperationalError):
        build_day(TODAY.date())

    assert tries == [TODAY.date()]
