"""The opening of a turn: what is read before it, and the transaction that claims, reserves and opens it.

`look` and `write` take all turns that open together (`chat.turns.lanes`).
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from django.db import transaction

from analytics import ledger
from chat.exceptions import ApiError, ConversationNotFound, IdempotencyInProgress
from chat.limits import rates
from chat.limits.budgets import Allowance
from chat.limits.reservations import Reservation, release
from chat.limits.room import Room, scarce
from chat.model_names import model_behind
from chat.models import Conversation
from chat.sql import DjangoSession, Row, Session
from chat.turns import prompt, store
from chat.turns.cuts import LAST_EXCHANGE, MAX_BYTES, MAX_MESSAGES, Stored
from chat.turns.history import StoredMessage
from chat.turns.idempotency import HeldKey
from chat.turns.lanes import Alone, Apart, Lane
from chat.turns.request import Turn, TurnRequest, TurnResult
from chat.upstream.parameters import completed
from chat.upstream.replies import Call

# Bytes of a stored answer or of a history that a turn may read together with others. With more it reads alone.
MAX_SHARED_BYTES = 1024 * 1024
# A stored answer is read whole by who reads alone: none is larger than what the database takes as one text.
MAX_ANSWER_BYTES = 2**30
# Characters of the rest of a message that are remembered as read.
MAX_REMEMBERED = 200


@dataclass
class Before:
    """What the database says before a turn opens. `conversation` None: it is not the client's."""

    key: HeldKey | None = None
    conversation: Conversation | None = None
    messages: list[StoredMessage] = field(default_factory=list)


def open_turn(request: TurnRequest) -> Turn | TurnResult:
    """Open the turn, or find the answer of an earlier request under the same key.

    Raises ApiError where the key, the conversation, the model's context or a limit refuses the turn.
    """
    subject = request.subject
    before = looks.run(request) if request.idempotency or subject.conversation_id else Before()
    if request.idempotency and before.key:
        if answer := request.idempotency.answer_of(before.key):
            # The event of a replay is of no model, because none is asked.
            original = {"original_request_id": answer["id"]}
            ledger.record_event("chat.replayed", replace(subject, model=""), original)
            return TurnResult(answer, is_replay=True)
        if before.key.is_dead:
            with transaction.atomic():
                release(ledger.abandon([before.key.request_id]))
    if subject.conversation_id and before.conversation is None:
        raise ConversationNotFound
    turn = plan(request, before)
    opened = openings.run(turn)
    if isinstance(opened, ApiError):
        raise opened
    if not opened:
        raise IdempotencyInProgress
    return turn


def plan(request: TurnRequest, before: Before) -> Turn:
    """Lay out the call to the upstream, and what it can cost."""
    subject = request.subject
    model = model_behind(subject.model)
    parameters = completed(
        request.parameters,
        model,
        client_id=request.client.pk,
        user_id=subject.user_id,
        conversation_id=subject.conversation_id,
    )
    stored = Stored.of(before.conversation, before.messages) if before.conversation else None
    built = prompt.build(stored, request.messages, model=model, parameters=parameters)
    body = {**parameters, "model": model, "messages": built.messages}
    reservation = Reservation.plan(
        request.client,
        subject.user_id,
        body,
        prompt=built.size,
        reply_tokens=built.most_reply_tokens,
        limits=request.limits,
    )
    asked = frozenset(request.parameters)
    call = Call(subject.request_id, body, built.size.likely, asked=asked, first_new=built.first_new)
    return Turn(request, call, request.messages[built.known :], built.cut, reservation)


