"""What a dashboard, a terminal and a mailed report show of a window: headline figures, and plots with tables."""

from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from analytics.cards import Card, Figures, cards
from analytics.metrics import METRICS
from analytics.panels import Panel, panels
from analytics.windows import ALL, DAY, Filters, Window

# Rows that name their day: read once for the window and the period before.
DAILY = ["dau", "wau", "mau", "turns_by_day", "token_burn"]
# Percentiles of days do not add up, so each period is read by itself.
OVERALL = ["latency_ms", "time_spent", "replays"]
# Not compared.
ALONE = ["failures", "retention"]


@dataclass(frozen=True)
class Summary:
    window: Window
    before: Window
    filters: Filters
    cards: list[Card]
    panels: list[Panel]
    computed_at: datetime


def summarize(window: Window, filters: Filters = ALL) -> Summary:
    """Every metric is read once, whatever shows it."""
    length = window.last - window.first + DAY
    before = window.moved(window.first - length, window.first - DAY)
    figures, figures_before = read(window, before, filters)
    return Summary(
        window, before, filters, cards(figures, figures_before), panels(window, figures), computed_at=timezone.now()
    )


def read(window: Window, before: Window, filters: Filters) -> tuple[Figures, Figures]:
    first = window.first.isoformat()
    both = window.moved(before.first, window.last)
    rows = {name: METRICS[name].run(both, filters) for name in DAILY}
    now, then = (
        {name: [row for row in found if (row["day"] >= first) is is_now] for name, found in rows.items()}
        for is_now in (True, False)
    )
    now |= {name: METRICS[name].run(window, filters) for name in (*OVERALL, *ALONE)}
    then |= {name: METRICS[name].run(before, filters) for name in OVERALL}
    return now, then
