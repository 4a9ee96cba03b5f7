"""Lists of any length: a page starts at a row and is read along one index. Rows are never counted.

Every list runs from the newest row to the oldest. Conditions that the index does not serve are compared row by row,
at most SCAN_LIMIT rows a page. Where few rows match, a page may be short; the next page continues where it ended.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import F, Model, Q, QuerySet, Value
from django.db.models.functions import Coalesce
from django.db.models.lookups import Exact, GreaterThanOrEqual, LessThan

TIME = "created_at"
# Rows that are compared for one page.
SCAN_LIMIT = 20_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
CURSOR = re.compile(r"(-?[0-9]{1,17})?\.(.*)", re.DOTALL)


@dataclass(frozen=True)
class Key:
    """An index over the rows of one value of `column`, or over all rows, in the order of time and primary key."""

    column: str = ""
    by_time: bool = True
    # Only for a partial index: the values that it holds, and its condition. SQLite uses a partial index only if the
    # query repeats the condition.
    only: frozenset[str] | None = None
    condition: Q = field(default_factory=Q)

    @property
    def order_column(self) -> str:
        return TIME if self.by_time else "pk"

    def serves(self, values: Mapping[str, Any]) -> bool:
        return self.column in values and (self.only is None or values[self.column] in self.only)

    def order(self, *, newer: bool = False) -> list[str]:
        return [name if newer else f"-{name}" for name in dict.fromkeys([self.order_column, "pk"])]


@dataclass(frozen=True)
class Cursor:
    """A place in a list, just after (older than) the row with this time and this key.

    Without `pk`, the place is after all rows of that time.
    """

    time: datetime | None
    pk: Any

    @classmethod
    def parse(cls, text: str, key: Key, model: type[Model]) -> "Cursor":
        """Read a cursor from a query string. Raises ValueError if `text` is no cursor of this list."""
        found = CURSOR.fullmatch(text)
        if not found or bool(found[1]) != key.by_time or not (found[1] or found[2]):
            raise ValueError(text)
        micros, pk = found.groups()
        try:
            time = EPOCH + int(micros) * MICROSECOND if micros else None
            return cls(time, parse_value(model, "pk", pk) if pk else None)
        except (OverflowError, ValidationError) as exc:
            raise ValueError(text) from exc

    def __str__(self) -> str:
        micros = "" if self.time is None else (self.time - EPOCH) // MICROSECOND
        return f"{micros}.{'' if self.pk is None else self.pk}"

    def rows_on_side(self, rows: QuerySet[Any], *, newer: bool) -> QuerySet[Any]:
        """Keep the rows on one side of this place."""
        side, other = ("gte", "lt") if newer else ("lt", "gte")
        if self.time is None:
            return rows.filter(**{f"pk__{side}": self.pk})
        if self.pk is None:
            return rows.filter(**{f"{TIME}__{side}": self.time})
        # Not an OR of both columns: SQLite would read one index for each of them and sort the result.
        from_there = rows.filter(**{f"{TIME}__{'gte' if newer else 'lte'}": self.time})
        return from_there.exclude(**{TIME: self.time, f"pk__{other}": self.pk})


def parse_value(model: type[Model], column: str, text: str) -> Any:
    """Read a value of `column` from text. Raises ValidationError if the column cannot hold it."""
    if "\0" in text:
        raise ValidationError("No column can hold a null character.")
    column_field = stored_field(model, column)
    value = column_field.to_python(text)
    column_field.run_validators(value)
    return value


def stored_field(model: type[Model], column: str) -> Any:
    """Return the field that says what a column holds. For a foreign key it is the field that the key points to."""
    found = model._meta.get_field(model._meta.pk.name if column == "pk" else column)
    return getattr(found, "target_field", found)


@dataclass(frozen=True)
class Page:
    """Rows of one page, and the places where its neighbours start. A place is None if no rows are there."""

    rows: list[Any]
    newer: Cursor | None = None
    older: Cursor | None = None
    # Where the search for matching rows stopped because of SCAN_LIMIT.
    scan_end: Cursor | None = None


@dataclass(frozen=True)
class KeysetQuery:
    """Rows that one index finds, and the other conditions that they must meet."""

    rows: QuerySet[Any]
    key: Key
    conditions: Q

    @classmethod
    def for_filters(
        cls,
        rows: QuerySet[Any],
        keys: Sequence[Key],
        values: Mapping[str, Any],
        *,
        since: datetime | None = None,
        before: datetime | None = None,
    ) -> "KeysetQuery":
        """Choose the first of `keys` that serves one of `values`.

        `keys` begin with the most selective index. The last one is over all rows.
        """
        key = next((key for key in keys if key.serves(values)), keys[-1])
        conditions = Q()
        for name, value in values.items():
            if name != key.column:
                conditions &= without_index(rows.model, name, value)
        for lookup, instant in ((GreaterThanOrEqual, since), (LessThan, before)):
            if instant is not None and key.by_time:
                rows = rows.filter(lookup(F(TIME), instant))
            elif instant is not None:
                conditions &= Q(lookup(Coalesce(F(TIME), instant), instant))
        key_value = {key.column: values[key.column]} if key.column else {}
        return cls(rows.filter(key.condition, **key_value), key, conditions)

    @property
    def all_rows(self) -> QuerySet[Any]:
        """All matching rows, in the order of the list."""
        return self.rows.filter(self.conditions).order_by(*self.key.order())

    def page(self, size: int, *, cursor: Cursor | None = None, newer: bool = False) -> Page:
        """Read the rows next to `cursor`, older ones or newer ones. Without a cursor, read the newest rows."""
        rows, scan_end = self.scan(cursor, newer=newer)
        found = list(rows[: size + 1])
        onward = scan_end
        if len(found) > size:
            further = found.pop()
            row = further if newer else found[-1]
            scan_end, onward = None, Cursor(getattr(row, TIME) if self.key.by_time else None, row.pk)
        return Page(found[::-1], onward, cursor, scan_end) if newer else Page(found, cursor, onward, scan_end)

    def scan(self, cursor: Cursor | None = None, *, newer: bool = False) -> tuple[QuerySet[Any], Cursor | None]:
        """Return the matching rows among the next SCAN_LIMIT rows, and the place where the scan ends."""
        rows = cursor.rows_on_side(self.rows, newer=newer) if cursor else self.rows
        scan_end = self.find_scan_end(rows, newer=newer) if self.conditions else None
        if scan_end:
            rows = scan_end.rows_on_side(rows, newer=not newer)
        return rows.filter(self.conditions).order_by(*self.key.order(newer=newer)), scan_end

    def find_scan_end(self, rows: QuerySet[Any], *, newer: bool) -> Cursor | None:
        """Return the place after SCAN_LIMIT rows. None if there are fewer rows."""
        order = self.key.order(newer=newer)[0]
        for value in rows.order_by(order).values_list(self.key.order_column, flat=True)[SCAN_LIMIT : SCAN_LIMIT + 1]:
            if not self.key.by_time:
                return Cursor(None, value)
            # The scan includes all rows of that time, however many. So the next page always starts at another time.
            return Cursor(value + MICROSECOND if newer else value, None)
        return None


def without_index(model: type[Model], name: str, value: Any) -> Q:
    """Build a condition that no planner can serve by an index, so that it reads along the index of the list."""
    if "__" in name:
        return Q(**{name: value})
    output = stored_field(model, name)
    # None of these columns is ever null, so COALESCE always returns the column.
    return Q(Exact(Coalesce(F(name), Value(value, output_field=output), output_field=output), value))
