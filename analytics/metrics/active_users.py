"""Metrics of active users. A user is the `user_id` of an event, whatever the client; days are UTC."""

from datetime import date
from typing import Any

from analytics.formatting import Values
from analytics.metrics.sources import Table, share


def rows(name: str, values: dict[date, Any]) -> list[dict[str, Any]]:
    return [{"day": day.isoformat(), name: value} for day, value in values.items()]


def dau(table: Table) -> list[dict[str, Any]]:
    """Daily active users: distinct users with at least one completed turn, for each day."""
    return rows("users", {day: row.dau for day, row in table.activity.items()})


def wau(table: Table) -> list[dict[str, Any]]:
    """Weekly active users: distinct users with a completed turn in the 7 days that end with each day."""
    return rows("users", {day: row.wau for day, row in table.activity.items()})


def mau(table: Table) -> list[dict[str, Any]]:
    """Monthly active users: distinct users with a completed turn in the 30 days that end with each day."""
    return rows("users", {day: row.mau for day, row in table.activity.items()})


def stickiness(table: Table) -> list[dict[str, Any]]:
    """DAU as a share of MAU, for each day; null while MAU is 0."""
    return rows("stickiness", {day: row.stickiness for day, row in table.activity.items()})


def messages_per_active_user(table: Table) -> list[dict[str, Any]]:
    """Completed turns per active user, for each day; null on days without active users."""
    return rows("messages", {day: row.messages for day, row in table.activity.items()})


def cost_per_active_user(table: Table) -> list[dict[str, Any]]:
    """Cost in USD of a day's turns per active user; null where a price is unknown, or nobody was active."""
    return rows("cost_usd", dict(zip(table.days, cost_of_user_by_day(table), strict=True)))


def cost_of_user_by_day(table: Table) -> list[float | None]:
    costs = {day: row.cost_usd for day, row in table.usage.items()}
    return [None if cost is None else share(cost, table.activity[day].dau, 9) for day, cost in costs.items()]


def user_days(table: Table) -> int:
    """Add up each day's active users: a user who was active on three days counts three times."""
    return sum(row.dau for row in table.activity.values())


def mean_dau(table: Table) -> float:
    return user_days(table) / len(table.days)


def mean_stickiness(table: Table) -> float | None:
    return mean([row.stickiness for row in table.activity.values()])


def mean(values: Values) -> float | None:
    """Mean of the values that are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def mean_messages(table: Table) -> float | None:
    users = user_days(table)
    return sum(row.turns for row in table.activity.values()) / users if users else None


def mean_cost_of_user(table: Table) -> float | None:
    cost, users = table.total.cost_usd, user_days(table)
    return None if cost is None or not users else cost / users
