"""Rows that are deleted when their time is over, in batches, so that no lock is held for long."""

from datetime import datetime, timedelta
from typing import Any

from django.contrib.sessions.models import Session
from django.db.models import QuerySet

from chat.models import KEY_TTL, Budget, ClientSession, IdempotencyKey, RateLimit, SigningKey

BATCH = 1000


def purge_expired(now: datetime) -> dict[str, int]:
    """Delete what has expired, and return how many rows of each kind."""
    expired: dict[str, QuerySet[Any]] = {
        "idempotency keys": IdempotencyKey.objects.filter(created_at__lt=now - KEY_TTL, locked_until__lt=now),
        "rate limits at rest": RateLimit.objects.filter(theoretical_arrival__lt=now.timestamp()),
        # Two days after the end of a period none of its turns still runs.
        "budgets that are over": Budget.objects.filter(resets_at__lt=now - timedelta(days=2)),
        "sessions of people": ClientSession.objects.filter(expires_at__lt=now),
        "signing keys": SigningKey.objects.filter(retires_at__lt=now),
        "sessions": Session.objects.filter(expire_date__lt=now),
    }
    return {kind: delete_in_batches(rows) for kind, rows in expired.items()}


def delete_in_batches(rows: QuerySet[Any]) -> int:
    deleted = 0
    while batch := list(rows.values_list("pk", flat=True)[:BATCH]):
        # The condition is asked again: a row may have been renewed since it was listed.
        deleted += rows.filter(pk__in=batch).delete()[0]
    return deleted
