"""What one user has bought."""

from datetime import date
from typing import Any

from analytics.metrics.sources import Key, Usage, bought_by
from analytics.models import Milestone, UserDay
from analytics.query import Query


def bought(user_id: str, query: Query) -> dict[Key, Usage]:
    """Return completed turns, tokens and cost, by client token and model."""
    days = UserDay.objects.filter(query.rows, user_id=user_id)
    # A day with other events alone has a row too.
    return {key: row for key, row in bought_by(days, "client_token_id", "model") if row != Usage()}


def first_day(user_id: str) -> date | None:
    """Return the day on which the user was first active."""
    return Milestone.objects.filter(pk=user_id).values_list("first_day", flat=True).first()


def bought_by_day_and_model(query: Query, user_id: str) -> list[dict[str, Any]]:
    """Return turns that were sold, tokens and cost in USD of one user, as `usage_by_day_and_model` has them of all.

    What is kept of each user and day tells no more.
    """
    days = UserDay.objects.filter(query.rows, user_id=user_id, sold__gt=0)
    unknown = dict.fromkeys(("failed", "prompt_tokens", "cached_tokens", "completion_tokens"))
    return [
        {
            "day": day.isoformat(),
            "model": model,
            "turns": row.sold,
            **unknown,
            "total_tokens": row.total_tokens,
            "cost_usd": row.cost_usd,
        }
        for (day, model), row in sorted(bought_by(days, "day", "model"))
    ]
