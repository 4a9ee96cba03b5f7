"""The life of a turn: open, ask, settle.

Two short transactions, and nothing held between them: the upstream may take minutes. What the
client is told follows what is committed, so a reply that a client has seen is in the database.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from django.conf import settings
from django.db import Error, IntegrityError, InterfaceError, OperationalError, connection, transaction
from django.db.models import Case, F, Value, When
from django.db.models.functions import Now
from django.utils import timezone

from analytics.ledger import turns as recording
from chat.exceptions import ApiError, ConversationNotFound, IdempotencyInProgress, Unavailable, UpstreamError
from chat.limits.rates import Verdict
from chat.limits.reservations import Reservation, release
from chat.models import ClientToken, Conversation, IdempotencyKey, Message
from chat.turns import prompt as context
from chat.turns import registry as running
from chat.turns.idempotency import Idempotency
from chat.upstream import client as upstream
from chat.upstream.replies import Completion

logger = logging.getLogger(__name__)
T = TypeVar("T")
J = TypeVar("J")

TWIN_POLL_SECONDS = 0.1
# Seconds between tries to write down what has been paid for.
PERSIST_DELAYS = (0.1, 0.3, 1, 3)


@dataclass(frozen=True)
class Ask:
    """What a client asks for. `messages` are the new ones; `parameters` go to the upstream as they are."""

    client: ClientToken
    request_id: str
    model: str
    messages: list[dict[str, Any]]
    conversation_id: str = ""
    user_id: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    idempotency: Idempotency | None = None
    is_stream: bool = False
    app_version: str = ""
    # What limits say of the request is noted here, for the headers of its answer.
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def subject(self) -> recording.Subject:
        return recording.Subject(
            request_id=self.request_id,
            client_token_id=self.client.pk,
            user_id=self.user_id or self.client.default_user_id,
            conversation_id=self.conversation_id,
            app_version=self.app_version,
        )


@dataclass(frozen=True)
class Outcome:
    answer: dict[str, Any]
    is_replay: bool = False


@dataclass(frozen=True)
class Turn:
    """An open turn: its usage row is pending, its key is held, its upstream request is ready."""

    ask: Ask
    upstream_body: dict[str, Any]
    history_truncated: bool
    reservation: Reservation
    started: float = field(default_factory=time.monotonic)

    @property
    def latency_ms(self) -> int:
        return round((time.monotonic() - self.started) * 1000)


def take_turn(ask: Ask) -> Outcome:
    """One message in, one reply out, once for each idempotency key."""
    running.take_place()
    try:
        opened = open_or_replay(ask)
        if isinstance(opened, Outcome):
            return opened
        release_connection()
        with running.registered(opened):
            return Outcome(settle(opened, complete(opened)))
    finally:
        running.give_place()


def complete(turn: Turn) -> Completion:
    """Ask the upstream; where it fails, the turn is closed."""
    try:
        return upstream.complete(turn.upstream_body, turn.ask.request_id)
    except ApiError as exc:
        close_failed(turn, exc.default_code, is_billed=isinstance(exc, UpstreamError) and exc.billed)
        forbid_retry(exc, turn.ask)
        raise
    except BaseException:
        close_failed(turn, "internal_error", is_billed=True)
        raise


def forbid_retry(exc: ApiError, ask: Ask) -> None:
    """Without a key, a retry of what may have been billed would buy it twice: the SDKs must not try by themselves."""
    if isinstance(exc, UpstreamError) and exc.billed and ask.idempotency is None:
        exc.should_retry = False


def open_or_replay(ask: Ask, join: Callable[[Idempotency], J | None] = lambda _: None) -> Turn | Outcome | J:
    """Open the turn; or wait for the twin that holds its key, and give that one's answer.

    `join` may find the twin at work under the client's key, to follow it instead of waiting for its end.
    """
    deadline = time.monotonic() + settings.IDEMPOTENCY_WAIT_SECONDS
    while True:
        try:
            with transaction.atomic():
                return _open(ask)
        except IdempotencyInProgress:
            if ask.idempotency is None:
                raise
            if time.monotonic() >= deadline:
                if twin := join(ask.idempotency):
                    return twin
                raise
        while time.monotonic() < deadline and ask.idempotency.is_held():
            if twin := join(ask.idempotency):
                return twin
            release_connection()
            time.sleep(TWIN_POLL_SECONDS)


def _open(ask: Ask) -> Turn | Outcome:
    now = timezone.now()
    locked_until = running.lease()
    if ask.idempotency:
        claim = ask.idempotency.claim(ask.request_id, locked_until)
        if claim.answer is not None:
            recording.record_event("chat.replayed", ask.subject, {"original_request_id": claim.answer["id"]})
            return Outcome(claim.answer, is_replay=True)
        if claim.superseded:
            release(recording.abandon([claim.superseded]))
    conversation = None
    if ask.conversation_id:
        conversation = Conversation.objects.owned_by(ask.client).filter(pk=ask.conversation_id).first()
        if conversation is None:
            raise ConversationNotFound
    messages, is_truncated = context.build(conversation, ask.messages, model=ask.model, parameters=ask.parameters)
    body = {**ask.parameters, "model": ask.model, "messages": messages}
    reservation = Reservation.take(ask.client, ask.subject.user_id, body, ask.verdicts, now)
    recording.open_usage(
        ask.subject,
        model=ask.model,
        is_stream=ask.is_stream,
        created_at=now,
        locked_until=locked_until,
        reserved=reservation.budgets,
    )
    return Turn(ask, body, is_truncated, reservation)


def settle(turn: Turn, completion: Completion, *, first_token_ms: int | None = None, code: str = "") -> dict[str, Any]:
    """Write down the whole turn in one transaction; the answer to give once it is committed."""
    answer = answer_of(turn, completion, turn.latency_ms)
    figures = {"latency_ms": answer["usage"]["latency_ms"], "first_token_ms": first_token_ms, "code": code}
    problems: list[ApiError | None] = []

    def attempt() -> ApiError | None:
        # A try whose answer got lost has closed the row, and has said why: the next finds nothing to do.
        problems.append(_settle(turn, completion, answer, figures))
        return next((problem for problem in problems if problem), None)

    try:
        problem = persist(attempt)
    except (OperationalError, InterfaceError) as exc:
        logger.exception("turn %s was paid for and could not be settled", turn.ask.request_id)
        raise Unavailable(should_retry=None if turn.ask.idempotency else False) from exc
    except Exception:
        # Our own bug loses the reply; what it cost is not lost.
        close_failed(turn, "internal_error", bought=completion)
        raise
    if problem:
        raise problem
    return answer


def _settle(turn: Turn, completion: Completion, answer: dict[str, Any], figures: dict[str, Any]) -> ApiError | None:
    """An error is returned, not raised, where the tokens are to be committed and the reply is not."""
    ask, served, tokens = turn.ask, completion.model[:100], completion.tokens
    if ask.idempotency and not ask.idempotency.complete(ask.request_id, answer):
        latency_ms = figures["latency_ms"]
        late = recording.account_superseded(ask.subject, served_model=served, tokens=tokens, latency_ms=latency_ms)
        turn.reservation.settle(late, tokens.total)
        return IdempotencyInProgress() if late else None
    closed = recording.complete(ask.subject, model=ask.model, served_model=served, tokens=tokens, **figures)
    if not closed:
        return None
    turn.reservation.settle(closed, tokens.total)
    if ask.conversation_id and not touch(ask):
        if ask.idempotency:
            ask.idempotency.forget(ask.request_id)
        return ConversationNotFound("The conversation was deleted while the reply was written.")
    if ask.conversation_id:
        written = [*ask.messages, {"role": "assistant", **completion.message}]
        Message.objects.bulk_create(
            Message.from_openai(message, conversation_id=ask.conversation_id, request_id=ask.request_id)
            for message in written
        )
    return None


def touch(ask: Ask) -> bool:
    """Lock the conversation's row, so that turns commit in the order of their messages; False when it is gone."""
    return bool(
        Conversation.objects.filter(pk=ask.conversation_id).update(
            updated_at=timezone.now(),
            user_id=Case(When(user_id="", then=Value(ask.subject.user_id)), default=F("user_id")),
        )
    )


