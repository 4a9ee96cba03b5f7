"""Metrics of active users. A user is the `user_id` of an event, whatever the client; days are UTC."""

from typing import Any

from analytics.metrics.sources import Table, by_day, share


def dau(table: Table) -> list[dict[str, Any]]:
    """Daily active users: distinct users with at least one completed turn, for each day."""
    return by_day(table.activity, lambda row: {"users": row.dau})


def active_by_sign_in(table: Table) -> list[dict[str, Any]]:
    """Daily active users who had signed in, by a session, on the day or before, and all others."""
    return by_day(table.activity, lambda row: {"signed_in": row.signed_in, "others": row.others})


def wau(table: Table) -> list[dict[str, Any]]:
    """Weekly active users: distinct users with a completed turn in the 7 days that end with each day."""
    return by_day(table.activity, lambda row: {"users": row.wau})


def mau(table: Table) -> list[dict[str, Any]]:
    """Monthly active users: distinct users with a completed turn in the 30 days that end with each day."""
    return by_day(table.activity, lambda row: {"users": row.mau})


def stickiness(table: Table) -> list[dict[str, Any]]:
    """DAU as a share of MAU, for each day; null while MAU is 0."""
    return by_day(table.activity, lambda row: {"stickiness": row.stickiness})


def messages_per_active_user(table: Table) -> list[dict[str, Any]]:
    """Completed turns per active user, for each day; null on days without active users."""
    return by_day(table.activity, lambda row: {"messages": row.messages})


def cost_per_active_user(table: Table) -> list[dict[str, Any]]:
    """Cost in USD of a day's turns per active user; null where a price is unknown, or nobody was active."""
    costs = dict(zip(table.days, cost_of_user_by_day(table), strict=True))
    return by_day(costs, lambda cost: {"cost_usd": cost})


def cost_of_user_by_day(table: Table) -> list[float | None]:
    costs = {day: row.cost_usd for day, row in table.usage.items()}
    return [None if cost is None else share(cost, table.activity[day].dau, 9) for day, cost in costs.items()]


def mean_messages(table: Table) -> float | None:
    user_days = sum(table.each_day("activity", "dau"))
    return sum(table.each_day("activity", "turns")) / user_days if user_days else None


def mean_cost_of_user(table: Table) -> float | None:
    cost, user_days = table.total.cost_usd, sum(table.each_day("activity", "dau"))
    return None if cost is None or not user_days else cost / user_days
