"""The prompt of a turn: the newest whole turns of the conversation that fit the model, then the new messages."""

from dataclasses import dataclass
from typing import Any

from django.conf import settings

from chat import estimates
from chat.exceptions import ContextLengthExceeded
from chat.models import Message
from chat.turns.cuts import Cut, Stored, cut
from chat.turns.history import Group, count_known, group

# Messages as they are sent, and their size.
History = tuple[list[dict[str, Any]], estimates.Estimate]


@dataclass(frozen=True)
class Prompt:
    """What is sent to the model, oldest message first, and its size: nothing else of a turn estimates it again."""

    messages: list[dict[str, Any]]
    first_new: int  # The client's first message would stand here.
    known: int  # The client's first messages that the conversation has already.
    cut: Cut  # What later turns read of the history.
    size: estimates.Estimate
    most_reply_tokens: int


def build(stored: Stored | None, new: list[dict[str, Any]], *, model: str, parameters: dict[str, Any]) -> Prompt:
    """Lay out the system prompt, the history that fits, and the `new` messages that the conversation has not yet.

    Raises ContextLengthExceeded when the new messages alone do not fit.
    """
    system = [{"role": "system", "content": settings.SYSTEM_PROMPT}] if settings.SYSTEM_PROMPT else []
    context, reply = estimates.context_tokens(model), estimates.most_reply_tokens(model, parameters)
    known = count_known(stored.rows, new) if stored else 0
    whole = whole_history(stored) if stored else None
    groups = grouped(stored if whole is None else None, new[known:])
    current = [found for found in groups if found.new]
    size = sum((found.size for found in current), estimates.estimate_messages(system))
    size += estimates.estimate_parameters(parameters)
    room = context - reply - size.likely
    if room < 0:
        raise ContextLengthExceeded.of(context, prompt=size.likely, reply=reply)
    if whole and whole[1].likely > room:
        whole, groups = None, grouped(stored, new[known:])
    history = Cut()
    if stored and whole is None:
        older = groups[: len(groups) - len(current)]
        history = cut(stored, older, current, room=room, window=context - reply)
    older_messages, older_size = whole or merged(history.groups)
    size += older_size
    # What does not fit the model is refused by the upstream, and costs nothing.
    size = estimates.Estimate(size.likely, min(size.most + estimates.PRIMING_TOKENS, max(context - reply, 0)))
    messages = [*system, *older_messages, *(message for found in current for message in found.messages)]
    first_new = len(messages) - sum(found.new for found in current) - known
    return Prompt(messages, first_new, known, history, size, reply)


def whole_history(stored: Stored) -> History | None:
    """Return a history that has only text, and of which nothing is cut for its cost: most need no groups.

    None where it must be looked at more closely.
    """
    messages, likely, most = [], 0, 0
    for _, role, content, extra, _ in stored.rows:
        if (extra and any(extra.values())) or not content or role == Message.Role.TOOL:
            return None
        size = len(content) if content.isascii() else len(content.encode())
        likely += -(-size // estimates.BYTES_A_TOKEN) + estimates.FRAME_TOKENS
        most += size + estimates.FRAME_TOKENS
        messages.append({"role": role, "content": content})
    is_cut = not stored.is_whole or 0 < settings.HISTORY_TOKENS < likely
    return None if is_cut else (messages, estimates.Estimate(likely, most))


def merged(groups: list[Group]) -> History:
    messages = [message for found in groups for message in found.messages]
    return messages, sum((found.size for found in groups), estimates.Estimate())


def grouped(stored: Stored | None, new: list[dict[str, Any]]) -> list[Group]:
    """Group what is stored and what is new. A result may answer a call from before the history that is read."""
    if stored is None:
        return group([], new, is_whole=True)
    groups = group(stored.rows, new, is_whole=stored.is_whole)
    results = {found.messages[0]["tool_call_id"] for found in groups if found.messages[0]["role"] == "tool"}
    callers = stored.callers(results) if results and not stored.is_whole else []
    return group([*callers, *stored.rows], new, is_whole=False) if callers else groups
