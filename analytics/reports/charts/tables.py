"""Tables of figures as plain data, for templates and terminals to draw."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from analytics.formatting import Unit, format_exact

Value = str | int | float | None
# More than a month, and than fits a screen. The CSV has all rows.
MOST_ROWS = 31
# Of a mail or a terminal, which show the newest days.
FEW_ROWS = 14


@dataclass(frozen=True)
class Column:
    name: str
    unit: Unit | None = None

    @property
    def is_number(self) -> bool:
        return self.unit is not None

    def format(self, value: Value) -> str:
        return value if isinstance(value, str) else format_exact(value, self.unit or "count")


@dataclass(frozen=True)
class DataTable:
    """The first rows of a table, and how many there are in all."""

    columns: list[Column]
    rows: list[Sequence[Value]] = field(default_factory=list)
    total: int = 0

    @classmethod
    def of(cls, columns: list[Column], rows: Sequence[Sequence[Value]], most: int = MOST_ROWS) -> "DataTable":
        return cls(columns, [*rows[:most]], len(rows))

    def short(self) -> "DataTable":
        return replace(self, rows=self.rows[:FEW_ROWS])

    @property
    def cells(self) -> list[list[tuple[Column, str]]]:
        return [
            [(column, column.format(value)) for column, value in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]

    @property
    def is_wide(self) -> bool:
        """Whether it is too wide to stand beside a plot."""
        return sum(len(column.name) for column in self.columns) > 30

    @property
    def note(self) -> str:
        """What is left out; empty where nothing is."""
        return f"The first {len(self.rows):,} of {self.total:,} rows." if len(self.rows) < self.total else ""