def look(session: Session, requests: Sequence[TurnRequest]) -> list[Before | Alone]:
    """Read the keys that the requests name, and their conversations with their newest messages.

    In a lane, a request that has much to read is told to do it alone, so that nobody waits for it.
    """
    is_shared = not isinstance(session, DjangoSession)
    most_bytes = MAX_SHARED_BYTES if is_shared else MAX_BYTES
    keys = [
        {**request.idempotency.row(request.request_id), "most_bytes": most_bytes if is_shared else MAX_ANSWER_BYTES}
        for request in requests
        if request.idempotency
    ]
    asked = [
        {
            "request_id": request.request_id,
            "client_token_id": request.client.pk,
            "owner_id": request.client.owner_id,
            "conversation_id": request.subject.conversation_id,
            "most_bytes": most_bytes,
            "at_least": 0 if is_shared else LAST_EXCHANGE,
        }
        for request in requests
        if request.subject.conversation_id
    ]
    # SELECT the keys, the conversations if they are the clients', and the newest messages of these.
    held, owned, messages = session.run(
        (store.FIND_KEYS, keys), (store.FIND_CONVERSATIONS, asked), (store.READ_HISTORIES, asked)
    )
    # SELECT those of conversations with large messages, which few have.
    large = {request_id for request_id, _, _, content, *_ in messages if content is None}
    if large:
        (more,) = session.run((store.READ_LARGE_HISTORIES, [row for row in asked if row["request_id"] in large]))
        messages = [row for row in messages if row[0] not in large] + more
    found = {request.request_id: Before() for request in requests}
    alone = set()
    for request_id, is_long, *columns in held:
        found[request_id].key = HeldKey(*columns)
        if is_long:
            alone.add(request_id)
    for request_id, conversation_id, history_from, instructions_to in owned:
        found[request_id].conversation = Conversation(
            conversation_id=conversation_id, history_from=history_from, instructions_to=instructions_to
        )
    for request_id, pk, role, content, extra, written_by in messages:
        row = StoredMessage(pk, role, content, loaded(extra) if extra else None, written_by)
        found[request_id].messages.append(row)
    if is_shared:
        alone |= {request_id for request_id in large if is_cut_by_bytes(found[request_id].messages)}
    return [Alone() if one.request_id in alone else found[one.request_id] for one in requests]


def is_cut_by_bytes(messages: Sequence[StoredMessage]) -> bool:
    return bool(messages) and messages[0].content is None and len(messages) <= MAX_MESSAGES


def loaded(extra: str) -> dict[str, Any]:
    """Read the column of a message that holds the rest of it."""
    return remembered(extra) if len(extra) <= MAX_REMEMBERED else read(extra)


