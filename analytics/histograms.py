"""Counts of values rounded to three significant digits: small enough to keep, exact enough for percentiles.

Percentiles are by nearest rank. Values under 1,000 are kept as they are, so their percentiles are exact;
above, they are within 0.5 %.
"""

from bisect import bisect_left
from collections.abc import Iterable
from functools import cache
from itertools import accumulate
from math import ceil
from operator import add
from typing import Self

from django.db.models import BigIntegerField, Case, Value, When
from django.db.models.expressions import Combinable
from django.db.models.functions import Cast

# The highest value of a PositiveIntegerField has ten digits.
STEPS = [10**power for power in range(1, 8)]


def rounded(value: int) -> int:
    """`value`, to three significant digits; halves go up."""
    step = next((step for step in reversed(STEPS) if value >= 100 * step), 1)
    return (value + step // 2) // step * step


def rounded_column(name: str) -> Case:
    """The same, done by the database."""
    cases = [When(**{f"{name}__gte": 100 * step}, then=nearest(name, step)) for step in reversed(STEPS)]
    return Case(*cases, default=wide(name), output_field=BigIntegerField())


def nearest(name: str, step: int) -> Combinable:
    # Both databases divide whole numbers without a rest.
    return (wide(name) + Value(step // 2)) / Value(step) * Value(step)


def wide(name: str) -> Cast:
    """The highest value, rounded up, is more than its column holds."""
    return Cast(name, BigIntegerField())


def place_of(value: int) -> int:
    """Where a rounded value is among all of them: 0 to 999, and then the 900 of each power of ten."""
    power = max(0, len(str(value)) - 3)
    step: int = 10**power
    return value // step + 900 * power


@cache
def place_of_text(value: str) -> int:
    """Of a rounded value as JSON has it: a year of days names the same few thousand again and again."""
    return place_of(int(value))


def value_at(place: int) -> int:
    power = max(0, (place - 100) // 900)
    step: int = 10**power
    return (place - 900 * power) * step


# Of few values, the count of each, by the value; of many, the place of the first, and then all counts from there on.
Stored = dict[str, int] | list[int]


class Histogram:
    """How many values there are at each place; a year of days is merged in a blink."""

    def __init__(self, values: Iterable[int] = ()) -> None:
        self.counts: list[int] = []
        for value in values:
            self.add(value)

    def add(self, value: int, count: int = 1) -> None:
        place = place_of(rounded(value))
        self._reach(place + 1)
        self.counts[place] += count

    def merge(self, other: Self) -> None:
        self._merge(0, other.counts)

    def merge_stored(self, stored: Stored) -> None:
        if isinstance(stored, list):
            self._merge(stored[0], stored[1:])
        else:
            places = list(map(place_of_text, stored))
            self._reach(max(places, default=-1) + 1)
            for place, count in zip(places, stored.values(), strict=True):
                self.counts[place] += count

    def stored(self) -> Stored:
        places = [place for place, count in enumerate(self.counts) if count]
        if places and len(self.counts) - places[0] < 4 * len(places):
            return [places[0], *self.counts[places[0] :]]
        return {str(value_at(place)): self.counts[place] for place in places}

    def total(self) -> int:
        return sum(self.counts)

    def percentiles(self, *ranks: int) -> list[int | None]:
        """The value below or at which `rank` percent of all values lie, for each rank; None without values."""
        seen = list(accumulate(self.counts))
        if not seen or not seen[-1]:
            return [None for _ in ranks]
        return [value_at(bisect_left(seen, ceil(seen[-1] * rank / 100))) for rank in ranks]

    def _merge(self, first: int, counts: list[int]) -> None:
        if not self.counts:
            self.counts = [0] * first + counts
            return
        end = first + len(counts)
        self._reach(end)
        self.counts[first:end] = map(add, self.counts[first:end], counts)

    def _reach(self, size: int) -> None:
        if size > len(self.counts):
            self.counts += [0] * (size - len(self.counts))
