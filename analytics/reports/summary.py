"""What a dashboard, a terminal and a mailed report show of a window: headline figures, and plots with tables."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from analytics.formatting import spoken_days
from analytics.metrics import active_users as users
from analytics.metrics import cohorts as activation
from analytics.metrics import engagement as spent
from analytics.metrics import feedback as quality
from analytics.metrics import usage
from analytics.query import ALL, DAY, Filters, Window, today
from analytics.reports.cards import Card
from analytics.reports.headlines import Figures, cards
from analytics.reports.panels import Panel, panels

Metric = Callable[[Window, Filters], Any]

# Rows that name their day: read once for the window and the period before.
DAILY: dict[str, Metric] = {
    "active_users": users.active_users,
    "turns_by_day": usage.turns_by_day,
    "token_burn": usage.token_burn,
    "retention": users.retention,
    "activation": activation.activation,
    "feedback": quality.feedback_by_day,
}
# Percentiles of days do not add up, so each period is read by itself.
OVERALL: dict[str, Metric] = {
    "latency_ms": usage.latency_ms,
    "first_token_ms": usage.first_token_ms,
    "time_spent": spent.time_spent,
    "replays": usage.replays,
}
# Not compared.
ALONE: dict[str, Metric] = {"failures": usage.failures, "refusals": usage.refusals}


@dataclass(frozen=True)
class Summary:
    window: Window
    before: Window
    filters: Filters
    cards: list[Card]
    panels: list[Panel]
    models: list[str]
    computed_at: datetime

    @property
    def days(self) -> str:
        return spoken_days(self.window.first, self.window.last)

    @property
    def days_before(self) -> str:
        return spoken_days(self.before.first, self.before.last)

    @property
    def is_of_today(self) -> bool:
        return self.window.last >= today()

    @property
    def as_of(self) -> str:
        return self.window.as_of


def summarize(window: Window, filters: Filters = ALL) -> Summary:
    """Every metric is read once, whatever shows it."""
    length = window.last - window.first + DAY
    before = window.moved(window.first - length, window.first - DAY)
    figures, figures_before = read(window, before, filters)
    return Summary(
        window,
        before,
        filters,
        cards(figures, figures_before, is_over=window.last < today()),
        panels(window, figures),
        models=sorted({row["model"] for row in figures["token_burn"]}),
        computed_at=window.computed_at,
    )


def read(window: Window, before: Window, filters: Filters) -> tuple[Figures, Figures]:
    first = window.first.isoformat()
    both = window.moved(before.first, window.last)
    rows = {name: metric(both, filters) for name, metric in DAILY.items()}
    now, then = (
        {name: [row for row in found if (row["day"] >= first) is is_now] for name, found in rows.items()}
        for is_now in (True, False)
    )
    now |= {name: metric(window, filters) for name, metric in (OVERALL | ALONE).items()}
    then |= {name: metric(before, filters) for name, metric in OVERALL.items()}
    return now, then
