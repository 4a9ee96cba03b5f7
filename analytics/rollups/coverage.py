"""As of when the rollups are, which is as of when every figure is."""

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from django.db import OperationalError
from django.db.models import Max, Min, Q
from django.utils import timezone

from analytics.ledger import sums
from analytics.models import RollupDay
from analytics.query import DAY, midnight
from analytics.rollups.schedule import is_cheap, open_days
from analytics.rollups.store import build_day

logger = logging.getLogger(__name__)

# Seconds that a reader spends on days that are not built: most often there is one, today.
READER_SECONDS = 0.5


@dataclass(frozen=True)
class Coverage:
    """Nothing that was settled before `computed_at` is missing in the rollups."""

    computed_at: datetime

    @classmethod
    def read(cls, *, checked_at: datetime | None = None) -> Self:
        """Read when the rollups were built. `checked_at` says when the days that go on were found to be current."""
        now = timezone.now()
        found = RollupDay.objects.built().aggregate(
            last=Max("day"),
            open_built_at=Min("built_at", filter=Q(is_partial=True)),
            changed_at=Min("changed_at", filter=Q(is_partial=False)),
        )
        # Days are built in order, so every day before the last has rollups too.
        missing = found["last"] + DAY if found["last"] else sums.oldest_day()
        ends = [checked_at or found["open_built_at"], found["changed_at"]]
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

    To be called before figures are read. A day of many rows is left to the server's job, which builds it every minute.
    """
    started = timezone.now()
    deadline = time.monotonic() + READER_SECONDS
    try:
        for day in open_days(started):
            if time.monotonic() >= deadline or not is_cheap(day):
                return Coverage.read()
            build_day(day)
    except OperationalError as exc:
        # What is there can still be read, and says how old it is; unless the database is away, which is told next.
        found = Coverage.read()
        logger.warning("rollups could not be built for a reader: %s", type(exc).__name__)
        return found
    return Coverage.read(checked_at=started)
