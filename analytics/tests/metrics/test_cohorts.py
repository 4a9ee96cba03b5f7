"""New users, retention and activation, worked out by hand."""

from datetime import timedelta
from typing import Any

import pytest

from analytics.metrics import cohorts
from analytics.models import Milestone
from analytics.query import ALL, Filters
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
    roll_up,
    table,
    turn,
    write_built_week,
)


@pytest.fixture
def written(db: None) -> None:
    write_built_week()


def column(rows: list[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]


def test_a_user_is_new_once_with_any_client(written: None) -> None:
    rows = cohorts.new_and_returning(table())

    assert column(rows, "new") == [2, 1, 0, 0, 0, 0, 0, 0]
    assert column(rows, "returning") == [0, 2, 2, 0, 0, 0, 0, 2]
    # bob's second version is no new user.
    event({**BOB, "app_version": "3.0"}, at(TODAY, 0, 1))
    assert cohorts.new_and_returning(table(Filters(app_version="3.0")))[-1]["new"] == 0


def test_retention_of_the_week(written: None) -> None:
    rows = cohorts.retention(table())

    # Both of Monday's came on Tuesday. The seventh day after is today, which is not over.
    assert rows[0] == {"day": MON.date().isoformat(), "new": 2, "d1": 1, "d7": None, "d30": None}
    # cid came on Wednesday; the seventh day is tomorrow.
    assert rows[1] == {"day": TUE.date().isoformat(), "new": 1, "d1": 1, "d7": None, "d30": None}
    # Nobody was new.
    assert rows[2] == {"day": WED.date().isoformat(), "new": 0, "d1": None, "d7": None, "d30": None}
    # The days on which users return may lie after the period.
    assert cohorts.retention(table(last=MON)) == rows[:1]


def test_retention_of_a_filter_is_of_its_cohort(db: None) -> None:
    """A release: users who were new with 1.0 come back with 2.0, and the one who was new with 2.0 does not."""
    new, old, before = {**ANN, "app_version": "2.0"}, ANN, MON - timedelta(days=1)
    for user in ("eve", "fay", "gil"):
        turn({**old, "user_id": user}, at(before, 9))
        if user != "gil":
            turn({**new, "user_id": user}, at(SUN, 9))
    turn({**new, "user_id": "hal"}, at(before, 9))
    turn({**old, "user_id": "fay"}, at(SUN, 10))

    def sevenths(filters: Filters) -> tuple[int, float | None]:
        (found,) = cohorts.retention(table(filters, first=before, last=before))
        return found["new"], found["d7"]

    assert sevenths(ALL) == (4, 0.5)
    # Two of three, whatever they came back with; and not one that was new with another version.
    assert sevenths(Filters(app_version="1.0")) == (3, 0.6667)
    assert sevenths(Filters(app_version="2.0")) == (1, 0)
    assert sevenths(Filters(1, "gpt", "1.0")) == (3, 0.6667)
    assert sevenths(Filters(2)) == (0, None)


def test_five_turns_activate_a_user(written: None) -> None:
    # ann's fifth is Wednesday's first; bob and cid have three each.
    rows = cohorts.activation(table())
    assert column(rows, "new")[:3] == [2, 1, 0]
    assert column(rows, "activated")[:3] == [1, 0, 0]
    assert column(rows, "share")[:3] == [0.5, 0, None]

    # bob's fourth and fifth, today; and a user who is new today and has five at once.
    for second in range(5):
        event({**CID, "user_id": "dee"}, TODAY + timedelta(seconds=second))
        if second < 2:
            event(BOB, TODAY + timedelta(seconds=second))
    rows = cohorts.activation(table())
    assert column(rows, "new") == [2, 1, 0, 0, 0, 0, 0, 1]
    assert column(rows, "activated") == [2, 0, 0, 0, 0, 0, 0, 1]
    assert column(cohorts.activation(table(Filters(1))), "activated") == [2, 0, 0, 0, 0, 0, 0, 0]
    assert column(cohorts.activation(table(Filters(app_version="2.0"))), "new") == [1, 0, 0, 0, 0, 0, 0, 0]


def test_the_day_of_the_fifth_turn_is_kept(written: None) -> None:
    roll_up()

    assert dict(Milestone.objects.values_list("user_id", "fifth_day")) == {"ann": WED.date(), "bob": None, "cid": None}
