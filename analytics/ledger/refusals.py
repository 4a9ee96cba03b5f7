"""Requests that were refused: counted in memory, because a flood of them must not write to the database."""

import logging
import threading
from collections import Counter
from datetime import UTC, date

from django.db import Error, transaction
from django.db.models import F
from django.utils import timezone

from analytics.models import Refusals

logger = logging.getLogger(__name__)

_counted: Counter[tuple[date, int, str]] = Counter()
_lock = threading.Lock()


def count_refusal(client_token_id: int, code: str) -> None:
    """Count one request of the client that was refused now, with the error's code."""
    day = timezone.now().astimezone(UTC).date()
    with _lock:
        _counted[day, client_token_id, code] += 1


def flush_refusals() -> int:
    """Add what this process has counted to `refusals_daily`; how many refusals. Nothing is lost where that fails."""
    with _lock:
        counted = dict(_counted)
        _counted.clear()
    try:
        with transaction.atomic():
            _add(counted)
    except Error:
        with _lock:
            _counted.update(counted)
        raise
    return sum(counted.values())


def _add(counted: dict[tuple[date, int, str], int]) -> None:
    # Sorted, so that no two processes wait for each other.
    for (day, client_token_id, code), count in sorted(counted.items()):
        key = {"day": day, "client_token_id": client_token_id, "code": code}
        Refusals.objects.bulk_create([Refusals(**key)], ignore_conflicts=True)
        Refusals.objects.filter(**key).update(count=F("count") + count)


def flush_at_exit() -> None:
    try:
        flush_refusals()
    except Error as exc:
        logger.warning("refusals of the last minute are not counted: %s", type(exc).__name__)
