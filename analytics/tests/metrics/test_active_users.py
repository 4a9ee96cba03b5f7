"""Metrics of active users in the sample week, worked out by hand."""

from datetime import date, timedelta

import pytest

from analytics.metrics import active_users
from analytics.metrics.sources import Table
from analytics.query import Filters, Period, Query
from analytics.rollups.store import build_day
from analytics.tests.sample_week import ANN, CID, MON, TUE, WED, at, table, turn, write_built_week

GPT = Filters(model="gpt")


def values(rows: list[dict[str, object]]) -> list[object]:
    """The figure of each day, without the days."""
    return [value for row in rows for name, value in row.items() if name != "day"]


@pytest.fixture(autouse=True)
def written(db: None) -> None:
    write_built_week()


def test_counts_distinct_users_of_trailing_days() -> None:
    found = table()

    # Mon: ann, bob. Tue: and cid. Wed: ann, cid. Today: bob, cid.
    assert values(active_users.dau(found)) == [2, 3, 2, 0, 0, 0, 0, 2]
    # The seven days that end today begin on Tuesday, when ann was there too.
    assert values(active_users.wau(found)) == [2, 3, 3, 3, 3, 3, 3, 3]
    assert values(active_users.mau(found)) == [2, 3, 3, 3, 3, 3, 3, 3]
    assert values(active_users.stickiness(found)) == [1, 1, 0.6667, 0, 0, 0, 0, 0.6667]


def test_counts_users_of_a_filter() -> None:
    bobs, of_client = table(Filters(app_version="2.0")), table(Filters(2))

    assert values(active_users.dau(bobs)) == [1, 1, 0, 0, 0, 0, 0, 1]
    assert values(active_users.wau(bobs)) == [1, 1, 1, 1, 1, 1, 1, 1]
    assert values(active_users.wau(of_client)) == [0, 1, 1, 1, 1, 1, 1, 1]


def test_divides_messages_and_cost_by_users() -> None:
    # 4 turns of 2 users, 3 of 3, 3 of 2; today 2 of 2.
    messages = values(active_users.messages_per_active_user(table()))
    assert messages == [2, 1, 1.5, None, None, None, None, 1]

    # cid's model has no price, so only Monday is known: 4,000 nanodollars of 2 users.
    assert values(active_users.cost_per_active_user(table())) == [2e-6, *[None] * 7]
    gpt = values(active_users.cost_per_active_user(table(GPT)))
    assert gpt == [2e-6, 1e-6, 2e-6, None, None, None, None, 1e-6]


class TestTrailingDays:
    @pytest.fixture(autouse=True)
    def written(self, db: None) -> None:
        turn(ANN, at(MON, 1))
        turn(ANN, at(TUE, 1))
        turn(CID, at(WED, 1))

    def test_a_user_leaves_them(self) -> None:
        later = Period(MON.date(), MON.date() + timedelta(days=33))
        # Weekly: ann up to Monday, the seventh day from Tuesday on; cid up to the Tuesday after. Monthly: 30 days each.
        weekly = [1, 1, 2, 2, 2, 2, 2, 2, 1] + 25 * [0]
        monthly = [1, 1] + 29 * [2] + [1] + 2 * [0]
        for day in later.days:  # days to come are built as well as any
            build_day(day)

        everybody = dict.fromkeys(later.days, 0)
        for client in (1, 2):
            for row in active_users.wau(Table(Query(later, Filters(client)))):
                everybody[date.fromisoformat(row["day"])] += row["users"]
        assert list(everybody.values()) == weekly
        assert values(active_users.wau(Table(Query(later)))) == weekly
        assert values(active_users.mau(Table(Query(later)))) == monthly
