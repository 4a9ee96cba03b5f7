"""Sparklines: how a figure went day by day, as a small picture or as a line of text."""

import math
from dataclasses import dataclass
from typing import ClassVar

from analytics.formatting import Values, finite
from analytics.metrics.sources import mean
from analytics.reports.charts.plots import spans, traced

MOST_POINTS = 60


@dataclass(frozen=True)
class Sparkline:
    line: str
    area: str
    dots: list[tuple[float, float]]

    template: ClassVar = "analytics/plots/sparkline.svg"
    width: ClassVar = 120
    height: ClassVar = 28


def sparkline(values: Values) -> Sparkline:
    """Draw the values above a floor of 0, so that a small change looks small."""
    known = thinned(values)
    top = max((value for value in known if value is not None), default=0) or 1
    step = (Sparkline.width - 6) / max(len(known) - 1, 1)
    start = 3 if len(known) > 1 else Sparkline.width / 2
    floor = Sparkline.height - 3
    points = [
        None if value is None else (round(start + step * i, 2), round(floor - (floor - 3) * value / top, 2))
        for i, value in enumerate(known)
    ]
    path, dots = traced(points)
    drawn = [point for point in points if point]
    # No area over a gap: it would show figures that are not known.
    whole = len(drawn) == len(points) > 1
    area = f"{path}L{drawn[-1][0]} {floor}L{drawn[0][0]} {floor}z" if whole else ""
    return Sparkline(path, area, dots)


def text_sparkline(values: Values, most: int = MOST_POINTS) -> str:
    """Write the values as a line of text: ▁ is 0, and a space is a value that is not known."""
    known = thinned(values, most)
    top = max((value for value in known if value is not None), default=0) or 1
    return "".join(" " if value is None else "▁▂▃▅▇"[math.ceil(value / top * 4)] for value in known)


def thinned(values: Values, most: int = MOST_POINTS) -> list[float | None]:
    """Return at most `most` points: where days share a point, the mean of their known values."""
    size = math.ceil(len(values) / most)
    shared = [[values[i] for i in span] for span in spans(len(values), size or 1)]
    return [mean([finite(value) for value in those]) for those in shared]
