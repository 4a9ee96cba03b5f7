"""The write side of the ledger: called inside the transactions that open and settle a turn."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.db.models.expressions import Combinable
from django.db.models.functions import Now
from django.utils import timezone

from analytics.ledger.prices import cost_nanos
from analytics.ledger.refusals import count_refusal as count_refusal
from analytics.ledger.refusals import flush_refusals as flush_refusals
from analytics.models import AnalyticsEvent, RollupDay, UsageEvent

Status = UsageEvent.Status
# What the rows of dead processes say, until somebody learns better.
GIVEN_UP = "abandoned"
# After its end a day is not built for so long, because turns of it are still being settled.
SETTLING = timedelta(hours=1)
# By how much clocks of nodes may be wrong.
CLOCKS = timedelta(hours=2)
# More than lies between a row's `created_at` and the start of its latency, and between that one's end and the commit.
SLACK = timedelta(minutes=10)


@dataclass(frozen=True)
class Tokens:
    """What the upstream sold; `cached` is part of `prompt`, and `reasoning` of `completion`."""

    prompt: int = 0
    completion: int = 0
    total: int = 0
    cached: int = 0
    reasoning: int = 0
    is_estimated: bool = False


@dataclass(frozen=True)
class Subject:
    """Whom and what a row is about."""

    request_id: str
    client_token_id: int
    user_id: str
    conversation_id: str = ""
    app_version: str = ""


@dataclass(frozen=True)
class Closed:
    """A row that was closed: for how much money (None: the price is unknown), and whether it had been given up."""

    cost_nanos: int | None
    was_abandoned: bool = False


@dataclass(frozen=True)
class Abandoned:
    """A row that was given up, and what it had reserved."""

    request_id: str
    reserved: dict[str, int]


def highest_cost(model: str, *, prompt_tokens: int, completion_tokens: int) -> int | None:
    """What a turn can cost at most, in billionths of a dollar; None where the price is unknown."""
    return cost_nanos(model, prompt_tokens=prompt_tokens, cached_tokens=0, completion_tokens=completion_tokens)


def open_usage(
    subject: Subject,
    *,
    model: str,
    is_stream: bool,
    created_at: datetime,
    locked_until: Combinable,
    reserved: dict[str, int],
) -> None:
    UsageEvent.objects.create(
        request_id=subject.request_id,
        client_token_id=subject.client_token_id,
        user_id=subject.user_id,
        conversation_id=subject.conversation_id,
        app_version=subject.app_version,
        model=model,
        is_stream=is_stream,
        created_at=created_at,
        locked_until=locked_until,
        reserved_json=reserved or None,
    )


def complete(
    subject: Subject,
    *,
    model: str,
    served_model: str,
    tokens: Tokens,
    latency_ms: int,
    first_token_ms: int | None = None,
    code: str = "",
) -> Closed | None:
    """Close the row with what was bought; None when an earlier try, whose answer got lost, has done so.

    `code` says what is special about the end of the turn, for example that it was cancelled.
    """
    figures = {"latency_ms": latency_ms, "first_token_ms": first_token_ms, "error_code": code}
    closed = _close(subject, Status.COMPLETED, **figures, **_figures(served_model, tokens))
    if closed:
        metadata = {"model": served_model, "latency_ms": latency_ms, "total_tokens": tokens.total}
        record_event("chat.completed", subject, metadata, model=model)
    return closed


def fail(
    subject: Subject,
    *,
    code: str,
    latency_ms: int,
    model: str,
    served_model: str = "",
    tokens: Tokens | None = None,
) -> Closed | None:
    """Close the row of a turn without a reply; `tokens` were bought all the same, of the served model if known."""
    figures = _figures(served_model or model, tokens) | {"served_model": served_model} if tokens else {}
    closed = _close(subject, Status.FAILED, error_code=code, latency_ms=latency_ms, **figures)
    if closed:
        record_event("chat.failed", subject, {"code": code, "latency_ms": latency_ms}, model=model)
    return closed


def account_superseded(subject: Subject, *, served_model: str, tokens: Tokens, latency_ms: int) -> Closed | None:
    """Count what was bought by a turn that has lost its key to another; None when it was counted before."""
    figures = _figures(served_model, tokens)
    return _close(subject, Status.ABANDONED, latency_ms=latency_ms, error_code="superseded", **figures)


def renew(request_ids: Iterable[str], locked_until: Combinable) -> None:
    """Their process lives: nobody may abandon them before `locked_until`."""
    UsageEvent.objects.pending().filter(request_id__in=list(request_ids)).update(locked_until=locked_until)


def ask_to_cancel(request_id: str, client_token_id: int) -> tuple[str, bool] | None:
    """Note that the client wants a stream stopped: its status, and whether it is one; None where it is not theirs."""
    mine = UsageEvent.objects.filter(request_id=request_id, client_token_id=client_token_id)
    mine.pending().filter(is_stream=True).update(is_cancel_asked=True)
    return mine.values_list("status", "is_stream").first()


def asked_to_cancel(request_ids: Iterable[str]) -> list[str]:
    pending = UsageEvent.objects.pending().filter(request_id__in=list(request_ids), is_cancel_asked=True)
    return list(pending.values_list("request_id", flat=True))


def abandon(request_ids: Iterable[str]) -> list[Abandoned]:
    """Close pending rows whose process died: those that this call closed, with what they had reserved."""
    closed = []
    days = set()
    for row in UsageEvent.objects.pending().filter(request_id__in=list(request_ids)).order_by("pk"):
        mine = UsageEvent.objects.pending().filter(pk=row.pk)
        values = {"status": Status.ABANDONED, "error_code": GIVEN_UP}
        if mine.update(**values, finished_at=timezone.now()):
            subject = Subject(row.request_id, row.client_token_id, row.user_id, row.conversation_id, row.app_version)
            # When the user was there, and not when somebody tidied up: it is activity of that time alone.
            record_event("chat.abandoned", subject, model=row.model, created_at=row.created_at)
            closed.append(Abandoned(row.request_id, row.reserved_json or {}))
            days.add(row.created_at.astimezone(UTC).date())
    mark_changed(days)
    return closed


def mark_changed(days: Iterable[date]) -> None:
    """Raw rows of these days have changed: what has been built of those that are over, or is being built, is stale.

    To be called inside the transaction that changes the rows.
    """
    for day in sorted(day for day in days if day < timezone.now().astimezone(UTC).date()):
        # Inserted here, the row makes whoever builds the day for the first time wait for our commit, and see it.
        RollupDay.objects.bulk_create([RollupDay(day=day)], ignore_conflicts=True)
        RollupDay.objects.filter(day=day).note_change()


def mark_if_built(days: Iterable[date]) -> None:
    """Where a day that goes on is closed already, a clock is wrong: this node's, or another's."""
    if is_near_midnight():
        RollupDay.objects.built().filter(day__in=list(days), is_partial=False).note_change()


def abandon_stale(now: datetime | Now, *, limit: int) -> list[Abandoned]:
    """Abandon at most `limit` pending rows whose lease has ended."""
    return abandon(UsageEvent.objects.stale(now).values_list("request_id", flat=True)[:limit])


def record_event(
    name: str,
    subject: Subject,
    metadata: dict[str, Any] | None = None,
    *,
    model: str = "",
    created_at: datetime | None = None,
) -> None:
    event = AnalyticsEvent.objects.create(
        event_name=name,
        client_token_id=subject.client_token_id,
        user_id=subject.user_id,
        conversation_id=subject.conversation_id,
        request_id=subject.request_id,
        model=model,
        app_version=subject.app_version,
        metadata_json=metadata or {},
        created_at=created_at or timezone.now(),
    )
    mark_if_built([event.created_at.astimezone(UTC).date()])


def _close(subject: Subject, status: Status, **values: Any) -> Closed | None:
    """Only a row that is open, or was given up too early, is closed, and once."""
    rows = UsageEvent.objects.filter(request_id=subject.request_id)
    values = {"error_code": "", "reserved_json": None, **values, "status": status, "finished_at": timezone.now()}
    if rows.pending().update(**values):
        # A turn that was shorter is of today, or was closed before its day could be built: unless a clock is wrong.
        if timedelta(milliseconds=values["latency_ms"]) + SLACK >= SETTLING:
            _mark(subject)
        elif is_near_midnight():
            mark_if_built([_day_of(subject)])
        return Closed(values.get("cost_nanos", 0))
    if rows.filter(status=Status.ABANDONED, error_code=GIVEN_UP).update(**values):
        _mark(subject)
        return Closed(values.get("cost_nanos", 0), was_abandoned=True)
    return None


def _mark(subject: Subject) -> None:
    mark_changed([_day_of(subject)])


def _day_of(subject: Subject) -> date:
    opened: datetime = UsageEvent.objects.values_list("created_at", flat=True).get(request_id=subject.request_id)
    return opened.astimezone(UTC).date()


def is_near_midnight() -> bool:
    """By so much that a clock that is wrong by less than SETTLING and an hour puts a row into another day."""
    now = timezone.now().astimezone(UTC)
    return (now + CLOCKS).date() != (now - CLOCKS).date()


def _figures(served_model: str, tokens: Tokens) -> dict[str, Any]:
    return {
        "served_model": served_model,
        "prompt_tokens": tokens.prompt,
        "cached_tokens": tokens.cached,
        "completion_tokens": tokens.completion,
        "reasoning_tokens": tokens.reasoning,
        "total_tokens": tokens.total,
        "is_estimated": tokens.is_estimated,
        "cost_nanos": cost_nanos(
            served_model,
            prompt_tokens=tokens.prompt,
            cached_tokens=tokens.cached,
            completion_tokens=tokens.completion,
        ),
    }
