"""What users made of the replies, as only their clients can tell."""

from typing import Any

from analytics.metrics.sources import Table, Usage


def feedback(table: Table) -> dict[str, Any]:
    """Replies that users liked, disliked or had made again, each day, and thumbs up as a share of all thumbs.

    A day is that on which it was said, the model that of the reply; the share is null without thumbs.
    """
    by_day = [{"day": day.isoformat(), **figures(row)} for day, row in table.usage.items()]
    return {**figures(table.total), "by_day": by_day}


def figures(usage: Usage) -> dict[str, Any]:
    return {
        "thumbs_up": usage.thumbs_up,
        "thumbs_down": usage.thumbs_down,
        "regenerated": usage.regenerated,
        "thumbs_up_share": usage.thumbs_up_share,
    }
