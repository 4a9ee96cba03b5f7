"""The life of a turn: open it, ask the upstream, settle it.

Two short transactions, and nothing is held between them: the upstream may take minutes. A client is told only what is
committed, so a reply that a client has seen is in the database.
"""

import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

from django.conf import settings
from django.db import Error, IntegrityError, InterfaceError, OperationalError, connections

from analytics import ledger
from analytics.causes import cause
from analytics.fairness import close_connection, outside
from chat.exceptions import ApiError, IdempotencyInProgress, InternalError, Unavailable
from chat.turns import opening, registry
from chat.turns.capacity import acquire_slot
from chat.turns.request import Turn, TurnRequest, TurnResult
from chat.turns.settling import SUPERSEDED, Settlement, settlements
from chat.upstream import client as upstream
from chat.upstream.replies import Completion, Reply

logger = logging.getLogger(__name__)
J = TypeVar("J")

# error_code of a completed turn whose model has used up its tokens before the first word.
EMPTY_REPLY = "empty_reply"
DUPLICATE_POLL_SECONDS = 0.1
# Seconds between tries to write down how a turn ended; the last again and again.
RETRY_DELAYS = (0.1, 0.3, 1, 3)
# Seconds after which no try begins: for a reply that has been paid for, and for a failure, which is told at once.
PAID_SECONDS = 45
FAILED_SECONDS = 4


def take_turn(request: TurnRequest) -> TurnResult:
    """Take one message in and give one reply back, once for each idempotency key."""
    with acquire_slot(request.client):
        opened = open_or_replay(request)
        if isinstance(opened, TurnResult):
            return opened
        close_connection()
        try:
            registry.enter(request.subject.request_id)
            return TurnResult(settle(opened, complete(opened)))
        finally:
            registry.leave(request.subject.request_id)


def open_or_replay(request: TurnRequest, join: Callable[[str], J | None] = lambda _: None) -> Turn | TurnResult | J:
    """Open the turn; or wait for the duplicate that holds its key, and return the answer of that one.

    `join` is called with the duplicate's id, without a connection. It may find a way to follow the duplicate, instead
    of waiting for its end.
    """
    deadline = time.monotonic() + settings.IDEMPOTENCY_WAIT_SECONDS
    while True:
        try:
            return opening.open_turn(request)
        except IdempotencyInProgress:
            if request.idempotency is None:
                raise
            is_late = time.monotonic() >= deadline
            with outside():
                while running := request.idempotency.holder():
                    close_connection()
                    if duplicate := join(running):
                        return duplicate
                    if time.monotonic() >= deadline:
                        raise
                    time.sleep(DUPLICATE_POLL_SECONDS)
            if is_late:
                raise


def complete(turn: Turn) -> Completion:
    """Ask the upstream. Where it fails, the turn is closed."""
    reply = Reply(turn.call)
    try:
        with outside():
            return upstream.complete(reply)
    except BaseException as exc:
        fail(turn, exc, reply.bought)


def settle(turn: Turn, completion: Completion, *, first_token_ms: int | None = None, code: str = "") -> dict[str, Any]:
    """Write down the whole turn in one transaction, and return the answer, to be given once this has committed.

    `code` says what is special about the end of the turn, for example that it was cancelled.
    """
    answer = answer_of(turn, completion)
    if "incomplete_details" in answer:
        code = code or EMPTY_REPLY
    ending = ledger.Ending(
        turn.request.subject,
        ledger.Status.COMPLETED,
        answer["usage"]["latency_ms"],
        code=code,
        tokens=completion.tokens,
        called_model=turn.call.body["model"],
        served_model=completion.model[:100],
        service_tier=completion.service_tier,
        first_token_ms=first_token_ms,
    )
    try:
        problem = retry_while_away(Settlement(turn, ending, answer, completion.message), PAID_SECONDS)
    except (OperationalError, InterfaceError) as exc:
        logger.exception("turn %s was paid for and could not be settled", turn.call.request_id)
        replace(ending, status=ledger.Status.FAILED, code=Unavailable.default_code).observe()
        raise Unavailable(should_retry=None if turn.request.idempotency else False) from exc
    except Exception as exc:
        # A bug of ours loses the reply, but not what it cost.
        fail(turn, exc, lambda: completion)
    if problem:
        raise problem
    return answer


