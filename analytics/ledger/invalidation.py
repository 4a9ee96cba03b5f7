"""Which days' rollups are stale.

A day is over by the clock of the database, which dates all rows: nodes share it, whatever their own clocks say.
"""

from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta

from django.db import DEFAULT_DB_ALIAS
from django.db.models.functions import Now
from django.db.models.sql import Query

from analytics.models import RollupDay

# Wait this long after midnight UTC before a day is final: turns that began before it are still being settled.
SETTLE_GRACE = timedelta(hours=1)


def database_now() -> datetime:
    """Read the database's clock."""
    query = Query(None)
    query.add_annotation(Now(), "now")
    ((now,),) = query.get_compiler(DEFAULT_DB_ALIAS).results_iter()
    return now.astimezone(UTC)  # type: ignore[no-any-return]


def invalidate(days: Collection[date]) -> None:
    """Make the rollups of these days stale, whether they are built or are being built, because raw rows change.

    A day that goes on is left alone: it is built again when it is over. To be called inside the transaction that
    changes the rows.
    """
    today = database_now().date() if days else None
    for day in sorted(days):
        if today and day < today:
            # Inserted here, the row makes whoever builds the day for the first time wait for our commit, and see it.
            RollupDay.objects.bulk_create([RollupDay(day=day)], ignore_conflicts=True)
            RollupDay.objects.filter(day=day).note_change()
