"""Time that users spend: from the first event of a day to the last, and in sessions."""

from datetime import date, datetime, timedelta
from typing import Any

from django.db.models import DurationField, ExpressionWrapper, Max, Min

from analytics.histograms import Histogram
from analytics.ledger import sums as aggregates
from analytics.models import SessionRollup, UserDay
from analytics.query import ALL, DAY, Filters, Window, today
from analytics.rollups import sessions

SAMPLES = 100
SPAN = ExpressionWrapper(Max("last_at") - Min("first_at"), DurationField())
Histograms = dict[date, Histogram]


def time_spent(window: Window, filters: Filters = ALL) -> dict[str, Any]:
    """Seconds from a user's first event of a day to the last: how many users' days, median and 90th percentile.

    Percentiles are by nearest rank, above 1,000 seconds within 0.5 %.
    """
    return summary(window, spent_by_day(window, filters))


def spent_by_day(window: Window, filters: Filters) -> Histograms:
    found: Histograms = {}
    for day, stored in window.activity(filters).values_list("day", "time_spent"):
        found.setdefault(day, Histogram()).merge_stored(stored)
    if window.tail:
        for row in aggregates.user_events(window.tail, filters, "day", "user_id"):
            count(found, row["day"], row["first_at"], row["last_at"])
    return found


def count(found: Histograms, day: date, first: datetime, last: datetime) -> None:
    seconds = round((last - first).total_seconds())
    found.setdefault(day, Histogram()).add(seconds)


def session_time(window: Window, filters: Filters = ALL) -> dict[str, Any]:
    """Sessions by the day of their first event, and their seconds: median and 90th percentile.

    A session is a user's events with no gap over 30 minutes, with any client; it is not cut at midnight, and
    belongs to the first client, model and version that its events name. One that may still go on counts as it stands.
    Percentiles are by nearest rank, above 1,000 seconds within 0.5 %.
    """
    return summary(window, sessions_by_day(window, filters))


def sessions_by_day(window: Window, filters: Filters) -> Histograms:
    found: Histograms = {}
    rows = SessionRollup.objects.filter(day__gte=window.first, day__lte=window.last, built_on__lte=window.closed_to)
    for day, stored in rows.filter(is_total=not filters, **filters.values).values_list("day", "seconds"):
        found.setdefault(day, Histogram()).merge_stored(stored)
    for session in unrolled_sessions(window):
        if window.first <= session.day <= window.last and session.is_of(filters):
            found.setdefault(session.day, Histogram()).add(session.seconds)
    return found


def unrolled_sessions(window: Window) -> list[sessions.Session]:
    """Those of days without rollups, and those that were open when the last closed day ended."""
    carried = sessions.open_after(window.closed_to)
    if window.last < window.closed_to and not any(session.day <= window.last for session in carried.values()):
        return []
    # Where nothing is closed, a session is looked for from a day before on.
    first = max(window.closed_to + DAY, window.first - DAY)
    last = max(first, window.last + DAY)
    ended, still_open = sessions.in_window(window.moved(first, last), carried)
    # A session may go on for days after the window, event by event.
    while last < today() and any(session.day <= window.last for session in still_open):
        last += DAY
        more, still_open = sessions.in_window(window.moved(last, last), {each.user_id: each for each in still_open})
        ended += more
    return [*ended, *still_open]


def summary(window: Window, found: Histograms) -> dict[str, Any]:
    overall = Histogram()
    for histogram in found.values():
        overall.merge(histogram)
    rows = {day: figures(found[day]) for day in window.days if day in found}
    by_day = [{"day": day.isoformat(), **row} for day, row in rows.items() if row["count"]]
    return {**figures(overall), "by_day": by_day}


def figures(histogram: Histogram) -> dict[str, int | None]:
    median, p90 = histogram.percentiles(50, 90)
    return {"count": histogram.total, "median_seconds": median, "p90_seconds": p90}


def time_spent_samples(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """Seconds from a user's first event of a day to the last, for each user and day; the newest 100."""
    rows: list[tuple[date, str, timedelta]] = []
    if window.tail:
        recent = aggregates.user_events(window.tail, filters, "day", "user_id")
        rows += [(row["day"], row["user_id"], row["last_at"] - row["first_at"]) for row in recent]
    if len(rows) < SAMPLES and window.first <= window.closed_to:
        days = UserDay.objects.filter(window.closed, day__gte=sampled_from(window, filters), events__gt=0)
        spans = days.filter(**filters.values).values_list("day", "user_id").annotate(spent=SPAN)
        rows += spans.order_by("-day", "-spent", "user_id")[:SAMPLES]
    rows.sort(key=lambda row: (-row[0].toordinal(), -row[2], row[1]))
    return [
        {"day": day.isoformat(), "user_id": user, "seconds": round(spent.total_seconds(), 3)}
        for day, user, spent in rows[:SAMPLES]
    ]


def sampled_from(window: Window, filters: Filters) -> date:
    """The first closed day that samples can come from: enough users were seen since."""
    seen = 0
    for day, users in window.activity(filters).order_by("-day").values_list("day", "seen_users"):
        seen += users
        if seen >= SAMPLES:
            return day
    return window.first
