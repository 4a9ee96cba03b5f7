"""A headline figure, with its course and its change against the period before."""

from dataclasses import dataclass
from typing import Literal

from analytics import formatting as units
from analytics.formatting import Unit, Values
from analytics.metrics.registry import METRICS
from analytics.reports.charts import sparklines

Direction = Literal["good", "bad", "neutral"]


@dataclass(frozen=True)
class Card:
    title: str
    metric: str
    unit: Unit
    value: float | None
    before: float | None
    course: Values
    note: str = ""
    # What it means that the figure is higher than before.
    rise: Direction = "neutral"
    # Whether it can be compared as a number: one that grows until the day is over cannot.
    is_final: bool = True

    @property
    def text(self) -> str:
        return units.shown(self.value, self.unit)

    @property
    def text_before(self) -> str:
        return units.shown(self.before, self.unit)

    @property
    def definition(self) -> str:
        return METRICS[self.metric].definition

    @property
    def change(self) -> float | None:
        """As a share of the figure before; of shares, the difference. None where there is nothing to compare."""
        if self.value is None or self.before is None:
            return None
        if self.unit == "share":
            return self.value - self.before
        return self.value / self.before - 1 if self.before else None

    @property
    def change_text(self) -> str:
        """Empty where there is nothing to compare."""
        if self.change is None:
            return ""
        if self.unit != "share" and self.change >= 10:
            return f"×{self.change + 1:,.0f}"  # of next to nothing before, percent are many digits
        percent = round(self.change * 100, 1)
        sign = "+" if percent > 0 else "−" if percent < 0 else "±"
        size = f"{abs(percent):,.0f}" if abs(percent) >= 10 else f"{abs(percent):.1f}".removesuffix(".0")
        return f"{sign}{size} {'points' if self.unit == 'share' else '%'}"

    @property
    def verdict(self) -> Direction:
        """Of the change, as it is shown."""
        if self.rise == "neutral" or not self.is_final or self.change_text[:1] in ("", "±"):
            return "neutral"
        return "good" if (self.change_text[0] != "−") == (self.rise == "good") else "bad"

    @property
    def sparkline(self) -> sparklines.Sparkline:
        return sparklines.sparkline(self.course)

    @property
    def text_sparkline(self) -> str:
        return sparklines.text_sparkline(self.course)
