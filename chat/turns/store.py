"""The two transactions of a turn, with their statements in the order in which they run.

Nothing else writes a turn. Each function runs inside a transaction of its caller.
"""

from dataclasses import replace
from typing import Any

from django.conf import settings
from django.db.models import Case, F, Value, When
from django.utils import timezone

from analytics import ledger
from chat.exceptions import ApiError, ConversationNotFound, IdempotencyInProgress
from chat.limits.reservations import Reservation, release
from chat.models import Conversation, Message
from chat.turns import prompt
from chat.turns.registry import lease
from chat.turns.request import Turn, TurnRequest, TurnResult
from chat.upstream.parameters import completed, thinks
from chat.upstream.replies import Call, Completion


def open_turn(request: TurnRequest) -> Turn | TurnResult:
    """Open the turn, or find the answer of an earlier request under the same key.

    Raises ApiError where the key, the conversation, the model's context or a limit refuses the turn.
    """
    if request.idempotency:
        # INSERT the key if it is new, and SELECT its row. UPDATE it where it is over or its turn died.
        claim = request.idempotency.claim(request.subject.request_id, lease())
        if claim.answer is not None:
            # INSERT the event of a replay: of no model, because none is asked.
            original = {"original_request_id": claim.answer["id"]}
            ledger.record_event("chat.replayed", replace(request.subject, model=""), original)
            return TurnResult(claim.answer, is_replay=True)
        if claim.superseded:
            # UPDATE the usage row of the turn that died, INSERT its event, UPDATE its client's running turns.
            release(ledger.abandon([claim.superseded]))
    conversation = None
    if request.subject.conversation_id:
        # SELECT the conversation if it is the client's.
        conversation = Conversation.objects.owned_by(request.client).filter(pk=request.subject.conversation_id).first()
        if conversation is None:
            raise ConversationNotFound
    model = settings.MODEL_ALIASES.get(request.subject.model, request.subject.model)
    parameters = completed(
        request.parameters,
        model,
        client_id=request.client.pk,
        user_id=request.subject.user_id,
        conversation_id=request.subject.conversation_id,
    )
    # SELECT the newest messages of the conversation.
    built = prompt.build(conversation, request.messages, model=model, parameters=parameters)
    body = {**parameters, "model": model, "messages": built.messages}
    # INSERT or UPDATE all budgets at once, then the tokens of the minute; neither where the client has no limits.
    reservation = Reservation.take(
        request.client,
        request.subject.user_id,
        body,
        prompt=built.size,
        reply_tokens=built.most_reply_tokens,
        limits=request.limits,
    )
    # INSERT the usage row.
    ledger.open_usage(
        request.subject,
        is_stream=request.is_stream,
        locked_until=lease(),
        reserved=reservation.budgets if reservation else {},
    )
    call = Call(
        request.subject.request_id,
        body,
        built.size.likely,
        asked=frozenset(request.parameters),
        first_new=built.first_new,
    )
    new = request.messages[built.known :]
    return Turn(request, call, new, built.cut, reservation)


def settle_turn(
    turn: Turn, completion: Completion, answer: dict[str, Any], *, first_token_ms: int | None, code: str
) -> ApiError | None:
    """Write down a whole turn, whose `answer` a client is given after the commit.

    An error is returned, not raised, where the tokens are to be committed and the reply is not. An earlier try, whose
    answer got lost, may have written everything: then this one changes nothing.
    """
    request = turn.request
    # UPDATE the key with the answer, if the turn still holds it.
    holds_key = not request.idempotency or request.idempotency.complete(request.subject.request_id, answer)
    is_first_try = close_turn(
        turn,
        completion.tokens,
        status=ledger.Status.COMPLETED if holds_key else ledger.Status.ABANDONED,
        code=code if holds_key else "superseded",
        served_model=completion.model[:100],
        service_tier=completion.service_tier,
        latency_ms=answer["usage"]["latency_ms"],
        first_token_ms=first_token_ms,
    )
    if not is_first_try:
        return None
    if not holds_key:
        return IdempotencyInProgress()
    if request.subject.conversation_id:
        # UPDATE the conversation. DELETE the key where the conversation is gone.
        if not lock_conversation(turn):
            if request.idempotency:
                request.idempotency.forget(request.subject.request_id)
            return ConversationNotFound("The conversation was deleted while the reply was written.")
        # INSERT the new messages and the reply.
        Message.objects.bulk_create(
            Message.from_openai(
                message, conversation_id=request.subject.conversation_id, request_id=request.subject.request_id
            )
            for message in [*turn.new, {"role": "assistant", **completion.message}]
        )
    return None


def fail_turn(turn: Turn, code: str, tokens: ledger.LlmTokens | None, *, served_model: str, service_tier: str) -> None:
    """Close a turn that has no reply, and free its key for a retry."""
    # DELETE the key. It comes first wherever a key and a usage row are locked together.
    if turn.request.idempotency:
        turn.request.idempotency.release(turn.call.request_id)
    failed = ledger.Status.FAILED
    served = {"served_model": served_model, "service_tier": service_tier}
    close_turn(turn, tokens, status=failed, code=code, latency_ms=turn.latency_ms, **served)


def close_turn(turn: Turn, tokens: ledger.LlmTokens | None, **ending: Any) -> bool:
    """Close the usage row, and give back what was reserved and not used. False where an earlier try has done so."""
    # UPDATE the usage row, and INSERT the event.
    closed = ledger.close_usage(turn.request.subject, tokens=tokens, called_model=turn.call.body["model"], **ending)
    if closed and turn.reservation:
        is_unknown = tokens is not None and tokens.is_estimated and thinks(turn.call.body)
        # UPDATE the running turns, each budget, and the tokens of the minute.
        turn.reservation.settle(closed, None if is_unknown else tokens.total if tokens else 0)
    return closed is not None


def lock_conversation(turn: Turn) -> bool:
    """Lock the conversation's row, so that turns commit in the order of their messages. False where it is gone."""
    subject, cut = turn.request.subject, turn.cut
    return bool(
        Conversation.objects.filter(pk=subject.conversation_id).update(
            updated_at=timezone.now(),
            user_id=Case(When(user_id="", then=Value(subject.user_id)), default=F("user_id")),
            **({"history_from": cut.history_from, "instructions_to": cut.instructions_to} if cut.history_from else {}),
        )
    )
