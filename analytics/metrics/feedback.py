"""What users made of the replies, as only their clients can tell."""

from collections import Counter
from typing import Any

from analytics.ledger import sums as aggregates
from analytics.metrics import sources as reading
from analytics.metrics.usage import share
from analytics.query import ALL, Filters, Window


def feedback(window: Window, filters: Filters = ALL) -> dict[str, Any]:
    """Replies that users liked, disliked or had made again, each day, and thumbs up as a share of all thumbs.

    A day is that on which it was said, the model that of the reply; the share is null without thumbs.
    """
    by_day = feedback_by_day(window, filters)
    return {**overall(by_day), "by_day": by_day}


def feedback_by_day(window: Window, filters: Filters) -> list[dict[str, Any]]:
    rows = reading.usage(window, filters, "day", names=aggregates.FEEDBACK)
    return [{"day": day.isoformat(), **said(rows.get((day,), Counter()))} for day in window.days]


def overall(by_day: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all these days together."""
    return said(Counter({name: sum(row[name] for row in by_day) for name in aggregates.FEEDBACK}))


def said(figures: Counter[str]) -> dict[str, Any]:
    thumbs = figures["thumbs_up"] + figures["thumbs_down"]
    return {
        **{name: figures[name] for name in aggregates.FEEDBACK},
        "thumbs_up_share": share(figures["thumbs_up"], thumbs),
    }