def fail(turn: Turn, exc: BaseException, find_bought: Callable[[], Completion | None] = lambda: None) -> NoReturn:
    """Record how the turn failed and what was bought all the same, free its key for a retry, and raise the failure.

    A bug of ours is raised as InternalError, to which SDKs do not answer by buying again.

    Where the upstream may have sold what never arrived, the estimate of the prompt is booked. When the database is
    away as well, the row stays pending, and is abandoned once its lease ends.
    """
    error = exc if isinstance(exc, ApiError) else InternalError()
    if error.is_billed and turn.request.idempotency is None:
        # SDKs that try again by themselves would buy it twice.
        error.should_retry = False
    try:
        bought = find_bought()
    except Exception:
        # The bug that ended the turn may be just there. The row is closed all the same.
        logger.exception("turn %s: what was bought cannot be told", turn.call.request_id)
        bought = None
    tokens = bought.tokens if bought else None
    if tokens is None and error.is_billed:
        tokens = ledger.LlmTokens(prompt=turn.call.prompt_tokens, total=turn.call.prompt_tokens, is_estimated=True)
    ending = ledger.Ending(
        turn.request.subject,
        ledger.Status.FAILED,
        turn.latency_ms,
        code=error.default_code,
        tokens=tokens,
        called_model=turn.call.body["model"],
        served_model=bought.model[:100] if bought else "",
        service_tier=bought.service_tier if bought else "",
    )
    try:
        retry_while_away(Settlement(turn, ending), FAILED_SECONDS)
    except Error:
        logger.exception(
            "turn %s failed and could not be closed", turn.call.request_id, extra={"fields": fields_of(turn)}
        )
        ending.observe()
    if error is exc or not isinstance(exc, Exception):
        raise exc
    logger.error("turn %s failed", turn.call.request_id, exc_info=exc)
    raise error from exc


def retry_while_away(settlement: Settlement, seconds: float) -> ApiError | None:
    """Write down how a turn ended, again for some seconds where the database is away or silent.

    An error is returned where the tokens are committed and the reply is not.
    """
    deadline = time.monotonic() + seconds
    delays = itertools.chain(RETRY_DELAYS, itertools.repeat(RETRY_DELAYS[-1]))
    while True:
        try:
            problem = settlements.run(settlement)
        except (OperationalError, InterfaceError, IntegrityError) as exc:
            delay = next(delays)
            is_last = time.monotonic() + delay >= deadline
            if is_last or any(found.in_atomic_block for found in connections.all(initialized_only=True)):
                raise
            logger.warning("settling again: %s", cause(exc))
            close_connection()
            with outside():
                time.sleep(delay)
        else:
            ending = ending_of(settlement, problem)
            ending.observe()
            ledger.log_turn(ending, **fields_of(settlement.turn))
            return problem


def ending_of(settlement: Settlement, problem: ApiError | None) -> ledger.Ending:
    """Return how a turn was settled: one that has lost its key to a retry is abandoned."""
    if isinstance(problem, IdempotencyInProgress):
        return replace(settlement.ending, status=ledger.Status.ABANDONED, code=SUPERSEDED)
    return settlement.ending


def fields_of(turn: Turn) -> dict[str, Any]:
    """Return what the log says of a turn beside how it ended."""
    client = turn.request.client.name
    return {"client": client, "stream": turn.request.is_stream or None, **turn.call.heard.fields()}


def answer_of(turn: Turn, completion: Completion) -> dict[str, Any]:
    """Make OpenAI's object under our id, with what the conversation form adds."""
    body = completion.body
    tokens = completion.tokens
    usage = body["usage"] if isinstance(body.get("usage"), dict) else {}
    return {
        "id": turn.call.request_id,
        "object": "chat.completion",
        **{name: value for name, value in body.items() if name not in {"id", "object"}},
        "usage": {
            **usage,
            "prompt_tokens": tokens.prompt,
            "completion_tokens": tokens.completion,
            "total_tokens": tokens.total,
            "latency_ms": turn.latency_ms,
        },
        "request_id": turn.call.request_id,
        "conversation_id": turn.request.subject.conversation_id or None,
        "reply": completion.message["content"] or "",
        "history_truncated": turn.cut.is_truncated,
        **({"incomplete_details": {"reason": "max_output_tokens"}} if completion.is_cut_to_nothing else {}),
    }
