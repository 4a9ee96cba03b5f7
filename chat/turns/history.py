"""The history of a conversation, made such that any provider takes it, and cut to a size.

It consists of groups that stand or fall together: one message, or a reply's tool calls with their results. A
conversation is never wedged by what is in it: results without a call and calls without a result are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Self

import orjson
from django.db.models import QuerySet

from chat.conversations import read_within
from chat.estimates import Estimate, estimate_message
from chat.models import Message
from chat.turns.messages import canonical

ANSWERS = {"assistant", "tool"}
# Bytes of messages that are looked up beside the newest ones: instructions, a question, replies with calls.
MAX_READ_BYTES = 8 * 1024 * 1024


class StoredMessage(NamedTuple):
    """The row of a message, as far as turns read it. A tuple, because one is made for each message of a history."""

    pk: int
    role: str
    content: str | None  # None of the one before those that were read: it tells only that there are more
    extra: dict[str, Any] | None
    request_id: str

    @classmethod
    def read(cls, messages: QuerySet[Message]) -> list[Self]:
        """Read a slice of messages in its order, up to MAX_READ_BYTES."""
        found, _ = read_within(messages, MAX_READ_BYTES)
        return [cls(row.pk, row.role, row.content, row.extra, row.request_id) for row in found]

    def as_openai(self) -> dict[str, Any]:
        return {"role": self.role, "content": self.content, **(self.extra or {})}

    @property
    def bytes(self) -> int:
        return len((self.content or "").encode()) + (len(orjson.dumps(self.extra)) if self.extra else 0)


@dataclass(eq=False)
class Group:
    """Messages that are sent together or not at all. `begins_turn`: history may be cut before it."""

    messages: list[dict[str, Any]]
    begins_turn: bool = False
    new: int = 0  # messages of this very turn
    rows: list[StoredMessage] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)  # ids of its calls that have a result

    @property
    def has_calls(self) -> bool:
        return "tool_calls" in self.messages[0]

    @property
    def is_instruction(self) -> bool:
        return all(message["role"] in {"system", "developer"} for message in self.messages)

    @cached_property
    def size(self) -> Estimate:
        first, *more = map(estimate_message, self.messages)
        return sum(more, first)


def group(rows: Sequence[StoredMessage], new: list[dict[str, Any]], *, is_whole: bool) -> list[Group]:
    """Group stored rows, oldest first, and the `new` messages of a turn, each canonical, calls beside their results.

    A turn that answered calls may have been settled after another one: its calls move down to their results, which
    providers want right after them. A result of the new messages without a call stays, for the upstream to refuse:
    only the client can mend it. `is_whole`: no older rows exist, so the first may be cut before, whatever it is.
    """
    groups: dict[Group, None] = {}  # in their order; a group leaves its place in one step
    waiting: dict[str, Group] = {}
    last_request_id, last_role = "", ""
    for row, given in [*((row, row.as_openai()) for row in rows), *((None, message) for message in new)]:
        message = canonical(given)
        is_first = row is None or not row.request_id or row.request_id != last_request_id
        begins_turn = given["role"] not in ANSWERS and (is_first or last_role in ANSWERS)
        last_request_id, last_role = row.request_id if row else "", given["role"]
        if message is None or (row and message["role"] == "user" and not message["content"]):
            continue
        owner = waiting.pop(message.get("tool_call_id", ""), None) if message["role"] == "tool" else None
        if owner:
            owner.answered.add(message["tool_call_id"])
            del groups[owner]
        elif message["role"] == "tool" and row:
            continue
        owner = owner or Group([], begins_turn or (is_whole and not groups))
        owner.messages.append(message)
        owner.new += row is None
        owner.rows += [row] if row else []
        groups[owner] = None
        for call in message.get("tool_calls", ()):
            waiting[call["id"]] = owner
    return [kept for found in groups if (kept := without_open_calls(found))]


def count_known(rows: Sequence[StoredMessage], new: list[dict[str, Any]]) -> int:
    """Count the messages at the beginning of `new` that the conversation ends with.

    A library that runs a tool loop sends the whole exchange with each step, and a client may send the reply back before
    its next message. What is stored must be neither sent nor stored twice.
    """
    if not rows or rows[-1].role != Message.Role.ASSISTANT:
        return 0
    stored = [canonical(row.as_openai()) for row in rows[-2:]]
    for index in reversed(range(len(new) - 1)):
        is_after_the_same = index == 0 or len(stored) < 2 or is_same(new[index - 1], stored[0])
        if is_same(new[index], stored[-1]) and is_after_the_same:
            return index + 1
    return 0


def is_same(message: dict[str, Any], other: dict[str, Any] | None) -> bool:
    """Tell whether a message is one that was stored, whose canonical form is `other`.

    Calls are told by their ids, since libraries write arguments anew.
    """
    one = canonical(message) if other and message["role"] == other["role"] else None
    if not one or not other:
        return False
    ids, stored_ids = ([call["id"] for call in found.get("tool_calls", ())] for found in (one, other))
    return (bool(ids) and ids == stored_ids) or one == other


def without_open_calls(found: Group) -> Group | None:
    """Leave out calls that have no result. What a client sends right now is its own to complete."""
    reply = found.messages[0]
    calls = reply.get("tool_calls")
    if not calls or all(call["id"] in found.answered for call in calls) or (found.new and not found.rows):
        return found
    answered = [call for call in calls if call["id"] in found.answered]
    reply = canonical({**reply, "tool_calls": answered})  # type: ignore[assignment]
    found.messages = [*([reply] if reply else []), *found.messages[1:]]
    return found if found.messages else None
