"""Distinct users with a completed turn in the days that end with each day: such counts do not add up over days."""

from collections import Counter
from datetime import date, timedelta

from django.db.models import Max

from analytics.ledger import sums as aggregates
from analytics.models import UserDay
from analytics.query import DAY, Filters, Window, days_between

COLUMNS = {1: "dau", 7: "wau", 30: "mau"}
Counts = dict[date, int]


def users(window: Window, filters: Filters, *lengths: int) -> list[Counts]:
    """For each length, and each day of the window: users active on it or on as many days before as make up the length.

    All lengths together take no more reading than the longest.
    """
    closed: list[Counts] = [{} for _ in lengths]
    if window.first <= window.closed_to:
        columns = [COLUMNS[length] for length in lengths]
        rows = list(window.activity(filters).values("day", *columns))
        closed = [{row["day"]: row[name] for row in rows} for name in columns]
    if not window.tail:
        return closed
    recent = unrolled(window, filters, *lengths)
    return [before | since for before, since in zip(closed, recent, strict=True)]


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
