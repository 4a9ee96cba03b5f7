"""Sessions: a user's events with no gap over 30 minutes, of all clients together."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from analytics.cooperative import taking_breaks
from analytics.ledger.sums import event_rows
from analytics.models import OpenSession
from analytics.query import ALL, DAY, Filters, Window, midnight

GAP = timedelta(minutes=30)


@dataclass(frozen=True)
class Session:
    """It is not cut at midnight; day, client, model and version are the first that its events name."""

    user_id: str
    client_token_id: int
    model: str
    app_version: str
    first_at: datetime
    last_at: datetime

    @property
    def day(self) -> date:
        return self.first_at.astimezone(UTC).date()

    def going_on(self, model: str, app_version: str, at: datetime) -> "Session":
        """Many sessions begin with an event that is about no model: a client that was opened."""
        return replace(self, model=self.model or model, app_version=self.app_version or app_version, last_at=at)

    @property
    def seconds(self) -> int:
        return round((self.last_at - self.first_at).total_seconds())

    def is_of(self, filters: Filters) -> bool:
        return all(getattr(self, name) == value for name, value in filters.values.items())


def in_window(window: Window, carried: Mapping[str, Session]) -> tuple[list[Session], list[Session]]:
    """Go on from the sessions `carried` into the window: those that ended in it, and those still open at its end."""
    columns = ["user_id", "client_token_id", "model", "app_version", "created_at"]
    events = event_rows(window, ALL).order_by("user_id", "created_at", "id").values_list(*columns).iterator()
    end = midnight(window.last) + DAY
    ended: list[Session] = []
    still_open: list[Session] = []
    for session in walk(taking_breaks(events), carried):
        (still_open if end - session.last_at <= GAP else ended).append(session)
    return ended, still_open


def walk(events: Iterable[tuple[str, int, str, str, datetime]], carried: Mapping[str, Session]) -> Iterator[Session]:
    """`events` are ordered by user and time."""
    waiting = dict(carried)
    session: Session | None = None
    for user_id, client_token_id, model, app_version, at in events:
        if session is None or session.user_id != user_id:
            if session:
                yield session
            session = waiting.pop(user_id, None)
        if session and at - session.last_at <= GAP:
            session = session.going_on(model, app_version, at)
        else:
            if session:
                yield session
            session = Session(user_id, client_token_id, model, app_version, at, at)
    if session:
        yield session
    yield from waiting.values()


def open_after(day: date) -> dict[str, Session]:
    """The sessions that the build of `day` left open, by user."""
    rows = OpenSession.objects.filter(built_on=day)
    return {
        row.user_id: Session(row.user_id, row.client_token_id, row.model, row.app_version, row.first_at, row.last_at)
        for row in rows
    }
