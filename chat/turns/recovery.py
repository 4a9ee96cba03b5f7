"""Turns whose process died: any other process closes them."""

from datetime import datetime

from django.db import transaction
from django.db.models.functions import Now

from analytics import ledger
from chat.limits.reservations import release
from chat.models import IdempotencyKey


def settle_abandoned(now: datetime | Now, *, limit: int = 500) -> tuple[int, int]:
    """Close at most `limit` turns that died, and free at most as many keys. Returns how many of each."""
    # Keys and rows in transactions of their own, because a turn locks its key first, and then its row.
    stale = list(IdempotencyKey.objects.stale(now).values_list("pk", flat=True)[:limit])
    freed, _ = IdempotencyKey.objects.stale(now).filter(pk__in=stale).delete()
    with transaction.atomic():
        abandoned = ledger.abandon_stale(now, limit=limit)
        release(abandoned)
    return len(abandoned), freed


def settle_all_abandoned(now: datetime | None = None) -> tuple[int, int]:
    """Do the same in short transactions until nothing is left, as of `now` or of the database's clock."""
    total_closed = total_freed = 0
    while any(batch := settle_abandoned(now or Now())):
        total_closed += batch[0]
        total_freed += batch[1]
    return total_closed, total_freed
