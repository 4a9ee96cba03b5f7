"""A day with many rows is built before it is over, for readers who would have to add them up."""

from datetime import timedelta

import pytest
from django.db.models import F
from django.utils import timezone

from analytics.metrics.registry import METRICS
from analytics.metrics.usage import turns
from analytics.models import RollupDay
from analytics.query import ALL, DAY, FRESH, Filters
from analytics.rollups import schedule as rollups
from analytics.tests.sample_week import ANN, BOB, CID, SUN, TODAY, at, turn, week, write_week

SETTLED = TODAY + timedelta(hours=1)


def build_all() -> None:
    for day in [*rollups.due(SETTLED), TODAY.date()]:
        rollups.build_day(day)


@pytest.mark.parametrize(
    "filters",
    [ALL, Filters(client_token_id=1), Filters(model="local"), Filters(app_version="2.0"), Filters(1, "gpt", "1.0")],
)
def test_it_is_read_as_its_rows_are(db: None, filters: Filters) -> None:
    write_week()
    turn(BOB, at(TODAY, 8, 10), "failed", error_code="upstream_error")
    live = {name: metric.run(week(), filters) for name, metric in METRICS.items()}

    build_all()

    assert week().tail is None
    assert {name: metric.run(week(), filters) for name, metric in METRICS.items()} == live


def test_it_is_read_for_some_minutes(db: None) -> None:
    write_week()
    build_all()
    built_at = RollupDay.objects.get(pk=TODAY.date()).built_at
    turn(ANN, at(TODAY, 10))

    assert turns(week())["completed"] == 12
    assert week().computed_at == built_at

    RollupDay.objects.filter(is_partial=True).update(built_at=F("built_at") - FRESH)

    assert turns(week())["completed"] == 13
    assert timezone.now() - week().computed_at < timedelta(minutes=1)


@pytest.mark.parametrize("filters", [ALL, Filters(client_token_id=1), Filters(1, "gpt")])
def test_no_user_is_counted_twice_when_it_is_no_longer_read(db: None, filters: Filters) -> None:
    write_week()
    for _ in range(3):
        turn({**ANN, "user_id": "eve"}, at(TODAY, 7))
    live = {name: metric.run(week(), filters) for name, metric in METRICS.items()}
    build_all()

    RollupDay.objects.filter(is_partial=True).update(built_at=F("built_at") - FRESH)

    assert {name: metric.run(week(), filters) for name, metric in METRICS.items()} == live


def test_a_day_before_that_is_no_longer_fresh_is_not_skipped(db: None) -> None:
    """Shortly after midnight two days go on."""
    write_week()
    build_all()
    RollupDay.objects.filter(day=SUN.date()).update(is_partial=True, built_at=timezone.now() - FRESH - DAY)
    turn(CID, at(SUN, 10))

    assert week().closed_to == SUN.date() - DAY
    assert turns(week())["completed"] == 13


def test_only_many_rows_are_built_and_only_now_and_then(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    write_week()
    now = at(TODAY, 12)
    assert rollups.large(now) == []

    monkeypatch.setattr(rollups, "MANY", 2)
    assert rollups.large(now) == [TODAY.date()]
    # Days are built in order, so yesterday comes too while it has not settled.
    assert rollups.large(SETTLED - timedelta(seconds=1)) == [SUN.date(), TODAY.date()]
    # A week of closed days, and today.
    assert rollups.run_due(now) == 8

    RollupDay.objects.update(built_at=now)
    assert rollups.run_due(now + rollups.REFRESH - timedelta(seconds=1)) == 0
    assert rollups.run_due(now + rollups.REFRESH) == 1


def test_a_day_after_one_with_many_rows_is_built_from_its_beginning(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its few users have to be compared with those of a month, which are many."""
    monkeypatch.setattr(rollups, "MANY", 3)
    for minute in range(3):
        turn(ANN, at(SUN, 12, minute))

    assert rollups.large(at(TODAY, 0, 1)) == [SUN.date(), TODAY.date()]
    assert rollups.large(at(TODAY, 12)) == [TODAY.date()]


def test_it_is_built_once_more_when_it_is_over(db: None) -> None:
    write_week()
    build_all()
    turn(ANN, at(TODAY, 23, 59))

    assert rollups.due(SETTLED + DAY - timedelta(seconds=1)) == []
    assert rollups.due(SETTLED + DAY) == [TODAY.date()]
