"""Which days are built when: by the server's job every minute, by `manage.py rollup`, and before figures are read."""

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import chain

from analytics.ledger import sums
from analytics.models import AnalyticsEvent, RollupDay, UsageEvent, UsageRollup, UserDay
from analytics.query import DAY, days_between
from analytics.rollups.store import build_day, last_final_day, sealed_to

# Clients send what they saw yesterday all day long: a final day is not built again for each of their events.
PAUSE = timedelta(minutes=15)
# Seconds for which the server's job builds before it lets other jobs run.
JOB_SECONDS = 10
# A row may be committed so long after the time in it: an open day is built again if it has rows that are so young.
COMMIT_TIME = timedelta(seconds=10)
# Rows that a reader's build may take: with more of either it takes longer than some 100 ms, and is left to the job.
CHEAP_EVENTS = 500
CHEAP_USER_DAYS = 5000


def run_due(now: datetime) -> int:
    """Build what is due, for JOB_SECONDS at most. Returns how many days were built."""
    deadline = time.monotonic() + JOB_SECONDS
    built = 0
    just_built = RollupDay.objects.built().filter(built_at__gt=now - PAUSE, is_partial=False)
    recent = set(just_built.values_list("day", flat=True))
    # Lazily, because the days that go on are chosen by what has been built before them.
    for day in chain((day for day in due(now) if day not in recent), open_days(now)):
        if time.monotonic() >= deadline:
            break
        built += build_day(day)
    return built


def due(now: datetime) -> list[date]:
    """Return the days that are final and have no rollups or stale ones, oldest first: each continues the one before."""
    last = last_final_day(now)
    stale = RollupDay.objects.stale().filter(day__lte=last).values_list("day", flat=True)
    built = set(RollupDay.objects.built().values_list("day", flat=True))
    # A client's event may be older than the first day that was built.
    first = min((day for day in (*built, sums.oldest_day()) if day), default=None)
    missing = {day for day in days_between(first, last) if day not in built} if first else set()
    return sorted({*missing, *stale})


def open_days(now: datetime) -> Iterator[date]:
    """Yield the days that are not final yet and have changed since they were built: today, for an hour also yesterday.

    Also yields final days that nobody has built so far, where they follow the last one that was.
    """
    recent = list(RollupDay.objects.built().order_by("-day")[:3])
    final = last_final_day(now)
    for row in reversed(recent):
        if row.is_partial and (row.day <= final or has_changed(row)):
            yield row.day
    today = now.astimezone(UTC).date()
    first = recent[0].day + DAY if recent else min(sums.oldest_day() or today, today)
    yield from days_between(first, today)


def has_changed(row: RollupDay) -> bool:
    """Whether an open day may have other rows than when it was built."""
    assert row.built_at is not None
    if row.changes != row.built_changes:
        return True
    young = {"created_at__gt": row.built_at - COMMIT_TIME}
    if AnalyticsEvent.objects.filter(**young).exists() or UsageEvent.objects.filter(**young).exists():
        return True
    # A pending turn may have ended since, with an event or, where another turn took its key over, without one.
    return UsageRollup.objects.filter(day=row.day, grain=UsageRollup.Grain.TOTAL, pending__gt=0).exists()


def is_cheap(day: date) -> bool:
    """Whether a reader can wait for the day to be built: its rows, and its users' days of the month before, are few."""
    if sums.event_rows(day)[CHEAP_EVENTS : CHEAP_EVENTS + 1].exists():
        return False
    month = UserDay.objects.filter(day__gt=day - 30 * DAY, day__lt=day, turns__gt=0).order_by()
    return not month[CHEAP_USER_DAYS : CHEAP_USER_DAYS + 1].exists()


def days_to_build(now: datetime, first: date | None, last: date | None, *, rebuild: bool) -> list[date]:
    """Return what is due up to `last`; with `rebuild` also what was built from `first` on and can be built again."""
    last = min(last or last_final_day(now), last_final_day(now))
    built = RollupDay.objects.built().filter(day__gte=first or date.min) if rebuild else RollupDay.objects.none()
    again = built.filter(day__gt=sealed_to()).values_list("day", flat=True)
    return sorted(day for day in {*due(now), *again} if day <= last)
