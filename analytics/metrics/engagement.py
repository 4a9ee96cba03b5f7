"""Time that users spend: from the first event of a day to the last, and in sessions."""

from datetime import date
from typing import Any

from django.db.models import DurationField, ExpressionWrapper, Max, Min

from analytics.metrics.sources import Durations, Table, in_all
from analytics.models import UserDay

SAMPLES = 100
SPAN = ExpressionWrapper(Max("last_at") - Min("first_at"), DurationField())


def time_spent(table: Table) -> dict[str, Any]:
    """Seconds from a user's first event of a day to the last: how many users' days, median and 90th percentile.

    Percentiles are by nearest rank, above 1,000 seconds within 0.5 %.
    """
    return in_all(table.overall("time_spent"), table.time_spent, figures)


def session_time(table: Table) -> dict[str, Any]:
    """Sessions by the day of their first event, and their seconds: median and 90th percentile.

    A session is a user's events with no gap over 30 minutes, with any client; it is not cut at midnight, and
    belongs to the first client, model and version that its events name. One that may still go on counts as it stands.
    Percentiles are by nearest rank, above 1,000 seconds within 0.5 %.
    """
    return in_all(table.overall("sessions"), table.sessions, figures)


def figures(seconds: Durations) -> dict[str, int | None]:
    return {"count": seconds.total, "median_seconds": seconds.percentile(50), "p90_seconds": seconds.percentile(90)}


def sessions(table: Table) -> int:
    return sum(sessions_by_day(table))


def sessions_by_day(table: Table) -> list[int]:
    return [table.sessions[day].total if day in table.sessions else 0 for day in table.days]


def time_spent_samples(table: Table) -> list[dict[str, Any]]:
    """Seconds from a user's first event of a day to the last, for each user and day; the newest 100."""
    days = UserDay.objects.filter(table.query.rows, day__gte=sampled_from(table), events__gt=0)
    spans = days.values_list("day", "user_id").annotate(spent=SPAN).order_by("-day", "-spent", "user_id")
    return [
        {"day": day.isoformat(), "user_id": user, "seconds": round(spent.total_seconds(), 3)}
        for day, user, spent in spans[:SAMPLES]
    ]


def sampled_from(table: Table) -> date:
    """Return the first day that samples can come from: enough users were seen since."""
    seen = 0
    for day, row in reversed(table.activity.items()):
        seen += row.seen_users
        if seen >= SAMPLES:
            return day
    return table.query.period.first
