"""What a metric is asked about: whole UTC days, of all or of one client, model and version."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any

from django.db.models import Max, Q
from django.utils import timezone

from analytics.rollup_models import RollupDay

DAY = timedelta(days=1)


def midnight(day: date) -> datetime:
    """The instant at which the UTC day begins."""
    return datetime.combine(day, datetime.min.time(), UTC)


def today() -> date:
    return timezone.now().astimezone(UTC).date()


def days_between(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=offset) for offset in range((last - first).days + 1))


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
    def closed_to(self) -> date:
        """The last day with rollups: days are built in order, so all before it have them too. Read once a window."""
        built: date | None = RollupDay.objects.built().aggregate(last=Max("day"))["last"]
        return built or date.min

    @property
    def closed(self) -> Q:
        """Rows of rollups."""
        return Q(day__gte=self.first, day__lte=min(self.last, self.closed_to))

    @property
    def tail(self) -> "Window | None":
        """The days that have to be read from the raw rows; None where all have rollups."""
        return self.moved(max(self.first, self.closed_to + DAY), self.last) if self.last > self.closed_to else None

    def moved(self, first: date, last: date) -> "Window":
        """Other days, with the same notion of which are closed."""
        window = Window(first, last)
        window.__dict__["closed_to"] = self.closed_to
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

    def __bool__(self) -> bool:
        return bool(self.values)


ALL = Filters()
