"""Metrics of users: a user is the `user_id` of an event, whatever the client; events are of the UTC day they came."""

from collections import Counter
from datetime import date, timedelta
from typing import Any

from django.db.models import Min, Q, QuerySet

from analytics.ledger import sums as aggregates
from analytics.metrics import sources as reading
from analytics.metrics import trailing
from analytics.metrics.usage import COST, share
from analytics.models import AnalyticsEvent, Milestone, UserDay
from analytics.query import ALL, DAY, Filters, Window, today
from analytics.rollups.activity import RETURNS


def dau(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """Daily active users: distinct users with at least one completed turn, for each day."""
    return by_day(window, *trailing.users(window, filters, 1))


def wau(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """Weekly active users: distinct users with a completed turn in the 7 days that end with each day."""
    return by_day(window, *trailing.users(window, filters, 7))


def mau(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """Monthly active users: distinct users with a completed turn in the 30 days that end with each day."""
    return by_day(window, *trailing.users(window, filters, 30))


def active_users(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """DAU, WAU and MAU of each day, and the turns that were completed on it."""
    counts = dict(zip(("dau", "wau", "mau"), trailing.users(window, filters, 1, 7, 30), strict=True))
    counts["turns"] = completed_turns(window, filters)
    return [
        {"day": day.isoformat(), **{name: found.get(day, 0) for name, found in counts.items()}} for day in window.days
    ]


def by_day(window: Window, users: dict[date, int]) -> list[dict[str, Any]]:
    return [{"day": day.isoformat(), "users": users.get(day, 0)} for day in window.days]


def stickiness(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """DAU as a share of MAU, for each day; null while MAU is 0."""
    daily, monthly = trailing.users(window, filters, 1, 30)
    shares = {day: share(daily.get(day, 0), monthly.get(day, 0)) for day in window.days}
    return [{"day": day.isoformat(), "stickiness": value} for day, value in shares.items()]


def new_and_returning(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """Active users of each day: new ones, first active ever on that day, with any client; and all others."""
    found = ages(window, filters)
    # Read after those who are new, so that none of them is missing here.
    (active,) = trailing.users(window, filters, 1)
    return [
        {"day": day.isoformat(), "new": (new := found[day, 0]), "returning": active.get(day, 0) - new}
        for day in window.days
    ]


def retention(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """Of the users who were new on each day, the share active again exactly 1, 7 and 30 days later.

    Null where nobody was new, or where that day is not over yet. With filters, the new users are those whom they
    match on their first day; any completed turn brings them back.
    """
    last = max(window.last, min(window.last + timedelta(days=max(RETURNS)), today() - DAY))
    found = ages(window.moved(window.first, last), filters)
    return [
        {
            "day": day.isoformat(),
            "new": found[day, 0],
            **{f"d{age}": returned(found, day, age) for age in RETURNS},
        }
        for day in window.days
    ]


def returned(found: Counter[tuple[date, int]], day: date, age: int) -> float | None:
    later = day + timedelta(days=age)
    return share(found[later, age], found[day, 0]) if later < today() else None


def ages(window: Window, filters: Filters) -> Counter[tuple[date, int]]:
    """Users by day and by how many days before it they were new, where that is 0, 1, 7 or 30; matched when new."""
    found: Counter[tuple[date, int]] = Counter()
    columns = {0: "new_users"} | {age: f"returned_{age}" for age in RETURNS}
    for row in window.activity(filters).values("day", *columns.values()):
        found.update({(row["day"], age): row[column] for age, column in columns.items()})
    if window.tail:
        found += unrolled_ages(window, window.tail, filters)
    return found


def unrolled_ages(window: Window, tail: Window, filters: Filters) -> Counter[tuple[date, int]]:
    active = aggregates.active_users(tail, ALL)
    # Read after those, so that nobody of them is missing.
    first = first_days(window)
    found = [(day, user, first[user]) for day, users in active.items() for user in users]
    if filters:
        since = window.moved(tail.first - timedelta(days=max(RETURNS)), window.last)
        matched = matching(since, unrolled(window), filters, unrolled_turns(window).values("user_id"))
        found = [(day, user, first_day) for day, user, first_day in found if (first_day, user) in matched]
    return Counter((day, (day - first_day).days) for day, _, first_day in found)


def unrolled(window: Window) -> Window:
    """All days that have no rollups, up to the window's end: a user's first day may be any of them."""
    return window.moved(window.closed_to + DAY, window.last)


def first_days(window: Window) -> dict[str, date]:
    """The day on which each user of days without rollups was first active."""
    events = unrolled_turns(window)
    first = dict(events.values_list("user_id").annotate(day=Min(aggregates.DAY_OF)))
    known = Milestone.objects.filter(user_id__in=events.values("user_id"))
    return first | dict(known.values_list("user_id", "first_day"))


def unrolled_turns(window: Window) -> QuerySet[AnalyticsEvent]:
    return aggregates.event_rows(unrolled(window), ALL).filter(event_name=aggregates.TURN).order_by()


def matching(window: Window, since: Window, filters: Filters, users: QuerySet[Any, Any]) -> set[tuple[date, str]]:
    """Of these users, whom the filters match on which day.

    In the window's closed days on the first of each user, and on any of the days `since` then.
    """
    of_closed = Q(turns__gt=0, age_days=0, user_id__in=users)
    closed = UserDay.objects.filter(window.closed, of_closed, **filters.values).values_list("day", "user_id")
    active = aggregates.active_users(since, filters)
    return {*closed, *((day, user) for day, those in active.items() for user in those)}


def messages_per_active_user(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """Completed turns per active user, for each day; null on days without active users."""
    (active,) = trailing.users(window, filters, 1)
    completed = completed_turns(window, filters)
    values = {day: share(completed.get(day, 0), active.get(day, 0)) for day in window.days}
    return [{"day": day.isoformat(), "messages": value} for day, value in values.items()]


def completed_turns(window: Window, filters: Filters) -> dict[date, int]:
    """By the day on which they were completed, as active users are counted."""
    closed = dict(window.activity(filters).values_list("day", "turns"))
    if not window.tail:
        return closed
    return closed | {row["day"]: row["turns"] for row in aggregates.user_events(window.tail, filters, "day")}


def cost_per_active_user(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """Cost in USD of a day's turns per active user; null where a price is unknown, or nobody was active."""
    (active,) = trailing.users(window, filters, 1)
    spent = reading.usage(window, filters, "day", names=COST)
    costs = {day: reading.dollars(spent.get((day,), Counter())) for day in window.days}
    return [
        {"day": day.isoformat(), "cost_usd": None if cost is None else share(cost, active.get(day, 0), 9)}
        for day, cost in costs.items()
    ]
