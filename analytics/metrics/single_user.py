"""What one user has bought."""

from collections import Counter
from typing import Any

from django.db.models import Count, Sum

from analytics.ledger import sums as aggregates
from analytics.metrics import sources as reading
from analytics.models import AnalyticsEvent, Milestone, UsageEvent, UserDay
from analytics.query import Window

FIGURES = ["completed", *aggregates.BOUGHT]


def bought(user_id: str, window: Window, filters: dict[str, Any] | None = None) -> dict[reading.Key, Counter[str]]:
    """Completed turns, tokens and cost, by client token and model."""
    by = ("client_token_id", "model")
    sums = {f"sum_{name}": Sum("turns" if name == "completed" else name) for name in FIGURES}
    days = UserDay.objects.filter(window.closed, user_id=user_id, **(filters or {})).order_by()
    found = list(days.values(*by).annotate(**sums))
    if window.tail:
        own = {"user_id": user_id, **(filters or {})}
        rows = UsageEvent.objects.filter(window.tail.condition, **own).order_by()
        found += rows.values(*by).annotate(**{f"sum_{name}": aggregates.FIGURES[name] for name in aggregates.BOUGHT})
        # By the day of its end, as the rollups have it.
        ends = AnalyticsEvent.objects.filter(window.tail.condition, event_name=aggregates.TURN, **own).order_by()
        found += ends.values(*by).annotate(sum_completed=Count("id"))
    read = [{name.removeprefix("sum_"): value for name, value in row.items()} for row in found]
    # A day with events alone has a row too.
    return {key: figures for key, figures in reading.merged(read, by, FIGURES).items() if any(figures.values())}


def first_day(user_id: str) -> Any:
    return Milestone.objects.filter(pk=user_id).values_list("first_day", flat=True).first()