def close_failed(turn: Turn, code: str, *, bought: Completion | None = None, is_billed: bool = False) -> None:
    """Record how the turn failed and what was `bought` all the same, and free its key for a retry.

    `is_billed`: the upstream may have sold what never came; the prompt's estimate stands for it.
    When the database is away as well, the row stays pending and is abandoned once its lease ends.
    """

    served = bought.model[:100] if bought else ""
    tokens = bought.tokens if bought else None
    if tokens is None and is_billed:
        prompt = context.prompt_tokens(turn.upstream_body["messages"], turn.upstream_body)
        tokens = recording.Tokens(prompt=prompt, total=prompt, is_estimated=True)

    def close() -> None:
        # The key first, as wherever a key and a row of the ledger are locked together.
        if turn.ask.idempotency:
            turn.ask.idempotency.release(turn.ask.request_id)
        closed = recording.fail(
            turn.ask.subject,
            code=code,
            latency_ms=turn.latency_ms,
            model=turn.ask.model,
            served_model=served,
            tokens=tokens,
        )
        turn.reservation.settle(closed, tokens.total if tokens else 0)

    try:
        persist(close)
    except Error:
        logger.exception("turn %s failed and could not be closed", turn.ask.request_id)


def persist(write: Callable[[], T]) -> T:
    """Run `write` in a transaction, and again for some seconds where the database is away: it has been paid for."""
    for delay in PERSIST_DELAYS:
        try:
            with transaction.atomic():
                return write()
        except (OperationalError, InterfaceError, IntegrityError) as exc:
            if connection.in_atomic_block:
                raise
            logger.warning("settling again: %s", type(exc).__name__)
            release_connection()
            time.sleep(delay)
    with transaction.atomic():
        return write()


