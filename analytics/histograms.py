"""Histograms: how many values there are, each rounded to three significant digits.

They are small enough to store for each day, and exact enough for percentiles. Percentiles are by nearest rank: exact
below 1,000, where values are not rounded, and within 0.5 % above.
"""

import struct
import zlib
from base64 import b64decode, b64encode
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate, compress
from math import ceil
from typing import Any, Self

from django.db.models import BigIntegerField, Func

# What a value is rounded to a multiple of. The highest value of a PositiveIntegerField has ten digits.
STEPS = [10**power for power in range(1, 8)]
# Bits of the count at one place: no place of any histogram counts to 2 ** 32.
BITS = 32
# Up to so many different values are stored as plain counts, which a person can read in the table.
FEW = 50
# The percentiles that are asked for. They are stored beside the counts.
RANKS = (50, 90, 95, 99)


def rounded(value: int) -> int:
    """Round to three significant digits; halves go up."""
    step = next((step for step in reversed(STEPS) if value >= 100 * step), 1)
    return (value + step // 2) // step * step


# `rounded` in SQL. Both databases divide whole numbers without a remainder. The highest value, rounded up, does not fit
# the column's own type. Written out, because the ORM takes milliseconds to compose so many branches.
BRANCHES = " ".join(
    f"WHEN %(expressions)s >= {100 * step} THEN (CAST(%(expressions)s AS bigint) + {step // 2}) / {step} * {step}"
    for step in reversed(STEPS)
)


def rounded_column(name: str) -> Func:
    """Return an expression that rounds as `rounded` does, in the database."""
    return Func(name, template=f"CASE {BRANCHES} ELSE %(expressions)s END", output_field=BigIntegerField())


def place_of(value: int) -> int:
    """Return the place of a rounded value: 0 to 999, and then 900 places for each power of ten."""
    power = max(0, len(str(value)) - 3)
    step: int = 10**power
    return value // step + 900 * power


def value_at(place: int) -> int:
    power = max(0, (place - 100) // 900)
    step: int = 10**power
    return (place - 900 * power) * step


class Histogram:
    """Counts by place, kept as one large number whose digits of 32 bits are the counts.

    Two histograms are merged by adding two numbers: about a microsecond for the places of a year of durations.
    """

    def __init__(self, values: Iterable[int] = ()) -> None:
        self.total = 0
        self._digits = 0
        self._packed: list[dict[str, Any]] = []
        # Percentiles that were read with the counts; empty once these have changed.
        self.kept: dict[int, int] = {}
        for value in values:
            self.add(value)

    @property
    def digits(self) -> int:
        """The counts. What was read of a table is decompressed only for those who ask for more than totals."""
        while self._packed:
            stored = self._packed.pop()
            digits = int.from_bytes(zlib.decompress(b64decode(stored["digits"])), "little")
            self._digits += digits << BITS * stored["first"]
        return self._digits

    def add(self, value: int, count: int = 1) -> None:
        self._change(count << BITS * place_of(rounded(value)), count)

    def merge(self, other: Self) -> None:
        self._change(other.digits, other.total)

    def merge_stored(self, stored: dict[str, Any]) -> None:
        if "digits" in stored:
            is_alone = not self.total
            self._packed.append(stored)
            self._change(0, stored["total"])
            if is_alone:
                self.kept = dict(zip(RANKS, stored["percentiles"], strict=True))
        else:
            for value, count in stored.items():
                self.add(int(value), count)

    def stored(self) -> dict[str, Any]:
        """Return what is stored: the count of each value where they are few, else the digits from the first place on.

        Digits are compressed to about a sixth, which cuts the time to read a year of days to a third.
        """
        counts = self.counts()
        places = list(compress(range(len(counts)), counts))
        if len(places) <= FEW:
            return {str(value_at(place)): counts[place] for place in places}
        digits = self.digits >> BITS * places[0]
        text = b64encode(zlib.compress(digits.to_bytes(BITS // 8 * (len(counts) - places[0]), "little"))).decode()
        percentiles = [self.percentile(rank) for rank in RANKS]
        return {"first": places[0], "digits": text, "total": self.total, "percentiles": percentiles}

    def counts(self) -> tuple[int, ...]:
        """Return the counts by place."""
        digits = self.digits
        places = -(-digits.bit_length() // BITS)
        return struct.unpack(f"<{places}I", digits.to_bytes(BITS // 8 * places, "little"))

    def percentile(self, rank: int) -> int | None:
        """Return the value at or below which `rank` percent of all values lie; None without values."""
        if self.total and rank not in self.kept:
            seen = list(accumulate(self.counts()))
            for each in {*RANKS, rank}:
                self.kept[each] = value_at(bisect_left(seen, ceil(self.total * each / 100)))
        return self.kept.get(rank)

    def _change(self, digits: int, total: int) -> None:
        self._digits += digits
        self.total += total
        self.kept = {}
