"""One closed day, from its raw rows to the rows of the rollup tables; nothing is written here."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

from django.db.models import Min

from analytics import aggregates, histograms, sessions
from analytics.models import AnalyticsEvent, OpenSession, SessionRollup, UsageEvent, UsageRollup, UserDay
from analytics.windows import ALL, DAY, Window

KEY = ("client_token_id", "model", "app_version")
EVERYBODY = (0, "", "")
GRAINS = UsageRollup.Grain
HISTOGRAMS = ("latency_ms", "first_token_ms", "failures")


@dataclass
class Cell:
    """What usage rows of one key add up to."""

    figures: Counter[str] = field(default_factory=Counter)
    latency_ms: Counter[int] = field(default_factory=Counter)
    first_token_ms: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Cell") -> None:
        for name in ("figures", *HISTOGRAMS):
            getattr(self, name).update(getattr(other, name))

    def row(self, day: date, grain: str, key: tuple[Any, ...]) -> UsageRollup:
        return UsageRollup(
            day=day,
            grain=grain,
            **dict(zip(KEY, key, strict=True)),
            **self.figures,
            latency_ms=histograms.stored(self.latency_ms),
            first_token_ms=histograms.stored(self.first_token_ms),
            failures=dict(self.failures),
        )


@dataclass(frozen=True)
class Day:
    day: date
    usage: list[UsageRollup]
    users: list[UserDay]
    sessions: list[SessionRollup]
    open_sessions: list[OpenSession]

    @classmethod
    def read(cls, day: date) -> "Day":
        return cls(day, usage_rollups(day), user_days(day), *session_rows(day))

    @cached_property
    def active(self) -> set[str]:
        return {row.user_id for row in self.users if row.turns}

    @property
    def turns(self) -> int:
        return sum(row.turns for row in self.usage if row.grain == GRAINS.TOTAL)

    @property
    def events(self) -> int:
        return sum(row.events for row in self.users)


def usage_rollups(day: date) -> list[UsageRollup]:
    """The day's usage at every grain."""
    window = Window(day, day)
    cells: dict[tuple[Any, ...], Cell] = {}

    def cell(row: dict[str, Any]) -> Cell:
        return cells.setdefault(tuple(row.pop(name) for name in KEY), Cell())

    for row in aggregates.usage(window, ALL, *KEY):
        cell(row).figures.update(row)
    for row in aggregates.added_replays(window, ALL, *KEY):
        cell(row).figures.update(row)
    for row in aggregates.feedback(window, ALL, *KEY):
        cell(row).figures.update(row)
    for row, code, count in aggregates.failures(window, ALL, *KEY):
        cell(row).failures[code] += count
    for row, milliseconds, count in aggregates.durations(window, ALL, "latency_ms", *KEY):
        cell(row).latency_ms[milliseconds] += count
    for row, milliseconds, count in aggregates.durations(window, ALL, "first_token_ms", *KEY):
        cell(row).first_token_ms[milliseconds] += count
    return list(at_every_grain(day, cells))


def at_every_grain(day: date, cells: dict[tuple[Any, ...], Cell]) -> Iterable[UsageRollup]:
    by_model: dict[tuple[Any, ...], Cell] = {}
    everything = Cell()
    for key, cell in cells.items():
        _, model, _ = key
        by_model.setdefault((0, model, ""), Cell()).add(cell)
        everything.add(cell)
        yield cell.row(day, GRAINS.FULL, key)
    for key, cell in by_model.items():
        yield cell.row(day, GRAINS.MODEL, key)
    yield everything.row(day, GRAINS.TOTAL, EVERYBODY)


def user_days(day: date) -> list[UserDay]:
    """What users did and bought; their ages are not known yet."""
    window = Window(day, day)
    columns = ("client_token_id", "user_id", "model", "app_version")
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    done = aggregates.user_events(window, ALL, *columns)
    bought = aggregates.usage(window, ALL, *columns, figures=aggregates.BOUGHT)
    for row in [*done, *(row for row in bought if row["sold"])]:
        rows.setdefault(tuple(row[name] for name in columns), {}).update(row)
    return [UserDay(day=day, **row) for row in rows.values()]


def time_spent(rows: Iterable[UserDay]) -> Counter[int]:
    """Histogram of the seconds from a user's first event of the day to the last."""
    spans: dict[str, tuple[Any, Any]] = {}
    for row in rows:
        if row.events:
            first, last = spans.get(row.user_id, (row.first_at, row.last_at))
            spans[row.user_id] = (min(first, row.first_at), max(last, row.last_at))
    return Counter(histograms.rounded(round((last - first).total_seconds())) for first, last in spans.values())


def active_on(day: date) -> Any:
    """Ids of the users with a completed turn, as a subquery."""
    return aggregates.event_rows(Window(day, day), ALL).filter(event_name=aggregates.TURN).values("user_id")


def session_rows(day: date) -> tuple[list[SessionRollup], list[OpenSession]]:
    """Sessions that ended on the day, by the day they began; and those still open at its end."""
    ended, still_open = sessions.in_window(Window(day, day), sessions.open_after(day - DAY))
    cells: dict[tuple[Any, ...], Counter[int]] = {}
    for session in ended:
        key = (session.client_token_id, session.model, session.app_version)
        seconds = histograms.rounded(session.seconds)
        cells.setdefault((session.day, False, *key), Counter())[seconds] += 1
        cells.setdefault((session.day, True, *EVERYBODY), Counter())[seconds] += 1
    columns = ("day", "is_total", *KEY)
    rollups = [
        SessionRollup(built_on=day, seconds=histograms.stored(seconds), **dict(zip(columns, key, strict=True)))
        for key, seconds in cells.items()
    ]
    return rollups, [OpenSession(built_on=day, **vars(session)) for session in still_open]


def oldest_day() -> date | None:
    """The day of the oldest raw row."""
    events, turns = AnalyticsEvent.objects.all(), UsageEvent.objects.all()
    oldest = [rows.aggregate(at=Min("created_at"))["at"] for rows in (events, turns)]
    return min((at.date() for at in oldest if at), default=None)
