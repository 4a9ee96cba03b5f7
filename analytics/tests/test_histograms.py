from collections import Counter
from math import ceil

import pytest

from analytics.histograms import Histogram, place_of, rounded, value_at

FEW = [0, 7, 7, 1000, 123_456]
MANY = [900 + 3 * number for number in range(500)]


def test_places_are_in_the_order_of_values_without_gaps() -> None:
    values = sorted({rounded(value) for value in range(120_000)})

    assert [place_of(value) for value in values] == list(range(len(values)))
    assert [value_at(place) for place in range(len(values))] == values


@pytest.mark.parametrize(("values", "form"), [(FEW, dict), (MANY, list), ([], dict)])
def test_what_is_stored_is_what_is_read(values: list[int], form: type) -> None:
    stored = Histogram(values).stored()
    read = Histogram([5])
    read.merge_stored(stored)
    read.merge_stored(stored)

    assert isinstance(stored, form)
    assert {value_at(place): count for place, count in enumerate(read.counts) if count} == {
        value: 2 * count for value, count in Counter(map(rounded, values)).items()
    } | {5: 1}


@pytest.mark.parametrize("rank", [1, 50, 90, 99, 100])
def test_percentiles_are_by_nearest_rank(rank: int) -> None:
    for values in (FEW, MANY, [3]):
        ordered = sorted(map(rounded, values))
        assert Histogram(values).percentiles(rank) == [ordered[ceil(len(ordered) * rank / 100) - 1]]
    assert Histogram().percentiles(rank) == [None]
