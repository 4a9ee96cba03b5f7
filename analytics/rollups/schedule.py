"""Which days are built when: by the server's job every minute, by `manage.py rollup`, and before figures are read."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

from django.db import connections, router

from analytics.ledger import sums
from analytics.models import RollupDay, UserDay
from analytics.query import DAY, days_between, midnight
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


# Written out, because every reader asks it: the ORM takes several milliseconds to compose it.
# A pending turn may have ended since: with an event, or without one where another turn took its key over. An event of a
# client may be hours old when it arrives, and a turn that was given up may end after all.
CHANGED = """
    SELECT EXISTS (SELECT 1 FROM analytics_events WHERE created_at > %(young)s)
        OR EXISTS (SELECT 1 FROM usage_events WHERE created_at > %(young)s)
        OR EXISTS (SELECT 1 FROM usage_rollups WHERE grain = 'total' AND day = %(day)s AND pending > 0)
        OR (SELECT count(*) FROM analytics_events WHERE created_at >= %(start)s AND created_at < %(end)s)
            <> (SELECT coalesce(sum(events), 0) FROM user_days WHERE day = %(day)s)
        OR EXISTS (
            SELECT 1 FROM usage_events
            WHERE created_at >= %(start)s AND created_at < %(end)s AND finished_at > %(young)s
        )
"""


def run_due(now: datetime) -> int:
    """Build what is due, for JOB_SECONDS at most. Returns how many days were built."""
    deadline = time.monotonic() + JOB_SECONDS
    built = 0
    for day in days_of_job(now):
        if time.monotonic() >= deadline:
            break
        built += build_day(day)
    return built


def days_of_job(now: datetime) -> Iterator[date]:
    just_built = RollupDay.objects.built().filter(built_at__gt=now - PAUSE, is_partial=False)
    recent = set(just_built.values_list("day", flat=True))
    yield from (day for day in due(now) if day not in recent)
    # Read only now, because what goes on follows what has just been built.
    yield from open_days(now, list(RollupDay.objects.unsettled()))


def due(now: datetime) -> list[date]:
    """Return the days that are final and have no rollups or stale ones, oldest first: each continues the one before."""
    last = last_final_day(now)
    stale = RollupDay.objects.stale().filter(day__lte=last).values_list("day", flat=True)
    built = set(RollupDay.objects.built().values_list("day", flat=True))
    # A client's event may be older than the first day that was built.
    first = min((day for day in (*built, sums.oldest_day()) if day), default=None)
    missing = {day for day in days_between(first, last) if day not in built} if first else set()
    return sorted({*missing, *stale})


def open_days(now: datetime, unsettled: Sequence[RollupDay]) -> Iterator[date]:
    """Yield the days that go on and have changed since they were built: today, and for an hour also yesterday.

    Also yields the days after the last one that was built. `unsettled` are the rows of RollupDayQuerySet.unsettled.
    """
    final = last_final_day(now)
    for row in unsettled:
        if row.is_partial and (row.day <= final or has_changed(row)):
            yield row.day
    today = now.astimezone(UTC).date()
    first = unsettled[-1].day + DAY if unsettled else min(sums.oldest_day() or today, today)
    yield from days_between(first, today)


def has_changed(row: RollupDay) -> bool:
    """Whether a day that goes on may have other rows than when it was built."""
    assert row.built_at is not None
    start, young = midnight(row.day), row.built_at - COMMIT_TIME
    instants = {"young": young, "start": start, "end": start + DAY}
    connection = connections[router.db_for_read(RollupDay)]
    values = {name: connection.ops.adapt_datetimefield_value(at) for name, at in instants.items()}
    with connection.cursor() as cursor:
        cursor.execute(CHANGED, {**values, "day": connection.ops.adapt_datefield_value(row.day)})
        return row.changes != row.built_changes or bool(cursor.fetchone()[0])


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
