"""The read side: one function a metric, whose docstring is its definition. Days are UTC."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.db.models import Avg, Count, F, Max, Min, Q, QuerySet, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

from analytics.models import AnalyticsEvent, UsageEvent

SAMPLES = 100
NANOS_PER_DOLLAR = 1_000_000_000


@dataclass(frozen=True)
class Window:
    """Whole UTC days from `first` to `last`, both included."""

    first: date
    last: date

    @classmethod
    def last_days(cls, days: int) -> "Window":
        today = timezone.now().astimezone(UTC).date()
        return cls(today - timedelta(days=days - 1), today)

    @property
    def days(self) -> Iterator[date]:
        return (self.first + timedelta(days=offset) for offset in range((self.last - self.first).days + 1))

    @property
    def condition(self) -> Q:
        start = datetime.combine(self.first, datetime.min.time(), UTC)
        end = datetime.combine(self.last, datetime.min.time(), UTC) + timedelta(days=1)
        return Q(created_at__gte=start, created_at__lt=end)


def usage_in(window: Window) -> QuerySet[UsageEvent]:
    return UsageEvent.objects.filter(window.condition)


def dau(window: Window) -> list[dict[str, Any]]:
    """Daily active users: distinct users with at least one completed turn, for each day."""
    completed = AnalyticsEvent.objects.filter(window.condition, event_name="chat.completed")
    by_day = completed.annotate(day=TruncDate("created_at", tzinfo=UTC)).values("day")
    users = {row["day"]: row["users"] for row in by_day.annotate(users=Count("user_id", distinct=True))}
    return [{"day": day.isoformat(), "users": users.get(day, 0)} for day in window.days]


def turns(window: Window) -> dict[str, int]:
    """Turns by how they ended; pending ones have not."""
    counts = {row["status"]: row["n"] for row in usage_in(window).values("status").annotate(n=Count("id"))}
    return {status.value: counts.get(status.value, 0) for status in UsageEvent.Status}


def success_rate(window: Window) -> float | None:
    """Completed turns as a share of those that ended (completed, failed or abandoned); null when none did."""
    counts = turns(window)
    ended = counts["completed"] + counts["failed"] + counts["abandoned"]
    return round(counts["completed"] / ended, 4) if ended else None


def latency_ms(window: Window) -> dict[str, float | None]:
    """Latency of completed turns in milliseconds: mean, and percentiles by nearest rank; null without turns."""
    completed = usage_in(window).filter(status=UsageEvent.Status.COMPLETED)
    figures = completed.aggregate(mean=Avg("latency_ms"), count=Count("id"))
    if not figures["count"]:
        return {"mean": None, "p50": None, "p95": None, "p99": None}
    ordered = completed.order_by("latency_ms").values_list("latency_ms", flat=True)
    percentiles = {f"p{p}": ordered[math.ceil(figures["count"] * p / 100) - 1] for p in (50, 95, 99)}
    return {"mean": round(figures["mean"], 1), **percentiles}


def token_burn(window: Window) -> list[dict[str, Any]]:
    """Tokens and cost of all settled turns, for each day and model; the cost is null where a price is unknown."""
    settled = usage_in(window).exclude(status=UsageEvent.Status.PENDING).filter(total_tokens__gt=0)
    by_day = settled.annotate(day=TruncDate("created_at", tzinfo=UTC)).values("day", "model")
    rows = by_day.annotate(
        turns=Count("id"),
        prompt=Sum("prompt_tokens"),
        completion=Sum("completion_tokens"),
        total=Sum("total_tokens"),
        cost=Sum("cost_nanos"),
        priced=Count("cost_nanos"),
    ).order_by("day", "model")
    return [
        {
            "day": row["day"].isoformat(),
            "model": row["model"],
            "turns": row["turns"],
            "prompt_tokens": row["prompt"],
            "completion_tokens": row["completion"],
            "total_tokens": row["total"],
            "cost_usd": row["cost"] / NANOS_PER_DOLLAR if row["priced"] == row["turns"] else None,
        }
        for row in rows
    ]


def time_spent(window: Window) -> list[dict[str, Any]]:
    """Seconds from a user's first event of a day to the last, for each user and day; the newest 100."""
    events = AnalyticsEvent.objects.filter(window.condition)
    by_user = events.annotate(day=TruncDate("created_at", tzinfo=UTC)).values("day", "user_id")
    rows = by_user.annotate(spent=Max("created_at") - Min("created_at")).order_by("-day", F("spent").desc(), "user_id")
    return [
        {"day": row["day"].isoformat(), "user_id": row["user_id"], "seconds": round(row["spent"].total_seconds(), 3)}
        for row in rows[:SAMPLES]
    ]


def report(days: int = 30) -> dict[str, Any]:
    """All of the above over the last `days` days, today included."""
    window = Window.last_days(days)
    burn = token_burn(window)
    costs = [row["cost_usd"] for row in burn]
    latency = latency_ms(window)
    return {
        f"dau_last_{days}_days": dau(window),
        "success_rate": success_rate(window),
        "avg_latency_ms": latency["mean"],
        f"token_burn_last_{days}_days": sum(row["total_tokens"] for row in burn),
        "time_spent_samples": time_spent(window),
        "latency_ms": latency,
        "turns": turns(window),
        "token_burn": burn,
        "cost_usd": None if None in costs else round(sum(costs), 9),
        "window": {"from": window.first.isoformat(), "to": window.last.isoformat(), "days": days},
        "computed_at": timezone.now().isoformat(timespec="seconds"),
    }
