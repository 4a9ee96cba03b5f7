"""What one user has bought."""

from datetime import date
from typing import Any

from django.db.models import Sum

from analytics.metrics.sources import Key, Usage
from analytics.metrics.usage import BOUGHT
from analytics.models import Milestone, UserDay
from analytics.query import Query


def bought(user_id: str, query: Query) -> dict[Key, Usage]:
    """Return completed turns, tokens and cost, by client token and model."""
    names = ["completed", *BOUGHT]
    sums: dict[str, Any] = {f"sum_{name}": Sum("turns" if name == "completed" else name) for name in names}
    days = UserDay.objects.filter(query.rows, user_id=user_id).order_by()
    rows = days.values_list("client_token_id", "model").annotate(**sums)
    # A day with other events alone has a row too.
    return {
        (client, model): Usage(**dict(zip(names, figures, strict=True)))
        for client, model, *figures in rows
        if any(figures)
    }


def first_day(user_id: str) -> date | None:
    """Return the day on which the user was first active."""
    return Milestone.objects.filter(pk=user_id).values_list("first_day", flat=True).first()
