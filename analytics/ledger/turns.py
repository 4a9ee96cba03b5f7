"""Usage rows: one for each call to the upstream, written inside the transactions that open and settle a turn.

The database's clock dates them. A day is built for good SETTLE_GRACE after its end by the same clock, so a row that
is opened or closed before that needs no invalidation.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from analytics.ledger.events import Subject, record_event
from analytics.ledger.invalidation import SETTLE_GRACE, invalidate
from analytics.ledger.prices import cost_nanos
from analytics.models import UsageEvent

Status = UsageEvent.Status
# error_code of rows whose process died; replaced if the turn settles later.
DIED = "abandoned"
# More than a transaction takes from its update of a row to its commit.
COMMIT_MARGIN = timedelta(minutes=10)


@dataclass(frozen=True)
class LlmTokens:
    """What the upstream sold. `cached` and `cache_write` are parts of `prompt`, and `reasoning` of `completion`."""

    prompt: int = 0
    completion: int = 0
    total: int = 0
    cached: int = 0
    reasoning: int = 0
    cache_write: int = 0
    is_estimated: bool = False


@dataclass(frozen=True)
class CloseResult:
    """What closing a row came to. `cost_nanos` None: the price is unknown. `was_abandoned`: it was closed before."""

    cost_nanos: int | None
    was_abandoned: bool = False


def open_usage(subject: Subject, *, is_stream: bool, locked_until: Combinable, reserved: dict[str, int]) -> None:
    """Insert the pending row of a turn. No other process may abandon it before `locked_until`."""
    UsageEvent.objects.create(
        **vars(subject),
        is_stream=is_stream,
        created_at=Now(),
        locked_until=locked_until,
        reserved_json=reserved or None,
    )


def close_usage(
    subject: Subject,
    *,
    status: Status,
    latency_ms: int,
    code: str = "",
    tokens: LlmTokens | None = None,
    called_model: str = "",
    served_model: str = "",
    service_tier: str = "",
    first_token_ms: int | None = None,
) -> CloseResult | None:
    """Close the row of a turn with what was bought, and record how the turn ended.

    `code` names a failure, or what is special about the end of a completed turn. `tokens` may have been bought by a
    failed turn, too; they have the price of the served model and tier. Where no answer named these, they are empty, and
    the price is that of `called_model`, which the upstream was asked for, in the default tier.
    Returns None when the row was closed by an earlier try, whose answer got lost.
    """
    values = {"status": status, "error_code": code, "latency_ms": latency_ms, "first_token_ms": first_token_ms}
    if tokens:
        counts = {f"{kind}_tokens": count for kind, count in vars(tokens).items() if kind != "is_estimated"}
        cost = cost_nanos(
            served_model or called_model or subject.model,
            prompt_tokens=tokens.prompt,
            cached_tokens=tokens.cached,
            cache_write_tokens=tokens.cache_write,
            completion_tokens=tokens.completion,
            service_tier=service_tier,
        )
        values |= {**counts, "is_estimated": tokens.is_estimated, "cost_nanos": cost}
        values |= {"served_model": served_model, "service_tier": service_tier}
    closed = _close(subject.request_id, values)
    if closed and status == Status.COMPLETED:
        total = tokens.total if tokens else 0
        metadata = {"model": served_model, "latency_ms": latency_ms, "total_tokens": total}
        record_event("chat.completed", subject, metadata)
    elif closed and status == Status.FAILED:
        record_event("chat.failed", subject, {"code": code, "latency_ms": latency_ms})
    return closed


def _close(request_id: str, values: dict[str, Any]) -> CloseResult | None:
    values |= {"reserved_json": None, "finished_at": Now()}
    result = CloseResult(values.get("cost_nanos", 0))
    rows = UsageEvent.objects.filter(request_id=request_id)
    # A row that is younger than this is of a day that is not final before this transaction commits.
    if rows.pending().filter(created_at__gt=Now() - (SETTLE_GRACE - COMMIT_MARGIN)).update(**values):
        return result
    if not rows.pending().update(**values):
        if not rows.filter(status=Status.ABANDONED, error_code=DIED).update(**values):
            return None
        result = CloseResult(result.cost_nanos, was_abandoned=True)
    opened: datetime = rows.values_list("created_at", flat=True).get()
    invalidate([opened.astimezone(UTC).date()])
    return result


def renew_leases(request_ids: Collection[str], locked_until: Combinable) -> None:
    """Say that the process of these turns lives: nobody may abandon them before `locked_until`."""
    UsageEvent.objects.pending().filter(request_id__in=request_ids).update(locked_until=locked_until)


def request_cancel(request_id: str, client_token_id: int) -> tuple[str, bool] | None:
    """Note that the client wants a stream stopped.

    Returns the status of its turn, and whether it is a stream; None where it is not the client's.
    """
    own = UsageEvent.objects.filter(request_id=request_id, client_token_id=client_token_id)
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
    invalidate(days)
    return closed


def abandon_stale(now: datetime | Now, *, limit: int) -> list[dict[str, int]]:
    """Abandon at most `limit` pending rows whose lease has ended."""
    return abandon(UsageEvent.objects.stale(now).values_list("request_id", flat=True)[:limit])
