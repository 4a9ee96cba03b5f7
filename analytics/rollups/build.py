"""Compute the rollups of one day from its raw rows. Nothing is written here."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from itertools import chain
from typing import Any

from analytics.cooperative import taking_breaks
from analytics.histograms import Histogram
from analytics.ledger import sums
from analytics.models import ActivityRollup, Milestone, OpenSession, SessionRollup, SignUp, UsageRollup, UserDay
from analytics.query import DAY
from analytics.rollups import activity, sessions
from analytics.rollups.activity import EVERYBODY, KEY

Grain = UsageRollup.Grain


@dataclass
class Cell:
    """The sums of usage rows of one key."""

    figures: Counter[str] = field(default_factory=Counter)
    latency_ms: Histogram = field(default_factory=Histogram)
    first_token_ms: Histogram = field(default_factory=Histogram)
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Cell") -> None:
        self.figures.update(other.figures)
        self.failures.update(other.failures)
        self.latency_ms.merge(other.latency_ms)
        self.first_token_ms.merge(other.first_token_ms)

    def row(self, day: date, grain: str, key: tuple[Any, ...]) -> UsageRollup:
        return UsageRollup(
            day=day,
            grain=grain,
            **dict(zip(KEY, key, strict=True)),
            **self.figures,
            latency_ms=self.latency_ms.stored(),
            first_token_ms=self.first_token_ms.stored(),
            failures=dict(self.failures),
        )


@dataclass(frozen=True)
class Day:
    """All rollup rows of one day, not yet saved."""

    day: date
    usage: list[UsageRollup]
    users: list[UserDay]
    activity: list[ActivityRollup]
    sessions: list[SessionRollup]
    open_sessions: list[OpenSession]

    @classmethod
    def read(cls, day: date) -> "Day":
        users = user_days(day)
        return cls(day, usage_rollups(day), users, activity.of_day(day, users), *session_rows(day))


def usage_rollups(day: date) -> list[UsageRollup]:
    """Return the day's usage at every grain."""
    cells: dict[tuple[Any, ...], Cell] = {}

    def cell(row: dict[str, Any]) -> Cell:
        return cells.setdefault(tuple(row.pop(name) for name in KEY), Cell())

    for row in sums.usage(day, *KEY):
        cell(row).figures.update(row)
    if cells:  # a day without turns has neither
        for row, code, count in sums.failures(day, *KEY):
            cell(row).failures[code] += count
        for column in ("latency_ms", "first_token_ms"):
            for row, milliseconds, count in taking_breaks(sums.durations(day, column, *KEY)):
                getattr(cell(row), column).add(milliseconds, count)
    for row in sums.counted(day, *KEY):
        cell(row).figures.update(row)
    for key, figures in sums.replays(day):
        cells.setdefault(key, Cell()).figures.update(figures)
    # A day without turns has a total, too.
    coarse = {(Grain.TOTAL, EVERYBODY): Cell()}
    for (_, model, _), found in cells.items():
        coarse[Grain.TOTAL, EVERYBODY].add(found)
        coarse.setdefault((Grain.MODEL, (0, model, "")), Cell()).add(found)
    rows = [found.row(day, Grain.FULL, key) for key, found in cells.items()]
    return rows + [found.row(day, grain, key) for (grain, key), found in coarse.items()]


def user_days(day: date) -> list[UserDay]:
    """Return what each user did and bought, by client, model and version."""
    columns = ("client_token_id", "user_id", "model", "app_version")
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    bought = (row for row in sums.usage(day, *columns, figures=sums.BOUGHT) if row["sold"])
    for row in taking_breaks(chain(sums.user_events(day, *columns), bought)):
        rows.setdefault(tuple(row[name] for name in columns), {}).update(row)
    users = [UserDay(day=day, **row) for row in taking_breaks(rows.values())]
    active = {row.user_id for row in users if row.turns}
    on_day = sums.event_rows(day).filter(event_name=sums.TURN).values("user_id")
    seen = Milestone.objects.filter(first_day__lt=day, user_id__in=on_day)
    first_days = dict(seen.values_list("user_id", "first_day"))
    before = SignUp.objects.filter(day__lt=day, user_id__in=on_day)
    signed_in = {*before.values_list("user_id", flat=True), *sums.signed_up(day)}
    for user in users:
        user.is_signed_in = user.user_id in signed_in
        if user.user_id in active:
            user.age_days = (day - first_days.get(user.user_id, day)).days
    return users


def session_rows(day: date) -> tuple[list[SessionRollup], list[OpenSession]]:
    """Return the sessions that ended on the day, by the day they began, and those still open at its end."""
    ended, still_open = sessions.of_day(day, sessions.open_after(day - DAY))
    cells: dict[tuple[Any, ...], Histogram] = {}
    for session in taking_breaks(ended):
        key = (session.client_token_id, session.model, session.app_version)
        cells.setdefault((session.day, False, *key), Histogram()).add(session.seconds)
        cells.setdefault((session.day, True, *EVERYBODY), Histogram()).add(session.seconds)
    columns = ("day", "is_total", *KEY)
    rollups = [
        SessionRollup(built_on=day, seconds=seconds.stored(), **dict(zip(columns, key, strict=True)))
        for key, seconds in cells.items()
    ]
    return rollups, [OpenSession(built_on=day, **vars(session)) for session in still_open]
