"""Usage rows: one for each call to the upstream, written inside the transactions that open and settle a turn.

The database's clock dates them. A day is built for good SETTLE_GRACE after its end by the same clock, so a row that
is opened or closed before that needs no invalidation.
"""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from analytics.ledger.endings import DIED, Ending, Status
from analytics.ledger.events import Subject, record_event
from analytics.ledger.invalidation import SETTLE_GRACE, invalidate
from analytics.ledger.log import log_turn
from analytics.models import UsageEvent

# The age from which a row may be of a day that is final: more than a transaction takes from its update to its commit.
LATE_AFTER = SETTLE_GRACE - timedelta(minutes=10)


def close_usage(ending: Ending) -> bool | None:
    """Close the row of a turn, and record how it ended, whenever it was opened.

    Returns whether the row had been closed as abandoned before; None where an earlier try, whose answer got lost, has
    closed it.
    """
    was_abandoned = _close(ending.subject.request_id, ending.columns())
    if was_abandoned is not None and (event := ending.event()):
        record_event(event[0], ending.subject, event[1])
    return was_abandoned


def _close(request_id: str, values: dict[str, Any]) -> bool | None:
    values |= {"reserved_json": None, "finished_at": Now()}
    rows = UsageEvent.objects.filter(request_id=request_id)
    # A row that is younger than this is of a day that is not final before this transaction commits.
    if rows.pending().filter(created_at__gt=Now() - LATE_AFTER).update(**values):
        return False
    was_abandoned = not rows.pending().update(**values)
    if was_abandoned and not rows.filter(status=Status.ABANDONED, error_code=DIED).update(**values):
        return None
    opened: datetime = rows.values_list("created_at", flat=True).get()
    invalidate([opened.astimezone(UTC).date()])
    return was_abandoned


def renew_leases(request_ids: Collection[str], locked_until: Combinable) -> None:
    """Say that the process of these turns lives: nobody may abandon them before `locked_until`."""
    UsageEvent.objects.pending().filter(request_id__in=request_ids).update(locked_until=locked_until)


def request_cancel(
    request_id: str, client_token_id: int, user_ids: Collection[str] | None = None
) -> tuple[str, bool] | None:
    """Note that the client wants a stream stopped. With `user_ids`, only one of theirs.

    Returns the status of its turn, and whether it is a stream; None where it is not the client's.
    """
    own = UsageEvent.objects.filter(request_id=request_id, client_token_id=client_token_id)
    if user_ids is not None:
        own = own.filter(user_id__in=user_ids)
    own.pending().filter(is_stream=True).update(is_cancel_asked=True)
    return own.values_list("status", "is_stream").first()


def cancel_requested(request_ids: Collection[str]) -> list[str]:
    """Return those pending turns that their clients want stopped."""
    pending = UsageEvent.objects.pending().filter(request_id__in=request_ids, is_cancel_asked=True)
    return list(pending.values_list("request_id", flat=True))


def abandon(request_ids: Iterable[str]) -> list[dict[str, int]]:
    """Close pending rows whose process died. Returns what each turn that this call closed had reserved of budgets."""
    closed = []
    days = set()
    for row in UsageEvent.objects.pending().filter(request_id__in=list(request_ids)).order_by("pk"):
        own = UsageEvent.objects.pending().filter(pk=row.pk)
        if own.update(status=Status.ABANDONED, error_code=DIED, finished_at=Now()):
            subject = Subject(
                row.request_id, row.client_token_id, row.user_id, row.conversation_id, row.app_version, row.model
            )
            # The user was there when the turn was opened, not when its row is closed.
            record_event("chat.abandoned", subject, created_at=row.created_at)
            closed.append(row.reserved_json or {})
            days.add(row.created_at.astimezone(UTC).date())
            transaction.on_commit(partial(log_turn, Ending(subject, Status.ABANDONED, 0, code=DIED)))
    invalidate(days)
    return closed


def abandon_stale(now: datetime | Now, *, limit: int) -> list[dict[str, int]]:
    """Abandon at most `limit` pending rows whose lease has ended."""
    return abandon(UsageEvent.objects.stale(now).values_list("request_id", flat=True)[:limit])
