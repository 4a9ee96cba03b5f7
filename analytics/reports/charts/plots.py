"""Plots as plain data. The templates in `analytics/plots/` draw them, without a script or an inline style."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import ClassVar

from analytics.formatting import Unit, Values, finite, format_day, format_days, format_figure, tick_labels, ticks

# Units of the picture. It is small, because text scales with it: 12 units can still be read on a phone.
WIDTH, HEIGHT = 400, 200
TOP, RIGHT, BASE = 10, 22, 176
# The width of a digit in the widest of the usual fonts, and a little more.
CHARACTER = 7.4
MOST_SERIES = 6
MOST_DAY_LABELS = 6
# For mail, which has no style sheet. dashboard.css has the same colours for light pages, and others for dark ones.
COLOURS = {
    "1": "#264aad",
    "2": "#cc4a0c",
    "3": "#35a08f",
    "4": "#7a2378",
    "5": "#2f94f0",
    "6": "#b98a1e",
    "other": "#6f6f6f",
}


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Series:
    name: str
    colour: str
    figure: str
    line: str = ""
    bars: str = ""
    dots: list[tuple[float, float]] = field(default_factory=list)

    @property
    def fallback(self) -> str:
        return COLOURS[self.colour]

    @property
    def short_name(self) -> str:
        """The name, cut in the middle: names of fine-tuned models differ at their ends."""
        return self.name if len(self.name) <= 28 else f"{self.name[:17]}…{self.name[-10:]}"


@dataclass(frozen=True)
class Column:
    """The area of a day, or of several that share a bar. It shows their figures when pointed at."""

    x: float
    width: float
    text: str


@dataclass(frozen=True)
class Plot:
    title: str
    note: str = ""
    days: int = 0
    left: float = 0
    y_ticks: list[Tick] = field(default_factory=list)
    x_ticks: list[Tick] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)

    template: ClassVar = "analytics/plots/plot.html"
    width: ClassVar = WIDTH
    height: ClassVar = HEIGHT
    top: ClassVar = TOP
    right: ClassVar = WIDTH - RIGHT
    drawn_height: ClassVar = BASE - TOP
    middle: ClassVar = (WIDTH / 2, (TOP + BASE) / 2)

    @property
    def stroke(self) -> float:
        return 2 if self.days <= 100 else 1.25

    @property
    def label(self) -> str:
        """What a screen reader says in place of the picture."""
        if not self.series:
            return f"{self.title}: nothing in this period."
        figures = ", ".join(f"{series.name} {series.figure}" for series in self.series)
        return f"{self.title}, {self.note}: {figures}."


@dataclass(frozen=True)
class Frame:
    """The axes of a plot: which place a day and a value have."""

    days: Sequence[date]
    unit: Unit
    top: float

    @cached_property
    def ticks(self) -> dict[float, str]:
        values = ticks(self.top, self.unit)
        return dict(zip(values, tick_labels(values, self.unit), strict=True))

    @cached_property
    def left(self) -> float:
        return round(max(36, 10 + CHARACTER * max(map(len, self.ticks.values()))), 2)

    @property
    def band(self) -> float:
        return (WIDTH - RIGHT - self.left) / len(self.days)

    def x(self, index: float) -> float:
        """The middle of a day."""
        return round(self.left + self.band * (index + 0.5), 2)

    def y(self, value: float) -> float:
        return round(BASE - (BASE - TOP) * value / max(self.ticks), 2)

    def plot(self, title: str, note: str, series: list[Series], columns: list[Column]) -> Plot:
        return Plot(
            title=title,
            note=note,
            days=len(self.days),
            left=self.left,
            y_ticks=[Tick(self.y(value), label) for value, label in self.ticks.items()],
            x_ticks=[Tick(self.x(index), label) for index, label in day_labels(self.days)],
            series=series,
            columns=columns,
        )


def lines(
    title: str,
    days: Sequence[date],
    series: Mapping[str, Values],
    unit: Unit,
    overall: Mapping[str, float | None] | None = None,
) -> Plot:
    """Draw a line for each series. A value that is not known leaves a gap.

    The legend shows the `overall` figures of the period where they are given, else those of the last day.
    """
    known = {name: [finite(value) for value in values] for name, values in series.items()}
    figures = [value for values in known.values() for value in values if value is not None]
    if not figures:
        return Plot(title)
    frame = Frame(days, unit, max(figures))
    totals = overall or {name: values[-1] for name, values in known.items()}
    drawn = []
    for number, (name, values) in enumerate(known.items()):
        numbered = zip(range(len(days)), values, strict=True)
        path, dots = traced([None if value is None else (frame.x(i), frame.y(value)) for i, value in numbered])
        colour = str(number % MOST_SERIES + 1)
        drawn.append(Series(name, colour, format_figure(totals[name], unit), line=path, dots=dots))
    note = "of the period" if overall else f"on {format_day(days[-1])}"
    pointed = spans(len(days), bar_size(len(days)))
    last = [(name, [values[span.stop - 1] for span in pointed]) for name, values in known.items()]
    return frame.plot(title, note, drawn, columns(frame, pointed, last, of_last=True))


def stacked_bars(
    title: str, days: Sequence[date], series: Mapping[str, Sequence[float]], unit: Unit, *, is_additive: bool = True
) -> Plot:
    """Draw a bar for each day, stacked of all series; for many days, a bar for each week or 30 days.

    The legend shows the totals of the period. Figures that do not add up over days, such as users, are not additive:
    a bar of a week is then its mean day, and the legend shows the last day, or the mean day of the period.
    """
    layers = with_few_series(series)
    if not any(any(values) for _, values in layers):
        return Plot(title)
    size = bar_size(len(days))
    of_bars = spans(len(days), size)
    heights = [in_bars(values, of_bars, is_additive=is_additive) for _, values in layers]
    tops = [sum(stack) for stack in zip(*heights, strict=True)]
    frame = Frame(days, unit, max(tops))
    if is_additive:
        totals = [sum(values) for _, values in layers]
    else:
        totals = [values[-1] if size == 1 else sum(values) / len(days) for _, values in layers]
    floors = [0.0] * len(of_bars)
    drawn = []
    for number, ((name, _), total, bar_heights) in enumerate(zip(layers, totals, heights, strict=True), start=1):
        colour = str(number) if number <= MOST_SERIES else "other"
        path = bars(frame, of_bars, floors, bar_heights)
        drawn.append(Series(name, colour, format_figure(total, unit), bars=path))
        floors = [floor + height for floor, height in zip(floors, bar_heights, strict=True)]
    named: list[tuple[str, Values]] = [(name, found) for (name, _), found in zip(layers, heights, strict=True)]
    if len(layers) > 1:
        named.append(("total", tops))
    note = f"{format_figure(sum(totals), unit)} in total" if is_additive else f"on {format_day(days[-1])}"
    if size > 1:
        note = f"{note if is_additive else 'mean day'}, by {'week' if size == 7 else '30 days'}"
    return frame.plot(title, note, drawn, columns(frame, of_bars, named))


def in_bars(values: Sequence[float], of_bars: Sequence[range], *, is_additive: bool) -> list[float]:
    sums = [sum(values[i] for i in span) for span in of_bars]
    return sums if is_additive else [total / len(span) for total, span in zip(sums, of_bars, strict=True)]


def with_few_series(series: Mapping[str, Sequence[float]]) -> list[tuple[str, Sequence[float]]]:
    """Return the MOST_SERIES largest series in their order, and then the rest added up as one."""
    largest = sorted(series, key=lambda name: sum(series[name]), reverse=True)[:MOST_SERIES]
    layers = [(name, values) for name, values in series.items() if name in largest]
    if rest := [values for name, values in series.items() if name not in largest]:
        layers.append((f"other ({len(rest)})", [sum(values) for values in zip(*rest, strict=True)]))
    return layers


def bar_size(days: int) -> int:
    """Return how many days share a bar: bars of a pixel or two cannot be told apart."""
    return 1 if days <= 100 else 7 if days <= 750 else 30


def spans(days: int, size: int = 1) -> list[range]:
    """Return the days that share a bar, by index. The oldest bar takes the days that are left over."""
    return [range(max(stop - size, 0), stop) for stop in range(days, 0, -size)][::-1]


def bars(frame: Frame, of_bars: Sequence[range], floors: Sequence[float], heights: Sequence[float]) -> str:
    """Return one path for a whole series: bars thinner than a pixel leave no seams in one path."""
    share = 0.8 if len(of_bars) <= 62 else 1
    path = []
    for span, floor, height in zip(of_bars, floors, heights, strict=True):
        width = round(min(frame.band * len(span) * share, 48), 2)
        left = frame.x((span.start + span.stop - 1) / 2) - width / 2
        if height:
            path.append(f"M{left:.2f} {frame.y(floor):.2f}h{width}V{frame.y(floor + height):.2f}h-{width}z")
    return "".join(path)


def traced(points: Sequence[tuple[float, float] | None]) -> tuple[str, list[tuple[float, float]]]:
    """Return the path through the points, broken at gaps, and dots for the newest point and for single points."""
    path, dots = [], []
    for before, point, after in zip([None, *points], points, [*points[1:], None], strict=False):
        if point is None:
            continue
        if before or after:
            path.append(f"{'L' if before else 'M'}{point[0]} {point[1]}")
        else:
            dots.append(point)
    newest = next((point for point in reversed(points) if point), None)
    return "".join(path), dots if newest is None or newest in dots else [*dots, newest]


def columns(
    frame: Frame, of: Sequence[range], named: Sequence[tuple[str, Values]], *, of_last: bool = False
) -> list[Column]:
    """Return the columns of a plot. With `of_last`, a column of several days shows the figures of the last."""
    found = []
    for i, span in enumerate(of):
        figures = [f"{name}: {format_figure(values[i], frame.unit)}" for name, values in named]
        last = frame.days[span.stop - 1]
        days = format_day(last) if of_last else format_days(frame.days[span.start], last)
        width = round(frame.band * len(span), 2)
        found.append(Column(frame.x(span.start - 0.5), width, "\n".join([days, *figures])))
    return found


def day_labels(days: Sequence[date]) -> list[tuple[int, str]]:
    """Return the days that are named on the axis, by index: so few that their names have room."""
    for step in (1, 2, 3, 7, 14):
        if len(days) <= step * MOST_DAY_LABELS:
            # Counted from the newest day, which is always named.
            shown_days = range((len(days) - 1) % step, len(days), step)
            return [(index, f"{days[index].day} {days[index]:%b}") for index in shown_days]
    for months in (1, 2, 3, 6, 12):
        starts = [i for i, day in enumerate(days) if day.day == 1 and (day.month - 1) % months == 0]
        if len(starts) <= MOST_DAY_LABELS:
            break
    kept = starts[:: math.ceil(len(starts) / MOST_DAY_LABELS)]
    return [(index, f"{days[index]:%Y}" if days[index].month == 1 else f"{days[index]:%b}") for index in kept]
