"""Requests that were refused. They are counted in memory, so that a flood of them does not write to the database."""

import logging
import threading
from collections import Counter
from datetime import UTC, date

from django.db import Error, transaction
from django.db.models import F
from django.utils import timezone

from analytics.causes import cause
from analytics.models import Refusals

logger = logging.getLogger(__name__)

_counted: Counter[tuple[date, int, str]] = Counter()
_lock = threading.Lock()


def count_refusal(client_token_id: int, code: str) -> None:
    """Count one refused request of the client, under the code of its error."""
    day = timezone.now().astimezone(UTC).date()
    with _lock:
        _counted[day, client_token_id, code] += 1


def flush_refusals() -> int:
    """Add what this process has counted to `refusals_daily`, and return how many refusals.

    Where the database fails, the counts stay in memory.
    """
    with _lock:
        counted = dict(_counted)
        _counted.clear()
    try:
        with transaction.atomic():
            # Sorted, so that two processes do not wait for each other.
            for (day, client_token_id, code), count in sorted(counted.items()):
                key = {"day": day, "client_token_id": client_token_id, "code": code}
                Refusals.objects.bulk_create([Refusals(**key)], ignore_conflicts=True)
                Refusals.objects.filter(**key).update(count=F("count") + count)
    except Error:
        with _lock:
            _counted.update(counted)
        raise
    return sum(counted.values())


def flush_at_exit() -> None:
    """Write the counts before the process ends, and log where that fails."""
    try:
        flush_refusals()
    except Error as exc:
        logger.warning("refusals of the last minute are not counted: %s", cause(exc))
