"""What the dashboard, a terminal and a mailed report show of a period: cards, and panels with plots and tables."""

from dataclasses import dataclass

from analytics.formatting import format_days
from analytics.metrics.sources import Table
from analytics.query import Query, today
from analytics.reports.cards import Card, cards
from analytics.reports.panels import PANELS, Panel
from analytics.rollups.coverage import Coverage


@dataclass(frozen=True)
class Summary:
    query: Query
    cards: list[Card]
    panels: list[Panel]
    models: list[str]
    coverage: Coverage

    @property
    def days(self) -> str:
        return format_days(self.query.period.first, self.query.period.last)

    @property
    def days_before(self) -> str:
        before = self.query.period.before
        return format_days(before.first, before.last)

    @property
    def is_of_today(self) -> bool:
        return self.query.period.last >= today()


def summarize(query: Query, coverage: Coverage) -> Summary:
    """Read each part of the period and of the one before once, whatever shows it."""
    now, before = Table(query), Table(query.before)
    return Summary(
        query,
        cards(now, before, is_over=query.period.last < today()),
        [panel(now) for panel in PANELS],
        models=sorted({model for _, model in now.usage_by_model}),
        coverage=coverage,
    )
