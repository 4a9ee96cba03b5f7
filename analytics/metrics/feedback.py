"""What users made of the replies, as only their clients can tell."""

from typing import Any

from analytics.metrics.sources import Table, in_all


def feedback(table: Table) -> dict[str, Any]:
    """Replies that users liked, disliked or had made again, each day, and thumbs up as a share of all thumbs.

    A day is that on which it was said, the model that of the reply; the share is null without thumbs.
    """
    names = ("thumbs_up", "thumbs_down", "regenerated", "thumbs_up_share")
    return in_all(table.total, table.usage, lambda usage: {name: getattr(usage, name) for name in names})
