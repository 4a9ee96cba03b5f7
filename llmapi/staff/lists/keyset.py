"""Lists that are read by key: a page goes on from a row, along one index, and nothing is counted.

All lists run from the newest row to the oldest. What the index does not serve is only compared with the rows it
leads to, and so many of them at a time: where few match, a page has few rows, and the next goes on from there.
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
LOOKED_AT = 20_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
CURSOR = re.compile(r"(-?[0-9]{1,17})?\.(.*)", re.DOTALL)


@dataclass(frozen=True)
class Key:
    """An index that lists the rows of one value of `column`, or of all, by time and then the primary key."""

    column: str = ""
    by_time: bool = True
    # Of a partial index: its values, and its condition, which SQLite wants to read in the query.
    only: frozenset[str] | None = None
    condition: Q = field(default_factory=Q)

    @property
    def first(self) -> str:
        return TIME if self.by_time else "pk"

    def leads(self, values: Mapping[str, Any]) -> bool:
        return self.column in values and (self.only is None or values[self.column] in self.only)

    def order(self, *, newer: bool = False) -> list[str]:
        return [name if newer else f"-{name}" for name in dict.fromkeys([self.first, "pk"])]


@dataclass(frozen=True)
class Cursor:
    """A place between two rows: that one and newer ones are on this side, older ones beyond.

    Without a `pk` all rows of the time are on this side.
    """

    time: datetime | None
    pk: Any

    @classmethod
    def at(cls, row: Model, key: Key) -> "Cursor":
        return cls(getattr(row, TIME) if key.by_time else None, row.pk)

    @classmethod
    def read(cls, text: str, key: Key, model: type[Model]) -> "Cursor":
        """Raises ValueError where `text` is no cursor of this list."""
        found = CURSOR.fullmatch(text)
        if not found or bool(found[1]) != key.by_time or not (found[1] or found[2]):
            raise ValueError(text)
        micros, pk = found.groups()
        try:
            time = EPOCH + int(micros) * MICROSECOND if micros else None
            return cls(time, own_value(model, "pk", pk) if pk else None)
        except (OverflowError, ValidationError) as exc:
            raise ValueError(text) from exc

    def __str__(self) -> str:
        micros = "" if self.time is None else (self.time - EPOCH) // MICROSECOND
        return f"{micros}.{'' if self.pk is None else self.pk}"

    def split(self, rows: QuerySet[Any], *, newer: bool) -> QuerySet[Any]:
        """The rows on one side."""
        side, other = ("gte", "lt") if newer else ("lt", "gte")
        if self.time is None:
            return rows.filter(**{f"pk__{side}": self.pk})
        if self.pk is None:
            return rows.filter(**{f"{TIME}__{side}": self.time})
        # Said like this, because an OR of both columns is read by SQLite over an index each, and then sorted.
        from_there = rows.filter(**{f"{TIME}__{'gte' if newer else 'lte'}": self.time})
        return from_there.exclude(**{TIME: self.time, f"pk__{other}": self.pk})


def own_value(model: type[Model], column: str, text: str) -> Any:
    """What a column would hold; raises ValidationError where it could not."""
    if "\0" in text:
        raise ValidationError("No column holds this character.")
    kind = kind_of(model, column)
    value = kind.to_python(text)
    kind.run_validators(value)
    return value


def kind_of(model: type[Model], column: str) -> Any:
    """The field that says what the column holds: of a foreign key, that of the other side."""
    found = model._meta.get_field(model._meta.pk.name if column == "pk" else column)
    return getattr(found, "target_field", found)


@dataclass(frozen=True)
class Page:
    """Rows, and the places from which its neighbours go on; None where nothing is there."""

    rows: list[Any]
    newer: Cursor | None = None
    older: Cursor | None = None
    # Where looking for the rows of this page was given up.
    edge: Cursor | None = None


@dataclass(frozen=True)
class Walk:
    """The rows that `key` leads to, and what else is asked of them."""

    rows: QuerySet[Any]
    key: Key
    others: Q

    @classmethod
    def along(
        cls,
        rows: QuerySet[Any],
        keys: Sequence[Key],
        values: Mapping[str, Any],
        *,
        since: datetime | None = None,
        before: datetime | None = None,
    ) -> "Walk":
        """By the first of `keys`, the most selective first, that leads to any of `values`; the last is of all rows."""
        key = next((key for key in keys if key.leads(values)), keys[-1])
        others = Q()
        for name, value in values.items():
            if name != key.column:
                others &= unindexed(rows.model, name, value)
        for lookup, instant in ((GreaterThanOrEqual, since), (LessThan, before)):
            if instant is not None and key.by_time:
                rows = rows.filter(lookup(F(TIME), instant))
            elif instant is not None:
                others &= Q(lookup(Coalesce(F(TIME), instant), instant))
        own = {key.column: values[key.column]} if key.column else {}
        return cls(rows.filter(key.condition, **own), key, others)

    @property
    def everything(self) -> QuerySet[Any]:
        """In the order of the list."""
        return self.rows.filter(self.others).order_by(*self.key.order())

    def page(self, size: int, *, cursor: Cursor | None = None, newer: bool = False) -> Page:
        """The rows next to `cursor`, towards the older or the newer ones; without one, the newest."""
        rows, edge = self.looked_at(cursor, newer=newer)
        found = list(rows[: size + 1])
        onward = edge
        if len(found) > size:
            further = found.pop()
            edge, onward = None, Cursor.at(further if newer else found[-1], self.key)
        return Page(found[::-1], onward, cursor, edge) if newer else Page(found, cursor, onward, edge)

    def looked_at(self, cursor: Cursor | None = None, *, newer: bool = False) -> tuple[QuerySet[Any], Cursor | None]:
        """What is asked for of the rows next to `cursor`, and the place where looking for it ends."""
        rows = cursor.split(self.rows, newer=newer) if cursor else self.rows
        edge = self.edge(rows, newer=newer) if self.others else None
        if edge:
            rows = edge.split(rows, newer=not newer)
        return rows.filter(self.others).order_by(*self.key.order(newer=newer)), edge

    def edge(self, rows: QuerySet[Any], *, newer: bool) -> Cursor | None:
        """Where so many rows are looked at; None where there are not so many."""
        order = self.key.order(newer=newer)[0]
        for value in rows.order_by(order).values_list(self.key.first, flat=True)[LOOKED_AT : LOOKED_AT + 1]:
            if not self.key.by_time:
                return Cursor(None, value)
            # All rows of that time are looked at, however many: so the next page begins elsewhere.
            return Cursor(value + MICROSECOND if newer else value, None)
        return None


def unindexed(model: type[Model], name: str, value: Any) -> Q:
    """A condition that no planner can take another index for than that of the list."""
    if "__" in name:
        return Q(**{name: value})
    kind = kind_of(model, name)
    # None of these columns is ever null, so the second value is never taken.
    return Q(Exact(Coalesce(F(name), Value(value, output_field=kind), output_field=kind), value))
