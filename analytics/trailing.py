"""Distinct users with a completed turn in the days that end with each day: such counts do not add up over days."""

from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import accumulate
from typing import Any

from django.db import connection
from django.db.models import F, Max
from django.db.models.expressions import Window as Over
from django.db.models.functions import Lead

from analytics import aggregates
from analytics.models import UserDay
from analytics.windows import DAY, Filters, Window, days_between

COLUMNS = {1: "dau", 7: "wau", 30: "mau"}
Counts = dict[date, int]


def users(window: Window, filters: Filters, *lengths: int) -> list[Counts]:
    """For each length, and each day of the window: users active on it or on as many days before as make up the length.

    All lengths together take no more reading than the longest.
    """
    closed: list[Counts] = [{} for _ in lengths]
    if window.first <= window.closed_to:
        closed = of_rollups(window, filters, *lengths) if filters.is_slice else filtered(window, filters, *lengths)
    if not window.tail:
        return closed
    recent = unrolled(window, filters, *lengths)
    return [before | since for before, since in zip(closed, recent, strict=True)]


def of_rollups(window: Window, filters: Filters, *lengths: int) -> list[Counts]:
    columns = [COLUMNS[length] for length in lengths]
    rows = list(window.activity(filters).values("day", *columns))
    return [{row["day"]: row[name] for row in rows} for name in columns]


def filtered(window: Window, filters: Filters, *lengths: int) -> list[Counts]:
    last = min(window.last, window.closed_to)
    start = window.first - timedelta(days=max(lengths) - 1)
    rows = stays(start, last, filters)
    days = list(days_between(start, last))
    return [
        {day: count for day, count in zip(days, present(rows, days, length), strict=True) if day >= window.first}
        for length in lengths
    ]


def present(rows: list[tuple[date, date | None, int]], days: list[date], length: int) -> Iterator[int]:
    """A user comes with a day of activity, and goes `length` later, or when the next such day comes before that."""
    change: Counter[date] = Counter()
    for day, following, count in rows:
        change[day] += count
        change[min(day + timedelta(days=length), following or date.max)] -= count
    return accumulate(change[day] for day in days)


def stays(first: date, last: date, filters: Filters) -> list[tuple[date, date | None, int]]:
    """Days of activity, the day of the same user's next, and how many users have this pair.

    A user's several rows of one day follow each other on it, and so stay for no time but for the last.
    """
    active = UserDay.objects.filter(day__gte=first, day__lte=last, turns__gt=0, **filters.values)
    following = Over(Lead("day"), partition_by=F("user_id"), order_by=F("day").asc())
    rows = active.annotate(following=following).order_by().values_list("day", "following")
    sql, values = rows.query.sql_with_params()
    with connection.cursor() as cursor:
        # Only the ORM's own query is put in, with its values beside it.
        cursor.execute(f"SELECT day, following, COUNT(*) FROM ({sql}) AS stays GROUP BY day, following", values)  # noqa: S608
        return [(as_date(day), as_date(then) if then else None, count) for day, then, count in cursor.fetchall()]


def as_date(value: Any) -> date:
    """SQLite has no dates: a cursor gives them as text."""
    return date.fromisoformat(value) if isinstance(value, str) else value


def unrolled(window: Window, filters: Filters, *lengths: int) -> list[Counts]:
    """The same of days without rollups, going on from those that have them."""
    longest = max(lengths)
    first = max(window.closed_to + DAY, window.first - timedelta(days=longest - 1))
    active = aggregates.active_users(window.moved(first, window.last), filters)
    before = UserDay.objects.filter(day__lt=first, turns__gt=0, **filters.values)
    before = before.filter(day__gt=first - timedelta(days=longest)) if longest > 1 else before.none()
    seen: dict[str, date] = dict(before.values_list("user_id").annotate(last=Max("day")).order_by())
    found: list[Counts] = [{} for _ in lengths]
    for day in days_between(first, window.last):
        seen.update(dict.fromkeys(active.get(day, ()), day))
        if day >= window.first:
            ages = Counter((day - last).days for last in seen.values())
            for counts, length in zip(found, lengths, strict=True):
                counts[day] = sum(users for age, users in ages.items() if age < length)
    return found
