"""Delete raw rows past RAW_RETENTION_DAYS, day by day. Their rollups stay, and are then all that is left of them.

Where the ledger is partitioned by month, days are purged only when their whole month is over, and it is dropped.

A day is sealed before its first row is deleted: from then on it is not built again. Neither is the day after it,
whose replays are computed from the turns of the day before.
"""

import logging
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from analytics.ledger import partitions, sums
from analytics.models import AnalyticsEvent, RollupDay, UsageEvent
from analytics.query import DAY, Period, days_between

logger = logging.getLogger(__name__)

# Rows deleted in one transaction: a few dozen milliseconds, after which others can write.
BATCH = 1000
# SQLite gives its one lock to whoever asks first, so others need a moment in which to ask.
PAUSE_SECONDS = 0.01
# Seconds for which the server's job deletes before it lets other jobs run.
JOB_SECONDS = 10
TABLES: dict[str, type[UsageEvent] | type[AnalyticsEvent]] = {
    "usage events": UsageEvent,
    "analytics events": AnalyticsEvent,
}


class NotYet(Exception):
    """The rows of a day are still needed. The message says what for."""


def run_due(now: datetime) -> int:
    """Delete what is due, for JOB_SECONDS at most. Returns how many rows were deleted."""
    deadline = time.monotonic() + JOB_SECONDS
    deleted = 0
    try:
        for day in expired(now):
            for _, count in purge_day(day):
                deleted += count
                if time.monotonic() >= deadline:
                    return deleted
    except NotYet as exc:
        logger.info("raw rows are kept: %s", exc)
    return deleted


def expired(now: datetime) -> list[date]:
    """Return the days whose raw rows are past their time, oldest first."""
    if not settings.RAW_RETENTION_DAYS:
        return []
    last = now.astimezone(UTC).date() - timedelta(days=settings.RAW_RETENTION_DAYS + 1)
    first = sums.oldest_day()
    if partitions.is_partitioned():
        last = (last + DAY).replace(day=1) - DAY
    return list(days_between(first, last)) if first else []


def purge_day(day: date) -> Iterator[tuple[str, int]]:
    """Delete the day's rows, each batch in a transaction of its own. Yields what was deleted, and how many.

    The rows of a month that is a partition go together with its last day's: those before are sealed by then.
    """
    seal(day)
    for what, table in TABLES.items():
        if month := partitions.month_of(table._meta.db_table, day):
            if (day + DAY).month != day.month:
                yield what, partitions.drop(month)
            continue
        rows = table.objects.filter(Period(day, day).instants)
        while batch := list(rows.values_list("pk", flat=True)[:BATCH]):
            yield what, rows.filter(pk__in=batch).delete()[0]
            time.sleep(PAUSE_SECONDS)


def seal(day: date) -> None:
    """Mark the day so that it is never built again. Raises NotYet while its rows are still needed."""
    if RollupDay.objects.filter(pk=day, purged_at__isnull=False).exists():
        return
    with transaction.atomic():
        # Locked by day, the order of everyone who locks several: a builder has committed by now, or waits for us.
        for needed in (day, day + DAY):
            settled = RollupDay.objects.built().filter(pk=needed, changes=F("built_changes"), is_partial=False)
            if not settled.update(changes=F("changes")):
                raise NotYet(f"those of {day} wait for the rollups of {needed}.")
        if UsageEvent.objects.pending().filter(Period(day, day).instants).exists():
            raise NotYet(f"turns of {day} are pending.")
        RollupDay.objects.filter(pk=day).update(purged_at=timezone.now())
