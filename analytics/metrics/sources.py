"""What metrics are computed from: the rollups of a query, as one typed row for each day.

Nothing is read but rollups: `rollups.coverage.bring_up_to_date` builds the day that goes on before anybody reads.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from functools import cached_property
from operator import attrgetter
from typing import Any, Literal, Self, TypeVar

from django.db.models import Count, QuerySet, Sum

from analytics.formatting import Values, usd
from analytics.histograms import Histogram
from analytics.models import ActivityRollup, Milestone, Refusals, SessionRollup, UsageRollup, UserDay
from analytics.query import DAY, Filters, Query
from analytics.rollups.activity import RETURNS
from analytics.rollups.sessions import still_open

T = TypeVar("T")
Key = tuple[Any, ...]
Grain = UsageRollup.Grain


def share(part: float, whole: float, digits: int = 4) -> float | None:
    return round(part / whole, digits) if whole else None


def mean(values: Values) -> float | None:
    """Mean of the values that are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def by_day(values: Mapping[date, T], figures: Callable[[T], dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each day: the day, and the figures of its value."""
    return [{"day": day.isoformat(), **figures(value)} for day, value in values.items()]


def in_all(overall: T, values: Mapping[date, T], figures: Callable[[T], dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of all days, and those of each as `by_day`."""
    return {**figures(overall), "by_day": by_day(values, figures)}


@dataclass(slots=True)
class Usage:
    """Sums of usage rollups; the names are those of UsageRollup's columns, which say what each counts."""

    pending: int = 0
    completed: int = 0
    failed: int = 0
    abandoned: int = 0
    sold: int = 0
    priced: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0
    cost_nanos: int = 0
    replays: int = 0
    replayed_priced: int = 0
    replayed_tokens: int = 0
    replayed_nanos: int = 0
    thumbs_up: int = 0
    thumbs_down: int = 0
    regenerated: int = 0
    sign_ups: int = 0

    @property
    def ended(self) -> int:
        """Turns that have ended: pending ones have not."""
        return self.completed + self.failed + self.abandoned

    @property
    def success_rate(self) -> float | None:
        """Completed turns as a share of those that ended: 1 only for all of them, and 0 only for none."""
        rounded = share(self.completed, self.ended)
        return rounded if rounded is None or self.completed in (0, self.ended) else min(max(rounded, 0.0001), 0.9999)

    @property
    def cost_usd(self) -> float | None:
        """None where the price of anything that was sold is unknown."""
        return usd(self.cost_nanos) if self.priced == self.sold else None

    @property
    def thumbs_up_share(self) -> float | None:
        return share(self.thumbs_up, self.thumbs_up + self.thumbs_down)


NAMES = tuple(column.name for column in fields(Usage))


def total(rows: Iterable[Usage]) -> Usage:
    return Usage(*map(sum, zip(*map(attrgetter(*NAMES), rows), strict=True)))


def totals(rows: Iterable[tuple[T, Usage]]) -> dict[T, Usage]:
    """Add up the rows of each key."""
    found: defaultdict[T, list[Usage]] = defaultdict(list)
    for key, row in rows:
        found[key].append(row)
    return {key: total(those) for key, those in found.items()}


def usage_of(query: Query) -> Usage:
    """Return the sums of everything that is asked about, in one statement."""
    return total(usage_by(query, "grain").values())


def usage_rollups(query: Query, *by: str) -> Any:
    """Return the rollups of a query, at the coarsest grain that tells the columns `by` apart."""
    named = {*query.filters.columns, *by}
    grain = Grain.MODEL if "model" in named else Grain.TOTAL
    if named & {"client_token_id", "app_version"}:
        grain = Grain.FULL
    return UsageRollup.objects.filter(query.rows, grain=grain).order_by()


def usage_by(query: Query, *by: str) -> dict[Key, Usage]:
    """Return the sums for each value of the columns `by`, in one statement."""
    rows = usage_rollups(query, *by)
    if {*by, *query.filters.columns} in ({"day"}, {"day", "model"}):
        rows = rows.values_list(*by, *NAMES)  # one row each: to compile 19 sums takes longer than to read them
    else:
        rows = rows.values_list(*by).annotate(**{f"sum_{name}": Sum(name) for name in NAMES})
    return {row[: len(by)]: Usage(*row[len(by) :]) for row in rows}


# What rows of UserDay hold of Usage: its names, and their columns.
BOUGHT = {"completed": "turns"} | {name: name for name in ("sold", "priced", "total_tokens", "cost_nanos")}


def bought_by(days: QuerySet[UserDay], *by: str, most: int | None = None) -> list[tuple[Key, Usage]]:
    """Return what users bought for each value of the columns `by`, in one statement, most tokens first."""
    sums: dict[str, Any] = {f"sum_{name}": Sum(column) for name, column in BOUGHT.items()}
    rows: Any = days.values_list(*by).annotate(**sums)
    largest = rows.order_by("-sum_total_tokens", *by)[:most]
    return [(row[: len(by)], Usage(**dict(zip(BOUGHT, row[len(by) :], strict=True)))) for row in largest]


@dataclass(slots=True)
class Activity:
    """Users of one day; the names are those of ActivityRollup's columns."""

    seen_users: int = 0
    turns: int = 0
    dau: int = 0
    wau: int = 0
    mau: int = 0
    new_users: int = 0
    signed_in: int = 0

    @property
    def others(self) -> int:
        return self.dau - self.signed_in

    @property
    def returning(self) -> int:
        return self.dau - self.new_users

    @property
    def stickiness(self) -> float | None:
        return share(self.dau, self.mau)

    @property
    def messages(self) -> float | None:
        """Completed turns of an active user."""
        return share(self.turns, self.dau)


class Durations(Histogram):
    """Seconds, or milliseconds of completed turns: of these the exact sum is known, too."""

    sum_ms = 0

    @property
    def mean(self) -> float | None:
        return share(self.sum_ms, self.total, 1)

    def merge(self, other: Self) -> None:
        super().merge(other)
        self.sum_ms += other.sum_ms

    @classmethod
    def of_days(cls, rows: Any) -> dict[date, Self]:
        """Read rows of a day, a stored histogram, and of turns the sum of their milliseconds."""
        found: defaultdict[date, Self] = defaultdict(cls)
        for day, stored, *sums in rows:
            found[day].merge_stored(stored)
            found[day].sum_ms += sum(sums)
        return found

    @classmethod
    def merged(cls, by_day: Mapping[date, Self]) -> Self:
        overall = cls()
        for found in by_day.values():
            overall.merge(found)
        return overall


class Table:
    """The days of a query. Each part is read when it is first asked for, once, whatever is computed from it.

    Parts are dicts by day. Days without rows are absent in those of histograms and counters, and zeros elsewhere.
    """

    def __init__(self, query: Query) -> None:
        self.query = query
        self.days = query.days
        self._overall: dict[str, Durations] = {}

    def overall(self, part: str) -> "Durations":
        """Return the durations of all days together, merged once."""
        if part not in self._overall:
            self._overall[part] = Durations.merged(getattr(self, part))
        return self._overall[part]

    @cached_property
    def usage_by_model(self) -> dict[tuple[date, str], Usage]:
        """Sums by day and model, in this order; without those of which nothing is known."""
        return dict(sorted(usage_by(self.query, "day", "model").items()))

    @cached_property
    def usage(self) -> dict[date, Usage]:
        found = totals((day, row) for (day, _), row in self.usage_by_model.items())
        return {day: found.get(day) or Usage() for day in self.days}

    @cached_property
    def total(self) -> Usage:
        return total(self.usage.values())

    @cached_property
    def activity(self) -> dict[date, Activity]:
        names = [column.name for column in fields(Activity)]
        rows = ActivityRollup.objects.filter(self.query.slice).order_by().values_list("day", *names)
        found = {day: Activity(*row) for day, *row in rows}
        return {day: found.get(day) or Activity() for day in self.days}

    def each_day(self, part: Literal["usage", "activity"], name: str) -> list[Any]:
        """Return one figure of every day."""
        return [getattr(row, name) for row in getattr(self, part).values()]

    @cached_property
    def latency(self) -> dict[date, Durations]:
        return self.durations_of_turns("latency_ms", "latency_sum_ms")

    @cached_property
    def first_token(self) -> dict[date, Durations]:
        return self.durations_of_turns("first_token_ms", "first_token_sum_ms")

    def durations_of_turns(self, column: str, sum_column: str) -> dict[date, Durations]:
        rows = usage_rollups(self.query).exclude(**{column: {}}).order_by("day")
        return Durations.of_days(rows.values_list("day", column, sum_column))

    @cached_property
    def time_spent(self) -> dict[date, Durations]:
        """Seconds from a user's first event of a day to the last."""
        rows = ActivityRollup.objects.filter(self.query.slice).exclude(time_spent={}).order_by("day")
        return Durations.of_days(rows.values_list("day", "time_spent"))

    @cached_property
    def sessions(self) -> dict[date, Durations]:
        """Seconds of sessions, by the day on which they began."""
        rows = SessionRollup.objects.filter(self.query.rows, is_total=not self.query.filters).order_by("day")
        found = Durations.of_days(rows.values_list("day", "seconds"))
        for session in still_open(**self.query.filters.columns):
            if self.query.period.first <= session.day <= self.query.period.last:
                found.setdefault(session.day, Durations()).add(session.seconds)
        return dict(sorted(found.items()))

    @cached_property
    def failures(self) -> dict[date, Counter[str]]:
        """Failed and abandoned turns, by error code."""
        found: defaultdict[date, Counter[str]] = defaultdict(Counter)
        rows = usage_rollups(self.query).exclude(failures={}).order_by("day")
        for day, codes in rows.values_list("day", "failures"):
            found[day].update(codes)
        return found

    @cached_property
    def refusals(self) -> dict[date, Counter[str]]:
        """Requests refused over a limit, by error code. Model and version do not filter them: nobody knows either."""
        asked = Query(self.query.period, Filters(self.query.filters.client_token_id))
        rows = Refusals.objects.filter(asked.rows).values_list("day", "code").annotate(total=Sum("count"))
        found: defaultdict[date, Counter[str]] = defaultdict(Counter)
        for day, code, count in rows.order_by("day", "code"):
            found[day][code] = count
        return found

    @cached_property
    def returned(self) -> dict[int, dict[date, int]]:
        """By 1, 7 and 30 days, and by the day on which users were new, how many were active again so much later.

        With filters, the new users are those whom they match on their first day.
        """
        period = self.query.period
        columns = {age: f"returned_{age}" for age in RETURNS}
        last = period.last + max(RETURNS) * DAY
        rows = ActivityRollup.objects.filter(day__gt=period.first, day__lte=last, **self.query.filters.slice)
        found: dict[int, dict[date, int]] = {age: {} for age in RETURNS}
        for day, *counts in rows.order_by().values_list("day", *columns.values()):
            for age, count in zip(columns, counts, strict=True):
                found[age][day - age * DAY] = count
        return found

    @cached_property
    def activated(self) -> Counter[date]:
        """Users by the day on which they were new, who have completed ACTIVATED_BY turns since."""
        period = self.query.period
        reached = Milestone.objects.filter(
            first_day__gte=period.first, first_day__lte=period.last, fifth_day__isnull=False
        )
        if not self.query.filters:
            return Counter(dict(reached.order_by().values_list("first_day").annotate(users=Count("*"))))
        first = UserDay.objects.filter(self.query.rows, turns__gt=0, age_days=0, user_id__in=reached.values("user_id"))
        return Counter(dict(first.order_by().values_list("day").annotate(users=Count("user_id", distinct=True))))
