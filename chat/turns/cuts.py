"""Where the history of a conversation is cut: at what it may cost, and at the room that the model has for it."""

import math
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from chat.models import Conversation, Message
from chat.turns.history import Group, StoredMessage, group

# Messages read of a history, however many would fit: the work of a request must not grow with the table.
MAX_MESSAGES = 400
# Parts and calls read of a history. A request may store as many, but not each request of a conversation.
MAX_PARTS = 8_192
# Bytes of a history that are read, of messages as they are stored: some 2 million tokens of text, or a few photographs.
# The last exchange is read however large: a request is at most MAX_REQUEST_BYTES.
MAX_BYTES = 8 * 1024 * 1024
LAST_EXCHANGE = 2
# Messages at the beginning of a conversation that may be its instructions.
MAX_INSTRUCTIONS = 4
# Replies with calls in which the call of a late result is looked for.
MAX_CALLS = 50


@dataclass(frozen=True)
class Cut:
    """What is sent of a history, and from where it is read from now on.

    `history_from` None: it has not been cut for good. `instructions_to` None: it begins with no instructions, or has
    not been cut.
    """

    groups: list[Group] = field(default_factory=list)
    is_truncated: bool = False
    history_from: int | None = None
    instructions_to: int | None = None


@dataclass(frozen=True)
class Stored:
    """What was read of a conversation, oldest first. `is_full`: there was more than is read at once."""

    conversation: Conversation
    rows: list[StoredMessage]
    is_full: bool

    @classmethod
    def of(cls, conversation: Conversation, rows: list[StoredMessage]) -> "Stored":
        """Take its newest messages, and one more where there are more: it stands first, maybe without its text.

        Where these have more than MAX_PARTS, half as many are taken: the next turns then begin with the same messages.
        """
        is_full = len(rows) > MAX_MESSAGES or (bool(rows) and rows[0].content is None)
        newest = rows[is_full:][-MAX_MESSAGES:]
        if sum(count_parts(row) for row in newest if row.extra) > MAX_PARTS:
            newest = within_parts(newest, MAX_PARTS // 2)
        return cls(conversation, newest, len(newest) < len(rows))

    @property
    def is_whole(self) -> bool:
        """Tell whether these are all messages of the conversation."""
        return not self.is_full and not self.conversation.history_from

    def callers(self, results: set[str]) -> list[StoredMessage]:
        """Read the replies before these rows whose calls have the `results`, whose ids are given, only now."""
        before = self.conversation.messages.filter(role=Message.Role.ASSISTANT, extra__isnull=False)
        if self.rows:
            before = before.filter(pk__lt=self.rows[0].pk)
        found = StoredMessage.read(before.order_by("-pk")[:MAX_CALLS])
        return [row for row in reversed(found) if results & {call.get("id") for call in calls_of(row)}]


def count_parts(row: StoredMessage) -> int:
    """Count the parts, calls and other entries of a message."""
    return sum(len(value) for value in (row.extra or {}).values() if isinstance(value, list))


def within_parts(rows: list[StoredMessage], most: int) -> list[StoredMessage]:
    """Return the newest rows that have at most so many parts together."""
    start = len(rows)
    while start > 0 and (most := most - count_parts(rows[start - 1])) >= 0:
        start -= 1
    return rows[start:]


def calls_of(row: StoredMessage) -> list[dict[str, Any]]:
    calls = (row.extra or {}).get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def cut(stored: Stored, groups: list[Group], current: list[Group], *, room: int, window: int) -> Cut:
    """Cut the history to what it may cost, and to the `room` that the model's `window` has beside the new messages.

    Over HISTORY_TOKENS, MAX_MESSAGES or MAX_BYTES it is cut to half of that, for good; for want of room it is cut by
    half windows, and for this turn alone. Either way the prompts of many turns begin with the same messages, so that
    the provider's prefix cache holds. Instructions at the beginning stay, and so does the question of a turn that is
    cut inside.
    """
    instructions = instructions_of(stored, groups)
    if stored.is_whole:
        groups = groups[len(instructions) :]
        for first in groups[:1]:
            first.begins_turn = True
    room = max(room - tokens_of(instructions), 0)
    start, history_from = cut_for_good(stored, groups, current)
    start = max(start, start_by_room(groups, room, window))
    instructions_to = max((row.pk for found in instructions for row in found.rows), default=None)
    question = None
    if groups and not [*groups[start:], *current][0].begins_turn:
        question = question_of(stored, groups[:start], [*groups[start:], *current])
    if question and question.size.likely <= room:
        start = max(start, fitting(groups, room - question.size.likely))
        instructions = [*instructions, question]
    return Cut(
        [*instructions, *groups[start:]],
        is_truncated=start > 0 or not stored.is_whole,
        history_from=history_from,
        instructions_to=instructions_to if history_from else None,
    )


def cut_for_good(stored: Stored, groups: list[Group], current: list[Group]) -> tuple[int, int | None]:
    """Return where the history begins by what it may cost, and the message that it is read from after this turn.

    The last exchange is never cut for its cost: without it the next message has no meaning.
    """
    is_over = 0 < settings.HISTORY_TOKENS < tokens_of(groups)
    if not groups or not (is_over or stored.is_full):
        return 0, stored.conversation.history_from
    most = settings.HISTORY_TOKENS // 2 if is_over else tokens_of(groups)
    start = fitting(groups, most, messages=MAX_MESSAGES // 2)
    if stored.is_full and len(stored.rows) < MAX_MESSAGES:
        start = max(start, fitting_bytes(groups, MAX_BYTES // 2))
    start = at_turn(groups, start)
    last_turn = next((index for index in reversed(range(len(groups))) if groups[index].begins_turn), 0)
    if start == len(groups) or (start > last_turn and not any(found.has_calls for found in groups[last_turn:])):
        start = min(last_turn, len(groups) - 1)
    kept = [row.pk for found in [*groups[start:], *current] for row in found.rows]
    return start, min(kept, default=stored.conversation.history_from)


def start_by_room(groups: list[Group], room: int, window: int) -> int:
    """Return where the history begins so that it fits: after a multiple of half the window where that leaves any."""
    excess = tokens_of(groups) - room
    if excess <= 0:
        return 0
    half = max(window // 2, 1)
    left_out, stepped = math.ceil(excess / half) * half, 0
    while stepped < len(groups) and left_out > 0:
        left_out -= groups[stepped].size.likely
        stepped += 1
    exact = fitting(groups, room)
    stepped = at_turn(groups, max(stepped, exact))
    return stepped if stepped < len(groups) and groups[stepped].begins_turn else at_turn(groups, exact)


def at_turn(groups: list[Group], start: int) -> int:
    """Return the beginning of a turn at or after `start`; `start` itself where none follows."""
    if start == 0:
        return 0
    return next((index for index in range(start, len(groups)) if groups[index].begins_turn), start)


def fitting(groups: list[Group], tokens: int, *, messages: int = MAX_MESSAGES) -> int:
    """Return where the newest groups begin that take at most `tokens`, as likely estimated, and so many `messages`."""
    start = len(groups)
    while start > 0:
        tokens -= groups[start - 1].size.likely
        messages -= len(groups[start - 1].messages)
        if tokens < 0 or messages < 0:
            break
        start -= 1
    return start


def fitting_bytes(groups: list[Group], most: int) -> int:
    """Return where the newest groups begin that are at most so many bytes as they are stored."""
    for index in reversed(range(len(groups))):
        most -= sum(row.bytes for row in groups[index].rows)
        if most < 0:
            return index + 1
    return 0


def tokens_of(groups: list[Group]) -> int:
    return sum(found.size.likely for found in groups)


def instructions_of(stored: Stored, groups: list[Group]) -> list[Group]:
    """Return the conversation's instructions: system messages at its beginning, which no cut leaves out."""
    if not stored.is_whole:
        conversation = stored.conversation
        if conversation.history_from and not conversation.instructions_to:
            return []
        first = StoredMessage.read(conversation.messages.order_by("pk")[:MAX_INSTRUCTIONS])
        groups = group([row for row in first if row.role in {"system", "developer"}], [], is_whole=True)
    leading = next((index for index, found in enumerate(groups) if not found.is_instruction), len(groups))
    return groups[:leading]


def question_of(stored: Stored, older: list[Group], kept: list[Group]) -> Group | None:
    """Find the message that begins the turn which is cut inside: among what was read, or before it."""
    if found := next((found for found in reversed(older) if found.begins_turn), None):
        return found
    first = min((row.pk for found in [*older, *kept] for row in found.rows), default=None)
    before = stored.conversation.messages.filter(role=Message.Role.USER)
    rows = StoredMessage.read((before.filter(pk__lt=first) if first else before).order_by("-pk")[:1])
    return group(rows, [], is_whole=True)[0] if rows and count_parts(rows[0]) <= MAX_PARTS else None
