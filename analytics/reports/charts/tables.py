"""Tables of figures, as plain data: what stands beside a plot."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from analytics import formatting as units
from analytics.formatting import Unit

Value = str | int | float | None
# A month, and more than fits a screen; the CSV has them all.
MOST_ROWS = 31


@dataclass(frozen=True)
class Column:
    name: str
    unit: Unit | None = None

    @property
    def is_number(self) -> bool:
        return self.unit is not None

    def shown(self, value: Value) -> str:
        """Counts are whole, because a table is where one looks for the exact figure."""
        if self.unit in ("count", "tokens") and isinstance(value, int):
            return f"{value:,}"
        return value if isinstance(value, str) else units.shown(value, self.unit or "count")


@dataclass(frozen=True)
class Table:
    """The first `most` rows of all."""

    columns: list[Column]
    rows: list[Sequence[Value]] = field(default_factory=list)
    total: int = 0

    @classmethod
    def of(cls, columns: list[Column], rows: Sequence[Sequence[Value]], most: int = MOST_ROWS) -> "Table":
        return cls(columns, [*rows[:most]], len(rows))

    @property
    def cells(self) -> list[list[tuple[Column, str]]]:
        return [
            [(column, column.shown(value)) for column, value in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]

    @property
    def is_wide(self) -> bool:
        """Too wide to stand beside a plot."""
        return sum(len(column.name) for column in self.columns) > 30

    @property
    def note(self) -> str:
        """Empty where nothing is left out."""
        return f"The first {len(self.rows):,} of {self.total:,} rows." if len(self.rows) < self.total else ""
