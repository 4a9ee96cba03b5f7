"""What a metric is asked about: whole UTC days, of all or of one client, model and version."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any, Self

from django.db.models import Max, Min, Q, QuerySet
from django.utils import timezone

from analytics.models.rollups import ActivityRollup, RollupDay

DAY = timedelta(days=1)
# The rollups of a day that goes on are read for so long; after that, somebody has ceased to build them.
FRESH = timedelta(minutes=15)


def midnight(day: date) -> datetime:
    """The instant at which the UTC day begins."""
    return datetime.combine(day, datetime.min.time(), UTC)


def today() -> date:
    return timezone.now().astimezone(UTC).date()


def days_between(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=offset) for offset in range((last - first).days + 1))


@dataclass(frozen=True)
class Rollups:
    """What has rollups that can be read: all days up to `last`, with all that was settled before `read_at`."""

    last: date
    read_at: datetime

    @classmethod
    def now(cls) -> Self:
        now = timezone.now()
        partial = Q(is_partial=True)
        fresh = partial & Q(built_at__gte=now - FRESH)
        # Days are built in order, so all before a day have rollups too.
        found = RollupDay.objects.built().aggregate(
            settled=Max("day", filter=~partial),
            last=Max("day", filter=fresh),
            old=Min("day", filter=partial & ~fresh),
            read_at=Min("built_at", filter=fresh),
            changed_at=Min("changed_at", filter=~partial),
        )
        settled = found["settled"] or date.min
        whole_until = min(now, found["changed_at"] or now)
        if found["last"] is None or found["last"] < settled:
            return cls(settled, whole_until)
        last = found["last"] if found["old"] is None else found["old"] - DAY
        return cls(last, min(found["read_at"], whole_until) if last > settled else whole_until)


@dataclass(frozen=True)
class Window:
    """Whole UTC days from `first` to `last`, both included."""

    first: date
    last: date

    @classmethod
    def last_days(cls, days: int) -> "Window":
        last = today()
        return cls(last - timedelta(days=days - 1), last)

    @property
    def days(self) -> Iterator[date]:
        return days_between(self.first, self.last)

    @property
    def condition(self) -> Q:
        return Q(created_at__gte=midnight(self.first), created_at__lt=midnight(self.last) + DAY)

    @cached_property
    def rollups(self) -> Rollups:
        """Read once a window, so that all its figures agree."""
        return Rollups.now()

    @property
    def closed_to(self) -> date:
        """The last day that is read from rollups."""
        return self.rollups.last

    @property
    def computed_at(self) -> datetime:
        """Nothing that was settled before is missing."""
        return min(self.rollups.read_at, timezone.now())

    @property
    def as_of(self) -> str:
        """For people, who see newer rows beside the figures; empty where nothing of the last minute is missing."""
        at = self.computed_at
        return f"As of {at:%Y-%m-%d %H:%M} UTC." if timezone.now() - at > timedelta(minutes=1) else ""

    @property
    def closed(self) -> Q:
        """Rows of rollups."""
        return Q(day__gte=self.first, day__lte=min(self.last, self.closed_to))

    @property
    def tail(self) -> "Window | None":
        """The days that have to be read from the raw rows; None where all have rollups."""
        return self.moved(max(self.first, self.closed_to + DAY), self.last) if self.last > self.closed_to else None

    def settled(self) -> "Window":
        """The same days, of which only those that are over are read from rollups."""
        last = RollupDay.objects.built().filter(is_partial=False).aggregate(last=Max("day"))["last"]
        window = Window(self.first, self.last)
        window.__dict__["rollups"] = Rollups(last or date.min, timezone.now())
        return window

    def activity(self, filters: "Filters") -> QuerySet[ActivityRollup]:
        """Of the closed days."""
        return ActivityRollup.objects.filter(self.closed, **filters.slice).order_by()

    def moved(self, first: date, last: date) -> "Window":
        """Other days, with the same notion of which are closed."""
        window = Window(first, last)
        window.__dict__["rollups"] = self.rollups
        return window


@dataclass(frozen=True)
class Filters:
    """One client token, model or version of the client's app; None and empty mean all."""

    client_token_id: int | None = None
    model: str = ""
    app_version: str = ""

    @property
    def values(self) -> dict[str, Any]:
        """By column, those that are set."""
        named = {"model": self.model, "app_version": self.app_version}
        client = {} if self.client_token_id is None else {"client_token_id": self.client_token_id}
        return client | {name: value for name, value in named.items() if value}

    @property
    def slice(self) -> dict[str, Any]:
        """By column of the rollups of users, in which 0 and empty mean all."""
        return {"client_token_id": self.client_token_id or 0, "model": self.model, "app_version": self.app_version}

    def __bool__(self) -> bool:
        return bool(self.values)


ALL = Filters()
