"""The transaction that settles a turn: its key, its usage row, its limits and its messages, all at once.

`write` takes all turns that settle together (`chat.turns.lanes`).
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from analytics import ledger
from chat.exceptions import ApiError, ConversationNotFound, IdempotencyInProgress
from chat.limits import budgets, rates
from chat.models import Message
from chat.sql import DjangoSession, Row, Session
from chat.turns import store
from chat.turns.lanes import WAIT_SECONDS, Alone, Apart, Lane
from chat.turns.request import Turn
from chat.upstream.parameters import thinks

SUPERSEDED = "superseded"


@dataclass(frozen=True)
class Settlement:
    """How a turn ends. `answer` and `reply`: what is kept of a whole one; None of a turn that failed."""

    turn: Turn
    ending: ledger.Ending
    answer: dict[str, Any] | None = None
    reply: dict[str, Any] | None = None

    @property
    def request_id(self) -> str:
        return self.turn.request.request_id

    @property
    def conversation_id(self) -> str:
        return self.turn.request.subject.conversation_id


@dataclass(frozen=True)
class Closed:
    """A settlement whose usage row this transaction has closed."""

    settlement: Settlement
    ending: ledger.Ending
    was_abandoned: bool = False

    @property
    def is_kept(self) -> bool:
        """Tell whether the messages of the turn are kept: not of one that failed, or has lost its key."""
        return self.ending.status == ledger.Status.COMPLETED and bool(self.settlement.conversation_id)


def write(session: Session, settlements: Sequence[Settlement]) -> list[ApiError | None]:
    """Settle turns. The result is an error where a turn's tokens are to be committed and its reply is not.

    An earlier try, whose answer got lost, may have settled a turn: then nothing of it is changed. Raises Apart where
    some of many were opened long ago, or were abandoned.
    """
    closed = close(session, settlements)
    turns, spent = budget_differences(closed)
    charged, given_back = token_differences(closed)
    kept = [one for one in closed if one.is_kept]
    # INSERT the events. UPDATE the running turns, the budgets, and the tokens of the minute. UPDATE the conversations,
    # INSERT the new messages and the replies, and DELETE the keys of turns whose conversation is gone.
    *_, found, _, _ = session.run(
        (store.ADD_EVENTS, [row for one in closed if (row := event_row(one.ending))]),
        (store.SETTLE_BUDGETS, turns),
        (store.SETTLE_BUDGETS, spent),
        (store.CHARGE, charged),
        (rates.GIVE_BACK, given_back),
        (store.TOUCH_CONVERSATIONS, conversation_rows(kept)),
        (store.ADD_MESSAGES, message_rows(kept)),
        (
            store.FORGET_KEYS,
            [forgetting_row(one.settlement) for one in kept if one.settlement.turn.request.idempotency],
        ),
        is_last=True,
    )
    existing = {conversation_id for (conversation_id,) in found}
    gone = [one.settlement for one in kept if one.settlement.conversation_id not in existing]
    problems: dict[str, ApiError] = {settlement.request_id: deleted_meanwhile() for settlement in gone}
    problems |= problems_of_earlier(settlements, closed)
    problems |= {
        one.ending.subject.request_id: IdempotencyInProgress() for one in closed if one.ending.code == SUPERSEDED
    }
    return [problems.get(settlement.request_id) for settlement in settlements]


def close(session: Session, settlements: Sequence[Settlement]) -> list[Closed]:
    """Complete or free the keys, and close the usage rows. Returns those that no earlier try has closed."""
    keyed = sorted((one for one in settlements if one.turn.request.idempotency), key=lambda one: one.turn.request.key)
    # UPDATE the keys with the answers, if the turns still hold them. DELETE those of turns that failed, for a retry.
    # UPDATE the usage rows: of a turn that has lost its key as abandoned.
    *_, found = session.run(
        (store.COMPLETE_KEYS, [answer_row(one) for one in keyed if one.answer is not None]),
        (store.RELEASE_KEYS, [key_row(one) for one in keyed if one.answer is None]),
        (store.CLOSE_USAGE, [closing_row(one) for one in sorted(settlements, key=lambda one: one.request_id)]),
    )
    statuses: dict[str, str] = dict(found)
    if len(statuses) < len(settlements) and not isinstance(session, DjangoSession):
        raise Apart({id(one): Alone() for one in settlements if one.request_id not in statuses})
    closed = []
    for settlement in settlements:
        ending = settlement.ending
        if status := statuses.get(settlement.request_id):
            if status != ending.status:
                ending = replace(ending, status=ledger.Status.ABANDONED, code=SUPERSEDED)
            closed.append(Closed(settlement, ending))
        elif len(settlements) > 1:
            raise Alone
        elif (late := close_late(settlement)) is not None:
            closed.append(late)
    return closed


def close_late(settlement: Settlement) -> Closed | None:
    """Close a usage row that was opened long ago, or was abandoned. None where an earlier try has closed it."""
    ending = settlement.ending
    idempotency = settlement.turn.request.idempotency
    if settlement.answer is not None and idempotency and not idempotency.is_held_by(settlement.request_id):
        ending = replace(ending, status=ledger.Status.ABANDONED, code=SUPERSEDED)
    was_abandoned = ledger.close_usage(ending)
    return None if was_abandoned is None else Closed(settlement, ending, was_abandoned)


def problems_of_earlier(settlements: Sequence[Settlement], closed: Sequence[Closed]) -> dict[str, ApiError]:
    """Tell what was wrong with a turn that an earlier try has settled, whose answer got lost."""
    done = {one.settlement.request_id for one in closed}
    problems: dict[str, ApiError] = {}
    for one in settlements:
        if one.request_id in done or one.answer is None:
            continue
        idempotency = one.turn.request.idempotency
        if idempotency and not idempotency.is_held_by(one.request_id):
            problems[one.request_id] = IdempotencyInProgress()
        elif (
            one.conversation_id
            and not Message.objects.filter(conversation_id=one.conversation_id, request_id=one.request_id).exists()
        ):
            problems[one.request_id] = deleted_meanwhile()
    return problems


def deleted_meanwhile() -> ApiError:
    return ConversationNotFound("The conversation was deleted while the reply was written.")


def key_row(settlement: Settlement) -> Row:
    idempotency = settlement.turn.request.idempotency
    assert idempotency
    return idempotency.row(settlement.request_id)


def forgetting_row(settlement: Settlement) -> Row:
    return {**key_row(settlement), "conversation_id": settlement.conversation_id}


def answer_row(settlement: Settlement) -> Row:
    return {**key_row(settlement), "response_json": json.dumps(settlement.answer, ensure_ascii=False)}


def closing_row(settlement: Settlement) -> Row:
    request = settlement.turn.request
    return {
        "request_id": request.request_id,
        "is_fenced": settlement.answer is not None and request.idempotency is not None,
        "client_token_id": request.client.pk,
        "idempotency_key": request.key,
        **settlement.ending.columns(),
    }


def event_row(ending: ledger.Ending) -> Row | None:
    event = ending.event()
    return event and {**vars(ending.subject), "event_name": event[0], "metadata_json": json.dumps(event[1])}


def conversation_rows(kept: Iterable[Closed]) -> list[Row]:
    """Return one row for each conversation, ordered by their ids. Later turns of one cut its history further."""
    rows: dict[str, dict[str, Any]] = {}
    for one in kept:
        subject, cut = one.ending.subject, one.settlement.turn.cut
        row = rows.setdefault(
            subject.conversation_id, {"conversation_id": subject.conversation_id, "user_id": subject.user_id}
        )
        if cut.history_from and cut.history_from >= row.get("history_from", 0):
            row |= {"history_from": cut.history_from, "instructions_to": cut.instructions_to}
    return sorted(rows.values(), key=lambda row: str(row["conversation_id"]))


def message_rows(kept: Iterable[Closed]) -> list[Row]:
    rows: list[Row] = []
    for one in kept:
        for message in [*one.settlement.turn.new, {"role": "assistant", **(one.settlement.reply or {})}]:
            columns = Message.columns_of(message)
            extra = None if columns["extra"] is None else json.dumps(columns["extra"])
            rows.append(
                {
                    **columns,
                    "extra": extra,
                    "position": len(rows),
                    "conversation_id": one.settlement.conversation_id,
                    "request_id": one.settlement.request_id,
                }
            )
    return rows


def used_tokens(closed: Closed) -> int | None:
    """Return what a turn has used; None where nobody knows: then all that it had reserved stays used."""
    tokens = closed.ending.tokens
    if tokens is not None and tokens.is_estimated and thinks(closed.settlement.turn.call.body):
        return None
    return tokens.total if tokens else 0


def budget_differences(closed: Iterable[Closed]) -> tuple[list[Row], list[Row]]:
    """Add up by how much budgets change: the counts of running turns, and what was spent."""
    turns: defaultdict[str, int] = defaultdict(int)
    spent: defaultdict[str, int] = defaultdict(int)
    for one in closed:
        if reservation := one.settlement.turn.reservation:
            tokens = used_tokens(one)
            nanos = None if tokens is None else one.ending.cost_nanos if one.ending.tokens else 0
            differences = budgets.differences(
                reservation.wanted, tokens=tokens, nanos=nanos, was_abandoned=one.was_abandoned
            )
            for total, difference in zip((turns, spent), differences, strict=True):
                for key, amount in difference.items():
                    total[key] += amount
    return rows_of(turns, "difference"), rows_of(spent, "difference")


def token_differences(closed: Iterable[Closed]) -> tuple[list[Row], list[Row]]:
    """Add up the tokens per minute that turns used beyond their estimate, and those that they give back, in seconds."""
    charged: defaultdict[str, float] = defaultdict(float)
    given_back: defaultdict[str, float] = defaultdict(float)
    for one in closed:
        reservation, tokens = one.settlement.turn.reservation, used_tokens(one)
        if reservation and tokens is not None and not one.was_abandoned:
            unused = reservation.unused_seconds(tokens)
            if unused < 0:
                charged[reservation.bucket] -= unused
            elif unused > 0:
                given_back[reservation.bucket] += unused
    return rows_of(charged, "cost"), rows_of(given_back, "cost")


def bytes_of(settlement: Settlement) -> int:
    """Return how much text the turn writes: its new messages and its answer."""
    return 0 if settlement.answer is None else length(settlement.turn.new) + length(settlement.answer)


def length(value: Any) -> int:
    """Add up the characters of all texts in a JSON value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(length, value.values()))
    return sum(map(length, value)) if isinstance(value, list) else 0


def rows_of(totals: Mapping[str, float], column: str) -> list[Row]:
    return [{"key": key, column: total} for key, total in sorted(totals.items())]


# A stream ends in a thread of its own. What was paid for waits as long as it can.
settlements: Lane[Settlement, ApiError | None] = Lane(
    "settle",
    write,
    owner_of=lambda settlement: settlement.turn.request.client.holder,
    bytes_of=bytes_of,
    patience=WAIT_SECONDS,
)
