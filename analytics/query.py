"""What a metric is asked about: whole UTC days, of everybody or of one client, model and app version."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Self

from django.db.models import Q
from django.utils import timezone

DAY = timedelta(days=1)
# Before the first turn of any ledger.
BEGINNING = date(2000, 1, 1)
DEFAULT_DAYS = 30
# The longest periods, in days, that may be asked for.
MAX_DAYS = 3660  # /metrics and its reports: ten years
MAX_DASHBOARD_DAYS = 731  # a plot holds some 200 bytes for each day
MAX_USAGE_DAYS = 366  # a client's own usage, and the staff's usage by client, model and user
# The longest ids that columns hold.
MAX_CLIENT_TOKEN_ID = 2**63 - 1
MAX_MODEL, MAX_APP_VERSION = 100, 64


class InvalidQuery(ValueError):
    """A parameter that cannot be read: `param` names it, the message says what it takes."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


def midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), UTC)


def today() -> date:
    return timezone.now().astimezone(UTC).date()


def days_between(first: date, last: date) -> Iterator[date]:
    """Yield every day from `first` to `last`, both included."""
    return (first + timedelta(days=offset) for offset in range((last - first).days + 1))


def parse_day(text: str, param: str) -> date:
    """Read YYYY-MM-DD. Raises InvalidQuery for anything else, and for days that no ledger can hold."""
    try:
        day = date.fromisoformat(text)
    except ValueError as exc:
        raise InvalidQuery(param, "takes a UTC day as YYYY-MM-DD.") from exc
    if not BEGINNING <= day <= today() + timedelta(days=366):
        raise InvalidQuery(param, "takes a day of this century that is at most a year ahead.")
    return day


@dataclass(frozen=True)
class Period:
    """Whole UTC days from `first` to `last`, both included."""

    first: date
    last: date

    @classmethod
    def last_days(cls, days: int) -> Self:
        """Return the `days` days that end today."""
        last = today()
        return cls(last - timedelta(days=days - 1), last)

    @property
    def days(self) -> Iterator[date]:
        return days_between(self.first, self.last)

    @property
    def length(self) -> int:
        return (self.last - self.first).days + 1

    @property
    def before(self) -> "Period":
        """The period of the same length that ends the day before this one begins."""
        return Period(self.first - self.length * DAY, self.first - DAY)

    @property
    def instants(self) -> Q:
        """Condition on raw rows, whose time is `created_at`."""
        return Q(created_at__gte=midnight(self.first), created_at__lt=midnight(self.last) + DAY)

    def as_params(self) -> dict[str, str]:
        return {"from": self.first.isoformat(), "to": self.last.isoformat()}


@dataclass(frozen=True)
class Filters:
    """One client token, model or version of the client's app; None and empty mean all."""

    client_token_id: int | None = None
    model: str = ""
    app_version: str = ""

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> Self:
        """Read `client`, `model` and `app_version`. Raises InvalidQuery where no row can hold the value."""
        client = params.get("client")
        if client is not None and not (
            client.isascii() and client.isdecimal() and len(client) < 20 and 0 < int(client) <= MAX_CLIENT_TOKEN_ID
        ):
            raise InvalidQuery("client", "takes the id of a client token, a whole number.")
        for name, most in (("model", MAX_MODEL), ("app_version", MAX_APP_VERSION)):
            text = params.get(name)
            if text is not None and (not text or len(text) > most or "\0" in text):
                raise InvalidQuery(name, f"takes 1 to {most} characters.")
        return cls(int(client) if client else None, params.get("model", ""), params.get("app_version", ""))

    @property
    def columns(self) -> dict[str, Any]:
        """The filters that are set, by column."""
        return {name: value for name, value in vars(self).items() if value not in (None, "")}

    @property
    def slice(self) -> dict[str, Any]:
        """All filters by column of ActivityRollup, where 0 and empty mean all."""
        return {**vars(self), "client_token_id": self.client_token_id or 0}

    def __bool__(self) -> bool:
        return bool(self.columns)

    def as_params(self) -> dict[str, str]:
        return {name.removesuffix("_token_id"): str(value) for name, value in self.columns.items()}


ALL = Filters()


@dataclass(frozen=True)
class Query:
    """What is asked of a metric: which days, and of which client, model and version."""

    period: Period
    filters: Filters = ALL

    @classmethod
    def last_days(cls, days: int, filters: Filters = ALL) -> Self:
        return cls(Period.last_days(days), filters)

    @classmethod
    def from_params(
        cls, params: Mapping[str, str], *, default_days: int = DEFAULT_DAYS, max_days: int = MAX_DAYS
    ) -> Self:
        """Read the parameters of a query string or a command: by default the `default_days` days that end today.

        Raises InvalidQuery for what cannot be read, and for days in the wrong order or more than `max_days`.
        """
        last = parse_day(params["to"], "to") if "to" in params else today()
        first = parse_day(params["from"], "from") if "from" in params else last - timedelta(days=default_days - 1)
        if not 0 <= (last - first).days < max_days:
            raise InvalidQuery("from", f"takes a day that is 0 to {max_days - 1} days before `to`.")
        return cls(Period(first, last), Filters.from_params(params))

    @property
    def before(self) -> "Query":
        return Query(self.period.before, self.filters)

    @property
    def days(self) -> list[date]:
        return list(self.period.days)

    @property
    def rows(self) -> Q:
        """Condition on rollup rows by their column `day`, and on the columns that are filtered."""
        return Q(day__gte=self.period.first, day__lte=self.period.last, **self.filters.columns)

    @property
    def slice(self) -> Q:
        """Condition on activity rollups, which hold a row for each combination of filters."""
        return Q(day__gte=self.period.first, day__lte=self.period.last, **self.filters.slice)

    def as_params(self) -> dict[str, str]:
        return {**self.period.as_params(), **self.filters.as_params()}
