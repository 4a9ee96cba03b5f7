"""Counts of values rounded to three significant digits: small enough to keep, exact enough for percentiles.

Percentiles are by nearest rank. Values under 1,000 are kept as they are, so their percentiles are exact;
above, they are within 0.5 %.
"""

import math
from collections import Counter
from collections.abc import Mapping

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


def merge(into: Counter[int], histogram: Mapping[str, int]) -> None:
    """Add a stored histogram: JSON's keys are strings."""
    for value, count in histogram.items():
        into[int(value)] += count


def percentiles(histogram: Counter[int], *ranks: int) -> list[int | None]:
    """The value below or at which `rank` percent of all values lie, for each rank; None without values."""
    if not (total := histogram.total()):
        return [None for _ in ranks]
    wanted = {rank: math.ceil(total * rank / 100) for rank in ranks}
    found: dict[int, int] = {}
    seen = 0
    for value in sorted(histogram):
        seen += histogram[value]
        for rank, place in wanted.items():
            if seen >= place:
                found.setdefault(rank, value)
    return [found[rank] for rank in ranks]


def stored(histogram: Mapping[int, int]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(histogram.items())}
