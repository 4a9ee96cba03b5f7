"""Raw rows past RAW_RETENTION_DAYS, deleted day by day: the rollups of their days stay, and are all that is left.

A day is sealed before its first row goes: from then on neither it nor the day after it, whose replays look at the
turns of the day before, is built again.
"""

import logging
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from analytics.ledger import sums
from analytics.models import AnalyticsEvent, RollupDay, UsageEvent
from analytics.query import DAY, Period, days_between

logger = logging.getLogger(__name__)

# Rows a transaction: a few dozen milliseconds, after which others have their turn.
BATCH = 1000
# SQLite deals its one lock out to whoever asks first.
PAUSE_SECONDS = 0.01
# How long the server's chore deletes before it lets other chores run.
CHORE_SECONDS = 10
TABLES: dict[str, type[UsageEvent] | type[AnalyticsEvent]] = {
    "usage events": UsageEvent,
    "analytics events": AnalyticsEvent,
}


class NotYet(Exception):
    """The rows of a day are still needed; the message says what for."""


def run_due(now: datetime) -> int:
    """Delete what is due, for a while; how many rows."""
    deadline = time.monotonic() + CHORE_SECONDS
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
    """The days whose raw rows are past their time, in order, from the oldest that has any."""
    if not settings.RAW_RETENTION_DAYS:
        return []
    last = now.astimezone(UTC).date() - timedelta(days=settings.RAW_RETENTION_DAYS + 1)
    first = sums.oldest_day()
    return list(days_between(first, last)) if first else []


def purge_day(day: date) -> Iterator[tuple[str, int]]:
    """Delete the day's rows, each batch in a transaction of its own: what was deleted, and how many."""
    seal(day)
    for what, table in TABLES.items():
        rows = table.objects.filter(Period(day, day).instants)
        while batch := list(rows.values_list("pk", flat=True)[:BATCH]):
            yield what, rows.filter(pk__in=batch).delete()[0]
            time.sleep(PAUSE_SECONDS)


def seal(day: date) -> None:
    """See that nothing of the day is left to be built, and let it never be built again."""
    if RollupDay.objects.filter(pk=day, purged_at__isnull=False).exists():
        return
    with transaction.atomic():
        # Locked in the order of all others, so that whoever builds or changes one of them has done so, or waits.
        for needed in (day, day + DAY):
            settled = RollupDay.objects.built().filter(pk=needed, changes=F("built_changes"), is_partial=False)
            if not settled.update(changes=F("changes")):
                raise NotYet(f"those of {day} wait for the rollups of {needed}.")
        if UsageEvent.objects.pending().filter(Period(day, day).instants).exists():
            raise NotYet(f"turns of {day} are pending.")
        RollupDay.objects.filter(pk=day).update(purged_at=timezone.now())
