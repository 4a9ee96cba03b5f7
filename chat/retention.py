"""What is deleted when its time is over, in batches, so that no lock is long."""

from datetime import datetime, timedelta
from typing import Any

from django.contrib.sessions.models import Session
from django.db.models import QuerySet

from chat.models import Budget, IdempotencyKey, RateLimit
from chat.turns.idempotency import KEPT

BATCH = 1000


def purge_expired(now: datetime) -> dict[str, int]:
    """Delete; how many of each."""
    keys = IdempotencyKey.objects.filter(created_at__lt=now - KEPT, locked_until__lt=now)
    limits = RateLimit.objects.filter(theoretical_arrival__lt=now.timestamp())
    # Two days after its end no turn of a period still runs.
    budgets = Budget.objects.filter(resets_at__lt=now - timedelta(days=2))
    sessions = Session.objects.filter(expire_date__lt=now)
    return {
        "idempotency keys": delete_in_batches(keys),
        "rate limits at rest": delete_in_batches(limits),
        "budgets that are over": delete_in_batches(budgets),
        "sessions": delete_in_batches(sessions),
    }


def delete_in_batches(rows: QuerySet[Any]) -> int:
    deleted = 0
    while batch := list(rows.values_list("pk", flat=True)[:BATCH]):
        # The condition again: a row may have come back to life since it was listed.
        deleted += rows.filter(pk__in=batch).delete()[0]
    return deleted
