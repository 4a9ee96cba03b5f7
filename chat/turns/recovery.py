"""Turns whose process died: any other process closes them."""

from datetime import datetime

from django.db import transaction
from django.db.models.functions import Now

from analytics import instruments, ledger
from chat.limits.reservations import release
from chat.models import IdempotencyKey


def settle_all_abandoned(now: datetime | None = None, *, batch: int = 500) -> tuple[int, int]:
    """Close turns that died, as of `now` or of the database's clock, and free their keys. Returns how many of each.

    This takes short transactions. Keys and rows have their own, because a turn locks its key first, and then its row.
    """
    closed = freed = 0
    while True:
        stale = IdempotencyKey.objects.stale(now or Now())
        keys, _ = stale.filter(pk__in=list(stale.values_list("pk", flat=True)[:batch])).delete()
        with transaction.atomic():
            abandoned = ledger.abandon_stale(now or Now(), limit=batch)
            release(abandoned)
        instruments.ABANDONED_TURNS.inc(len(abandoned))
        if not keys and not abandoned:
            return closed, freed
        closed, freed = closed + len(abandoned), freed + keys
