"""Activation: whether new users go on until they have completed some turns."""

from collections import Counter
from datetime import date
from typing import Any

from django.db.models import Count, Q, Sum

from analytics.ledger import sums as aggregates
from analytics.metrics.active_users import first_days, matching
from analytics.metrics.usage import share
from analytics.models import Milestone, UserDay
from analytics.query import ALL, DAY, Filters, Window, today

ACTIVATED_BY = 5


def activation(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """Of the users who were new on each day, those who have completed 5 turns since, and their share; null without.

    With filters, the new users are those whom they match on their first day; all turns of these count.
    """
    new, activated = of_rollups(window, filters)
    since = window.moved(window.closed_to + DAY, today())
    if since.first <= since.last:
        add_unrolled(window, since, filters, new, activated)
    return [
        {
            "day": day.isoformat(),
            "new": new[day],
            "activated": activated[day],
            "share": share(activated[day], new[day]),
        }
        for day in window.days
    ]


def of_rollups(window: Window, filters: Filters) -> tuple[Counter[date], Counter[date]]:
    """New users by day, and those of them who had completed enough on a closed day."""
    last = min(window.last, window.closed_to)
    cohorts = Milestone.objects.filter(first_day__gte=window.first, first_day__lte=last).order_by()
    reached_by_then = Q(fifth_day__lte=window.closed_to)
    if not filters:
        fifth = Count("fifth_day", filter=reached_by_then)
        counted = list(cohorts.values_list("first_day").annotate(new=Count("*"), fifth=fifth))
        return Counter({day: new for day, new, _ in counted}), Counter({day: fifth for day, _, fifth in counted})
    first = UserDay.objects.filter(window.closed, turns__gt=0, age_days=0, **filters.values).order_by()
    reached = first.filter(user_id__in=cohorts.filter(reached_by_then).values("user_id"))
    activated = reached.values_list("day").annotate(users=Count("user_id", distinct=True))
    return Counter(dict(window.activity(filters).values_list("day", "new_users"))), Counter(dict(activated))


def add_unrolled(window: Window, since: Window, filters: Filters, new: Counter[date], activated: Counter[date]) -> None:
    """Users who are new, or have completed enough, on a day that has no rollups."""
    events = aggregates.event_rows(since, ALL).filter(event_name=aggregates.TURN).order_by()
    recent = dict(events.values_list("user_id").annotate(turns=Count("id")))
    first = first_days(since)
    before = turns_before(window.closed_to, events.values("user_id"))
    matched = matching(window, since, filters, events.values("user_id")) if filters else None
    for user, turns in recent.items():
        day = first[user]
        if not window.first <= day <= window.last or (matched is not None and (day, user) not in matched):
            continue
        new[day] += day > window.closed_to
        activated[day] += before.get(user, 0) < ACTIVATED_BY <= before.get(user, 0) + turns


def turns_before(closed_to: date, users: Any) -> dict[str, int]:
    """Of users on closed days; of those who had completed enough by then, just that."""
    known = Milestone.objects.filter(user_id__in=users)
    reached = Q(fifth_day__lte=closed_to)
    enough = dict.fromkeys(known.filter(reached).values_list("user_id", flat=True), ACTIVATED_BY)
    not_yet = known.filter(Q(fifth_day=None) | ~reached).values("user_id")
    others = UserDay.objects.filter(day__lte=closed_to, turns__gt=0, user_id__in=not_yet)
    return enough | dict(others.order_by().values_list("user_id").annotate(total=Sum("turns")))
