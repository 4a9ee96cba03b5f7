"""Usage figures over any days: closed ones from rollups, the others from the ledger."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from django.db.models import Sum

from analytics.histograms import Histogram
from analytics.ledger import sums as aggregates
from analytics.models import UsageRollup
from analytics.query import Filters, Window

NANOS_PER_DOLLAR = 1_000_000_000
SUMS = {"latency_ms": "latency_sum_ms", "first_token_ms": "first_token_sum_ms"}
Grain = UsageRollup.Grain
Key = tuple[Any, ...]


def grain(filters: Filters, by: Sequence[str]) -> Grain:
    """The coarsest that tells apart what is asked for."""
    named = {*filters.values, *by}
    if named & {"client_token_id", "app_version"}:
        return Grain.FULL
    return Grain.MODEL if "model" in named else Grain.TOTAL


def rollups(window: Window, filters: Filters, by: Sequence[str]) -> Any:
    return UsageRollup.objects.filter(window.closed, grain=grain(filters, by), **filters.values).order_by()


def usage(window: Window, filters: Filters, *by: str, names: Iterable[str]) -> dict[Key, Counter[str]]:
    """The named figures for each value of the columns `by`; without any, under the empty key."""
    names = list(names)
    found: list[dict[str, Any]] = []
    if window.first <= window.closed_to:
        sums = {f"sum_{name}": Sum(name) for name in names}
        rows = rollups(window, filters, by)
        read = rows.values(*by).annotate(**sums) if by else [rows.aggregate(**sums)]
        found += [{name.removeprefix("sum_"): value for name, value in row.items()} for row in read]
    if window.tail:
        found += unrolled(window.tail, filters, by, names)
    return merged(found, by, names)


def unrolled(window: Window, filters: Filters, by: Sequence[str], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The same from the raw rows of as few kinds as hold the figures."""
    if figures := [name for name in names if name in aggregates.FIGURES]:
        yield from aggregates.usage(window, filters, *by, figures=figures)
    if not set(names).isdisjoint(aggregates.REPLAY_FIGURES):
        yield from aggregates.added_replays(window, filters, *by)
    if not set(names).isdisjoint(aggregates.FEEDBACK):
        yield from aggregates.feedback(window, filters, *by)


def merged(rows: Iterable[dict[str, Any]], by: Sequence[str], names: Iterable[str]) -> dict[Key, Counter[str]]:
    sums: dict[Key, Counter[str]] = {}
    for row in rows:
        counter = sums.setdefault(tuple(row[name] for name in by), Counter())
        # A sum of no rows is null.
        counter.update({name: row.get(name) or 0 for name in names})
    return sums


def failures(window: Window, filters: Filters) -> dict[date, Counter[str]]:
    """Failed and abandoned turns by day and error code."""
    found: dict[date, Counter[str]] = {}
    if window.first <= window.closed_to:
        for day, codes in rollups(window, filters, ()).exclude(failures={}).values_list("day", "failures"):
            found.setdefault(day, Counter()).update(codes)
    if window.tail:
        for key, code, count in aggregates.failures(window.tail, filters, "day"):
            found.setdefault(key["day"], Counter())[code] += count
    return found


@dataclass
class Durations:
    """How long completed turns took."""

    histogram: Histogram = field(default_factory=Histogram)
    sum_ms: int = 0

    def merge(self, other: "Durations") -> None:
        self.histogram.merge(other.histogram)
        self.sum_ms += other.sum_ms


def durations(window: Window, filters: Filters, column: str) -> dict[date, Durations]:
    """By day; days without any are absent. `column` is one of SUMS."""
    found: defaultdict[date, Durations] = defaultdict(Durations)
    if window.first <= window.closed_to:
        rows = rollups(window, filters, ()).exclude(**{column: {}})
        for day, stored, sum_ms in rows.values_list("day", column, SUMS[column]):
            found[day].histogram.merge_stored(stored)
            found[day].sum_ms += sum_ms
    if window.tail:
        for key, milliseconds, count in aggregates.durations(window.tail, filters, column, "day"):
            found[key["day"]].histogram.add(milliseconds, count)
        for row in aggregates.usage(window.tail, filters, "day", figures=[SUMS[column]]):
            found[row["day"]].sum_ms += row[SUMS[column]]
    return {day: those for day, those in found.items() if those.histogram.total}


def dollars(figures: Counter[str]) -> float | None:
    """None where the price of anything sold is unknown."""
    return figures["cost_nanos"] / NANOS_PER_DOLLAR if figures["priced"] == figures["sold"] else None
