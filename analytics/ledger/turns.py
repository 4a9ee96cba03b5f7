"""Usage rows: one for each call to the upstream, written inside the transactions that open and settle a turn.

The database's clock dates them. A day is built for good SETTLE_GRACE after its end by the same clock, so a row that
is opened or closed before that needs no invalidation.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from analytics import instruments
from analytics.ledger.events import Subject, record_event
from analytics.ledger.invalidation import SETTLE_GRACE, invalidate
from analytics.ledger.prices import cost_nanos
from analytics.models import UsageEvent

Status = UsageEvent.Status
# error_code of rows whose process died; replaced if the turn settles later.
DIED = "abandoned"
# The age from which a row may be of a day that is final: more than a transaction takes from its update to its commit.
LATE_AFTER = SETTLE_GRACE - timedelta(minutes=10)


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
class Ending:
    """How a turn ended, and what was bought for it.

    `code` names a failure, or what is special about the end of a completed turn. `tokens` may have been bought by a
    failed turn, too; they have the price of the served model and tier. Where no answer named these, they are empty, and
    the price is that of `called_model`, which the upstream was asked for, in the default tier.
    """

    subject: Subject
    status: Status
    latency_ms: int
    code: str = ""
    tokens: LlmTokens | None = None
    called_model: str = ""
    served_model: str = ""
    service_tier: str = ""
    first_token_ms: int | None = None

    @cached_property
    def cost_nanos(self) -> int | None:
        """What the tokens cost; None where their price is unknown."""
        if self.tokens is None:
            return None
        return cost_nanos(
            self.served_model or self.called_model or self.subject.model,
            prompt_tokens=self.tokens.prompt,
            cached_tokens=self.tokens.cached,
            cache_write_tokens=self.tokens.cache_write,
            completion_tokens=self.tokens.completion,
            service_tier=self.service_tier,
        )

    def columns(self) -> dict[str, Any]:
        """Return the columns of the usage row that are known once its turn has ended."""
        tokens = self.tokens or LlmTokens()
        return {
            "status": self.status.value,
            "error_code": self.code,
            "latency_ms": self.latency_ms,
            "first_token_ms": self.first_token_ms,
            "prompt_tokens": tokens.prompt,
            "cached_tokens": tokens.cached,
            "cache_write_tokens": tokens.cache_write,
            "completion_tokens": tokens.completion,
            "reasoning_tokens": tokens.reasoning,
            "total_tokens": tokens.total,
            "is_estimated": tokens.is_estimated,
            "cost_nanos": self.cost_nanos,
            "served_model": self.served_model if self.tokens else "",
            "service_tier": self.service_tier if self.tokens else "",
        }

    def event(self) -> tuple[str, dict[str, Any]] | None:
        """Return the name and the metadata of the event that tells the ending; None for an abandoned turn."""
        if self.status == Status.COMPLETED:
            total = self.tokens.total if self.tokens else 0
            metadata = {"model": self.served_model, "latency_ms": self.latency_ms, "total_tokens": total}
            return "chat.completed", metadata
        if self.status == Status.FAILED:
            return "chat.failed", {"code": self.code, "latency_ms": self.latency_ms}
        return None

    def observe(self) -> None:
        """Count the ending for Prometheus, once it is written down."""
        model = instruments.model_label(self.subject.model)
        instruments.of(instruments.TURNS, model, self.status.value).observe(self.latency_ms / 1000)
        if self.status == Status.FAILED:
            instruments.of(instruments.FAILED_TURNS, model, self.code).inc()
        if self.first_token_ms is not None:
            instruments.of(instruments.FIRST_TOKENS, model).observe(self.first_token_ms / 1000)
        if self.tokens:
            for kind in ("prompt", "cached", "completion", "reasoning"):
                if count := getattr(self.tokens, kind):
                    instruments.of(instruments.TURN_TOKENS, model, kind).inc(count)
            if self.cost_nanos:
                instruments.of(instruments.TURN_COST, model).inc(self.cost_nanos / 1e9)


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
