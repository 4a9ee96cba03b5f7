import json
from collections import Counter
from importlib import import_module
from math import ceil

import pytest

from analytics.histograms import RANKS, Histogram, place_of, rounded, value_at

FEW = [0, 7, 7, 1000, 123_456]
MANY = [900 + 3 * number for number in range(500)]


def test_places_are_in_the_order_of_values_without_gaps() -> None:
    values = sorted({rounded(value) for value in range(120_000)})

    assert [place_of(value) for value in values] == list(range(len(values)))
    assert [value_at(place) for place in range(len(values))] == values


@pytest.mark.parametrize(("values", "is_dense"), [(FEW, False), (MANY, True), ([], False)])
def test_what_is_stored_is_what_is_read(values: list[int], is_dense: bool) -> None:
    stored = json.loads(json.dumps(Histogram(values).stored()))
    read = Histogram([5])
    read.merge_stored(stored)
    read.merge_stored(stored)

    assert ("digits" in stored) == is_dense
    assert read.total == 1 + 2 * len(values)
    assert {value_at(place): count for place, count in enumerate(read.counts()) if count} == {
        value: 2 * count for value, count in Counter(map(rounded, values)).items()
    } | {5: 1}


@pytest.mark.parametrize("rank", [1, 50, 90, 99, 100])
def test_percentiles_are_by_nearest_rank(rank: int) -> None:
    for values in (FEW, MANY, [3]):
        ordered = sorted(map(rounded, values))
        assert Histogram(values).percentile(rank) == ordered[ceil(len(ordered) * rank / 100) - 1]
    assert Histogram().percentile(rank) is None


def test_percentiles_that_were_kept_are_of_what_was_read_alone() -> None:
    read = Histogram()
    read.merge_stored(Histogram(MANY).stored())
    assert percentiles(read) == percentiles(Histogram(MANY))
    assert read.percentile(25) == Histogram(MANY).percentile(25)

    read.merge_stored(Histogram(MANY[:400]).stored())
    assert percentiles(read) == percentiles(Histogram([*MANY, *MANY[:400]]))
    read.add(7, 10_000)
    assert read.percentile(50) == 7


def percentiles(histogram: Histogram) -> list[int | None]:
    return [histogram.percentile(rank) for rank in RANKS]


def test_a_place_holds_very_many() -> None:
    read = Histogram()
    for _ in range(3):
        read.add(500, 10**9)
        read.add(501, 1)

    assert (read.total, read.percentile(99)) == (3 * 10**9 + 3, 500)


def test_what_an_earlier_release_stored_is_rewritten() -> None:
    """A list of the first place and of all counts from there on."""
    rewrite = import_module("analytics.migrations.0013_digits").as_digits
    counts = Histogram(MANY).counts()
    first = next(place for place, count in enumerate(counts) if count)

    assert rewrite(first, *counts[first:]) == Histogram(MANY).stored()