def read(extra: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(extra)
    return found


# It is the same for most replies.
remembered = lru_cache(maxsize=256)(read)


def write(session: Session, turns: Sequence[Turn]) -> list[bool | ApiError]:
    """Claim the keys of turns, reserve what they can cost, and open their usage rows.

    Returns whether each is open: not where another request has claimed its key meanwhile. In a lane, the refusal of a
    limit is a result too, and where it was not foreseen, Apart is raised. A turn that has a transaction of its own
    raises it.
    """
    if isinstance(session, DjangoSession):
        return [*write_together(session, turns)]
    left_out = unopened(session, turns)
    opened = iter(write_together(session, [turn for turn in turns if id(turn) not in left_out]))
    return [left_out[id(turn)] if id(turn) in left_out else next(opened) for turn in turns]


def unopened(session: Session, turns: Sequence[Turn]) -> dict[int, bool | ApiError]:
    """Find turns of a batch that are not opened: by what was asked before them in it, and by what is used already.

    That is read only of limits that these turns would overrun together, or that have refused a turn lately. Those that
    have room for no more are refused in the order in which they came.
    """
    left_out: dict[int, bool | ApiError] = {}
    keys = set()
    for turn in turns:
        if turn.request.idempotency:
            key = (turn.request.client.pk, turn.request.key)
            if key in keys:
                left_out[id(turn)] = False
            keys.add(key)
    limited = [turn for turn in turns if turn.reservation and id(turn) not in left_out]
    if not limited:
        return left_out
    reservations = [turn.reservation for turn in limited if turn.reservation]
    asked = {row["key"] for row in budgets_wanted(reservations) if is_too_much(row) or row["key"] in scarce}
    buckets = [key for key, cost in tokens_wanted(reservations).items() if cost > rates.PERIOD or key in scarce]
    if not asked and not buckets:
        return left_out
    # SELECT what is used of them.
    used, backlogs = session.run(
        (store.FIND_USED, [{"key": key} for key in sorted(asked)]),
        (rates.BACKLOG, [{"key": key} for key in sorted(buckets)]),
    )
    room = Room(dict.fromkeys(asked, 0) | dict(used), dict.fromkeys(buckets, 0.0) | dict(backlogs))
    for turn, reservation in zip(limited, reservations, strict=True):
        try:
            room.take(reservation)
        except ApiError as refusal:
            left_out[id(turn)] = refusal
    return left_out


def write_together(session: Session, turns: Sequence[Turn]) -> list[bool]:
    """Write turns, none of which a limit may refuse, or one of which has a transaction of its own."""
    limited = [turn.reservation for turn in turns if turn.reservation]
    keys = sorted((turn.request for turn in turns if turn.request.idempotency), key=lambda request: request.key)
    buckets, budgets = tokens_wanted(limited), budgets_wanted(limited)
    # The statements compare with what is used already. In a new row nothing is, so the sum alone must not be too much.
    if any(map(is_too_much, budgets)) or any(cost > rates.PERIOD for cost in buckets.values()):
        raise Alone
    # INSERT the keys, or UPDATE those that are over or whose turn died. INSERT or UPDATE all budgets at once, then the
    # tokens of the minute. INSERT the usage rows.
    claimed, reserved, taken, _ = session.run(
        (store.CLAIM_KEYS, [request.idempotency.row(request.request_id) for request in keys if request.idempotency]),
        (store.RESERVE, budgets),
        (store.ADMIT, [{"key": key, "cost": cost} for key, cost in sorted(buckets.items())]),
        (store.OPEN_USAGE, [usage_row(turn) for turn in turns]),
        # Where nothing can be refused, nothing is to be looked at before the commit.
        is_last=not limited,
    )
    lost = {request.request_id for request in keys} - {request_id for (request_id,) in claimed}
    admitted = {key for (key,) in reserved}
    backlogs: dict[str, float] = dict(taken)
    refusing = {row["key"] for row in budgets} - admitted | buckets.keys() - backlogs.keys()
    scarce.add(refusing)
    lost_limited = {id(turn): False for turn in turns if lost and turn.reservation and turn.request.request_id in lost}
    if (lost_limited or refusing) and not isinstance(session, DjangoSession):
        raise Apart(lost_limited)
    if lost_limited:
        raise IdempotencyInProgress
    for reservation in reversed(limited):
        reservation.check(admitted)
        if reservation.bucket and reservation.bucket not in backlogs:
            reservation.refuse_tokens()
        if reservation.bucket:
            reservation.note_tokens(backlogs[reservation.bucket])
            backlogs[reservation.bucket] -= reservation.bucket_seconds
    return [turn.request.request_id not in lost for turn in turns]


def is_too_much(budget: Row) -> bool:
    """Tell whether the turns of one batch want more of a budget than all of it."""
    return budget["most"] is not None and budget["used"] > budget["most"]


def tokens_wanted(limited: Iterable[Reservation]) -> dict[str, float]:
    """Add up what turns take of their clients' tokens per minute, in seconds, by the keys of the buckets."""
    wanted: Counter[str] = Counter()
    for reservation in limited:
        if reservation.bucket:
            wanted[reservation.bucket] += reservation.bucket_seconds  # type: ignore[assignment]
    return dict(wanted)


def budgets_wanted(limited: Iterable[Reservation]) -> list[Row]:
    """Add up what turns reserve of each budget: of running turns first, and each by its key."""
    wanted: Counter[str] = Counter()
    allowances: dict[str, Allowance] = {}
    for reservation in limited:
        wanted.update(reservation.wanted)
        allowances |= {allowance.key: allowance for allowance in reservation.allowances}
    ordered = sorted(allowances.values(), key=lambda allowance: (allowance.period != "", allowance.key))
    return [allowance.row(wanted[allowance.key]) for allowance in ordered]


def usage_row(turn: Turn) -> Row:
    reserved = turn.reservation.wanted if turn.reservation else None
    return {
        **vars(turn.request.subject),
        "is_fenced": turn.request.idempotency is not None,
        "idempotency_key": turn.request.key,
        "is_stream": turn.request.is_stream,
        "reserved_json": json.dumps(reserved) if reserved else None,
    }


looks: Lane[TurnRequest, Before] = Lane("look", look, is_atomic=False)
openings: Lane[Turn, bool | ApiError] = Lane("open", write)
