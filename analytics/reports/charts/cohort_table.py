"""A retention table as plain data. The template `analytics/plots/cohorts.html` draws it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import ClassVar

from analytics.formatting import Values, finite, format_figure


@dataclass(frozen=True)
class Cohort:
    """Users who were new in the same day, week, month or year, and the share of them that came back by each column."""

    label: str
    size: int
    shares: Values

    @property
    def users(self) -> str:
        return f"{self.size:,}"


@dataclass(frozen=True)
class Cell:
    level: int | None
    share: str
    text: str


@dataclass(frozen=True)
class Cohorts:
    title: str
    columns: list[str]
    rows: list[tuple[Cohort, list[Cell]]]

    template: ClassVar = "analytics/plots/cohorts.html"


def cohorts(title: str, columns: Sequence[str], rows: Sequence[Cohort]) -> Cohorts:
    """Return the table: each row is a cohort, each column a number of days after which users may be back."""
    cells = [[cell(row, *one) for one in zip_longest(columns, row.shares)] for row in rows]
    return Cohorts(title, [*columns], [*zip(rows, cells, strict=True)])


def cell(row: Cohort, column: str, share: float | None) -> Cell:
    share = finite(share)
    if share is None:
        return Cell(None, "", "")
    # Level 0 is for nobody alone: one user shows a colour. Rounded first, because 0.7 * 10 is more than 7.
    level = math.ceil(round(share * 10, 6))
    text = f"{row.label}, {column}: {format_figure(share, 'share')} of {row.users}"
    return Cell(level, f"{share * 100:.0f} %", text)
