"""The prompt of a turn: the newest whole turns of the conversation that fit the model, then the new messages."""

from dataclasses import dataclass
from typing import Any

from django.conf import settings

from chat import estimates
from chat.exceptions import ContextLengthExceeded
from chat.models import Conversation
from chat.turns.history import Group, count_known, fitting, group
from chat.turns.messages import canonical

# Messages read of a history, however many would fit: the work of a request must not grow with the table.
MAX_MESSAGES = 400


@dataclass(frozen=True)
class Prompt:
    """What is sent to the model, oldest message first, and its size: nothing else of a turn estimates it again."""

    messages: list[dict[str, Any]]
    first_new: int  # The client's first message would stand here.
    known: int  # The client's first messages that the conversation has already.
    is_truncated: bool  # Older messages were left out.
    history_from: int | None  # The oldest message that later turns still read; None: all.
    size: estimates.Estimate
    most_reply_tokens: int


@dataclass(frozen=True)
class History:
    """What is sent of a conversation. `history_from` None: it has not been cut for good."""

    groups: list[Group]
    is_truncated: bool = False
    history_from: int | None = None


def build(
    conversation: Conversation | None, new: list[dict[str, Any]], *, model: str, parameters: dict[str, Any]
) -> Prompt:
    """Lay out the system prompt, the history that fits, and the `new` messages that the conversation has not yet.

    Raises ContextLengthExceeded when the new messages alone do not fit.
    """
    system = [{"role": "system", "content": settings.SYSTEM_PROMPT}] if settings.SYSTEM_PROMPT else []
    context, reply = estimates.context_tokens(model), estimates.most_reply_tokens(model, parameters)
    rows = list(conversation.history().order_by("-id")[: MAX_MESSAGES + 1]) if conversation else []
    is_whole = len(rows) <= MAX_MESSAGES and not (conversation and conversation.history_from)
    oldest_first = rows[:MAX_MESSAGES][::-1]
    known = count_known(oldest_first, new)
    groups = group(oldest_first, new[known:], is_whole=is_whole)
    current = [found for found in groups if found.is_new]
    size = sum((found.size for found in current), estimates.estimate_messages(system))
    size += estimates.estimate_parameters(parameters)
    room = context - reply - size.likely
    if room < 0:
        raise ContextLengthExceeded.of(context, prompt=size.likely, reply=reply)
    history = History([])
    if conversation:
        older, is_full = groups[: len(groups) - len(current)], len(rows) > MAX_MESSAGES
        history = cut(conversation, older, current, room, is_full=is_full, is_whole=is_whole)
    size = sum((found.size for found in history.groups), size)
    # What does not fit the model is refused by the upstream, and costs nothing.
    size = estimates.Estimate(size.likely, min(size.most + estimates.PRIMING_TOKENS, max(context - reply, 0)))
    messages = [*system, *(message for found in [*history.groups, *current] for message in found.messages)]
    first_new = len(messages) - sum(canonical(message) is not None for message in new[known:]) - known
    return Prompt(messages, first_new, known, history.is_truncated, history.history_from, size, reply)


def cut(
    conversation: Conversation, groups: list[Group], current: list[Group], room: int, *, is_full: bool, is_whole: bool
) -> History:
    """Cut the history to what it may cost, and to the `room` that the model has for it.

    Over HISTORY_TOKENS or MAX_MESSAGES it is cut to half of that, for good: so the prompts of many turns begin with
    the same messages, and the provider's prefix cache holds. For want of room it is cut for this turn alone.
    `is_full`: more than MAX_MESSAGES were found. `is_whole`: all of the conversation was read.
    """
    history_from, start = conversation.history_from, 0
    is_over = bool(settings.HISTORY_TOKENS) and sum(found.size.likely for found in groups) > settings.HISTORY_TOKENS
    if is_over or is_full:
        most = settings.HISTORY_TOKENS // 2 if is_over else room
        start = fitting(groups, tokens=most, messages=MAX_MESSAGES // 2)
        kept = [row.pk for found in [*groups[start:], *current] for row in found.rows]
        history_from = min(kept, default=history_from)
    start = max(start, fitting(groups, tokens=room, messages=MAX_MESSAGES))
    question = None
    if groups and not [*groups[start:], *current][0].begins_turn:
        # The history is cut inside of a turn, whose question is sent all the same.
        question = question_of(conversation, groups[:start], current)
    if question and question.size.likely <= room:
        start = max(start, fitting(groups, tokens=room - question.size.likely, messages=MAX_MESSAGES))
        return History([question, *groups[start:]], is_truncated=True, history_from=history_from)
    return History(groups[start:], start > 0 or not is_whole, history_from)


def question_of(conversation: Conversation, older: list[Group], current: list[Group]) -> Group | None:
    """Find the last message before a cut that begins a turn: among what was read, or before it."""
    if found := next((found for found in reversed(older) if found.begins_turn), None):
        return found
    first = min((row.pk for found in [*older, *current] for row in found.rows), default=None)
    before = conversation.messages.filter(role="user", **({"pk__lt": first} if first else {}))
    row = before.order_by("-pk").first()
    return group([row], [], is_whole=True)[0] if row else None
