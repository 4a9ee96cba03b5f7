"""As of when the rollups are, which is as of when every figure is."""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from django.db import OperationalError
from django.utils import timezone

from analytics import replica
from analytics.causes import cause
from analytics.fairness import Busy, Share
from analytics.ledger import sums
from analytics.models import RollupDay
from analytics.query import DAY, midnight
from analytics.rollups.schedule import is_cheap, open_days
from analytics.rollups.store import build_day

logger = logging.getLogger(__name__)

# Seconds that a reader spends on days that are not built: most often there is one, today. And as many that it waits for
# others, of whom one in a process builds at a time: each takes up to 100 ms of the processor and a connection.
READER_SECONDS = 0.5
READERS = "readers"
builds = Share(lambda: 1, patience=READER_SECONDS, most_waiting=1000)


@dataclass(frozen=True)
class Coverage:
    """Nothing that was settled before `computed_at` is missing in the rollups."""

    computed_at: datetime

    @classmethod
    def of(cls, unsettled: Sequence[RollupDay], *, checked_at: datetime | None = None) -> Self:
        """Tell it from the rows of RollupDayQuerySet.unsettled.

        `checked_at` is when the days that go on were found to be current, however long ago they were built.
        """
        now = timezone.now()
        ends = [row.built_at if row.is_partial else row.changed_at for row in unsettled]
        if checked_at:
            ends = [checked_at, *(row.changed_at for row in unsettled if not row.is_partial)]
        # Days are built in order, so every day before the last has rollups too.
        missing = unsettled[-1].day + DAY if unsettled else sums.oldest_day()
        if missing and missing <= now.astimezone(UTC).date():
            ends.append(midnight(missing))
        return cls(min([now, *(end for end in ends if end)]))

    @property
    def as_of(self) -> str:
        """A sentence for people; empty where nothing of the last minute is missing."""
        is_old = timezone.now() - self.computed_at > timedelta(minutes=1)
        return f"As of {self.computed_at:%Y-%m-%d %H:%M} UTC." if is_old else ""


def bring_up_to_date() -> Coverage:
    """Build the days that go on, where that is cheap, and say as of when the rollups are.

    To be called before figures are read: two statements where nothing has changed. A day of many rows is left to the
    server's job, which builds it every minute. So is every day where a replica is read: nothing can be built there.
    """
    if replica.is_reading():
        return coverage_of_replica()
    # Whoever waits holds no connection meanwhile, and finds what the one before has built. Whoever waits too long gets
    # what is there, which is being built for the others.
    with suppress(Busy), builds.held(READERS):
        return build_open_days(timezone.now())
    return Coverage.of(list(RollupDay.objects.unsettled()))


def build_open_days(started: datetime) -> Coverage:
    deadline = time.monotonic() + READER_SECONDS
    unsettled = list(RollupDay.objects.unsettled())
    try:
        for day in open_days(started, unsettled):
            # A build of somebody else may have read the day's rows before we came.
            if time.monotonic() >= deadline or not is_cheap(day) or not build_day(day):
                break
            unsettled = []
        else:
            return Coverage.of(unsettled or list(RollupDay.objects.unsettled()), checked_at=started)
    except OperationalError as exc:
        # What is there can still be read, and says how old it is.
        logger.warning("rollups could not be built for a reader: %s", cause(exc))
    return Coverage.of(list(RollupDay.objects.unsettled()))


def coverage_of_replica() -> Coverage:
    """Say as of when the replica's rollups are: of its newest commit, if no row of it is missing in them."""
    replayed_to = replica.replayed_to()
    unsettled = list(RollupDay.objects.unsettled())
    is_current = next(open_days(replayed_to, unsettled), None) is None
    return Coverage.of(unsettled, checked_at=replayed_to if is_current else None)
