"""A card: one figure of a period, how it went day by day, and its change against the period before."""

from dataclasses import dataclass

from analytics.formatting import Unit, Values, format_figure
from analytics.metrics.registry import METRICS, Direction
from analytics.metrics.sources import Table
from analytics.reports.charts import sparklines


@dataclass(frozen=True)
class Card:
    title: str
    metric: str
    unit: Unit
    value: float | None
    before: float | None
    by_day: Values
    note: str = ""
    # What it means that the figure is higher than before.
    rise: Direction = "neutral"
    # Whether it can be compared as a number: one that grows until the day is over cannot.
    is_final: bool = True

    @property
    def text(self) -> str:
        return format_figure(self.value, self.unit)

    @property
    def text_before(self) -> str:
        return format_figure(self.before, self.unit)

    @property
    def definition(self) -> str:
        return METRICS[self.metric].definition

    @property
    def change(self) -> float | None:
        """The change as a share of the figure before; of shares, the difference. None where nothing is comparable."""
        if self.value is None or self.before is None:
            return None
        if self.unit == "share":
            return self.value - self.before
        return self.value / self.before - 1 if self.before else None

    @property
    def change_text(self) -> str:
        """The change as text; empty where nothing is comparable."""
        if self.change is None:
            return ""
        if self.unit != "share" and self.change >= 10:
            return f"×{self.change + 1:,.0f}"  # as percent it would have many digits that say nothing
        percent = round(self.change * 100, 1)
        sign = "+" if percent > 0 else "−" if percent < 0 else "±"
        size = f"{abs(percent):,.0f}" if abs(percent) >= 10 else f"{abs(percent):.1f}".removesuffix(".0")
        return f"{sign}{size} {'points' if self.unit == 'share' else '%'}"

    @property
    def verdict(self) -> Direction:
        """Whether the change, as it is shown, is good."""
        if self.rise == "neutral" or not self.is_final or self.change_text[:1] in ("", "±"):
            return "neutral"
        return "good" if (self.change_text[0] != "−") == (self.rise == "good") else "bad"

    @property
    def sparkline(self) -> sparklines.Sparkline:
        return sparklines.sparkline(self.by_day)

    @property
    def text_sparkline(self) -> str:
        return sparklines.text_sparkline(self.by_day)


def cards(now: Table, before: Table, *, is_over: bool) -> list[Card]:
    """Return the cards of all metrics. `is_over` says that no day of the period goes on."""
    return [
        Card(
            title=figure.label,
            metric=name,
            unit=figure.unit,
            value=figure.overall(now),
            before=figure.overall(before),
            by_day=figure.by_day(now),
            note=figure.note(now),
            rise=figure.rise,
            is_final=is_over or not figure.grows_over_a_day,
        )
        for name, metric in METRICS.items()
        for figure in metric.figures
    ]