def release_connection() -> None:
    """Give the connection back while waiting for something else."""
    if not connection.in_atomic_block:
        connection.close()


def answer_of(turn: Turn, completion: Completion, latency_ms: int) -> dict[str, Any]:
    """OpenAI's object under our id, with what the conversation form adds."""
    body = completion.body
    tokens = completion.tokens
    usage = body["usage"] if isinstance(body.get("usage"), dict) else {}
    return {
        "id": turn.ask.request_id,
        "object": "chat.completion",
        **{name: value for name, value in body.items() if name not in {"id", "object"}},
        "usage": {
            **usage,
            "prompt_tokens": tokens.prompt,
            "completion_tokens": tokens.completion,
            "total_tokens": tokens.total,
            "latency_ms": latency_ms,
        },
        "request_id": turn.ask.request_id,
        "conversation_id": turn.ask.conversation_id or None,
        "reply": completion.message["content"] or "",
        "history_truncated": turn.history_truncated,
    }


def settle_abandoned(now: datetime | Now, *, limit: int = 500) -> tuple[int, int]:
    """Close turns whose process died, and free their keys; how many of each, at most `limit`."""
    # Each in a transaction of its own: a turn locks its key first, and then its row.
    stale = list(IdempotencyKey.objects.stale(now).values_list("pk", flat=True)[:limit])
    freed, _ = IdempotencyKey.objects.stale(now).filter(pk__in=stale).delete()
    with transaction.atomic():
        abandoned = recording.abandon_stale(now, limit=limit)
        release(abandoned)
    return len(abandoned), freed


def settle_all_abandoned(now: datetime | None = None) -> tuple[int, int]:
    """The same until none is left, in short transactions; as of now by the database's clock."""
    total_closed = total_freed = 0
    while any(batch := settle_abandoned(now or Now())):
        total_closed += batch[0]
        total_freed += batch[1]
    return total_closed, total_freed
