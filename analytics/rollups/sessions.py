"""Sessions: the events of one user with no gap over 30 minutes, of all clients together."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.db.models import QuerySet, Subquery

from analytics.cooperative import taking_breaks
from analytics.ledger.sums import event_rows
from analytics.models import OpenSession, RollupDay
from analytics.query import DAY, midnight

GAP = timedelta(minutes=30)


@dataclass
class Session:
    """A session is not cut at midnight. Its day, client, model and version are the first that its events name."""

    user_id: str
    client_token_id: int
    model: str
    app_version: str
    first_at: datetime
    last_at: datetime

    @property
    def day(self) -> date:
        return self.first_at.astimezone(UTC).date()

    @property
    def seconds(self) -> int:
        return round((self.last_at - self.first_at).total_seconds())


def of_day(day: date, carried: Mapping[str, Session]) -> tuple[list[Session], list[Session]]:
    """Continue the sessions `carried` from the day before: those that ended, and those still open at the day's end."""
    columns = ["user_id", "client_token_id", "model", "app_version", "created_at"]
    events = event_rows(day).order_by("user_id", "created_at", "id").values_list(*columns).iterator()
    end = midnight(day) + DAY
    ended: list[Session] = []
    going_on: list[Session] = []
    for session in split(taking_breaks(events), carried):
        (going_on if end - session.last_at <= GAP else ended).append(session)
    return ended, going_on


def split(events: Iterable[tuple[str, int, str, str, datetime]], carried: Mapping[str, Session]) -> Iterator[Session]:
    """Yield the sessions of `events`, which are ordered by user and time."""
    waiting = dict(carried)
    session: Session | None = None
    for user_id, client_token_id, model, app_version, at in events:
        if session is None or session.user_id != user_id:
            if session:
                yield session
            session = waiting.pop(user_id, None)
        if session and at - session.last_at <= GAP:
            # Many sessions begin with an event that names no model: a client that was opened.
            session.model, session.app_version = session.model or model, session.app_version or app_version
            session.last_at = at
        else:
            if session:
                yield session
            session = Session(user_id, client_token_id, model, app_version, at, at)
    if session:
        yield session
    yield from waiting.values()


def open_after(day: date) -> dict[str, Session]:
    """Return the sessions that the build of `day` left open, by user."""
    return {session.user_id: session for session in read(OpenSession.objects.filter(built_on=day))}


def still_open(**columns: Any) -> list[Session]:
    """Return the sessions that may go on after the last day that is built. No rollup has them yet."""
    last_built = RollupDay.objects.built().order_by("-day").values("day")[:1]
    return read(OpenSession.objects.filter(built_on=Subquery(last_built), **columns))


def read(rows: QuerySet[OpenSession]) -> list[Session]:
    columns = ("user_id", "client_token_id", "model", "app_version", "first_at", "last_at")
    return [Session(*row) for row in rows.values_list(*columns)]
