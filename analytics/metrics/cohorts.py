"""What becomes of new users: a cohort is the users who were first active on one day, with any client."""

from datetime import date
from typing import Any

from analytics.metrics.sources import Table, by_day, share
from analytics.query import DAY, today
from analytics.rollups.activity import RETURNS


def new_and_returning(table: Table) -> list[dict[str, Any]]:
    """Active users of each day: new ones, first active ever on that day, with any client; and all others."""
    return by_day(table.activity, lambda row: {"new": row.new_users, "returning": row.returning})


def retention(table: Table) -> list[dict[str, Any]]:
    """Of the users who were new on each day, the share active again exactly 1, 7 and 30 days later.

    Null where nobody was new, or where that day is not over yet. With filters, the new users are those whom they
    match on their first day; any completed turn brings them back.
    """
    return [
        {"day": day.isoformat(), "new": row.new_users, **{f"d{age}": returned(table, day, age) for age in RETURNS}}
        for day, row in table.activity.items()
    ]


def returned(table: Table, day: date, age: int) -> float | None:
    if day + age * DAY >= today():
        return None
    return share(table.returned[age].get(day, 0), table.activity[day].new_users)


def sign_ups(table: Table) -> list[dict[str, Any]]:
    """People who signed in for the first time, for each day. They belong to no model and no version."""
    return by_day(table.usage, lambda row: {"people": row.sign_ups})


def activation(table: Table) -> list[dict[str, Any]]:
    """Of the users who were new on each day, those who have completed 5 turns since, and their share; null without.

    With filters, the new users are those whom they match on their first day; all turns of these count.
    """
    return [
        {"day": day.isoformat(), "new": row.new_users, "activated": table.activated[day], "share": activated}
        for (day, row), activated in zip(table.activity.items(), activated_share_by_day(table), strict=True)
    ]


def activated_share(table: Table) -> float | None:
    return share(table.activated.total(), sum(table.each_day("activity", "new_users")))


def activated_share_by_day(table: Table) -> list[float | None]:
    return [share(table.activated[day], row.new_users) for day, row in table.activity.items()]
