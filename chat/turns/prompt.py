"""The prompt of a turn: the newest whole turns of the conversation that fit the model, then the new messages."""

from dataclasses import dataclass
from typing import Any

from django.conf import settings

from chat import estimates
from chat.exceptions import ContextLengthExceeded
from chat.turns.cuts import Cut, Stored, cut
from chat.turns.history import Group, count_known, group


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
    groups = grouped(stored, new[known:])
    current = [found for found in groups if found.new]
    size = sum((found.size for found in current), estimates.estimate_messages(system))
    size += estimates.estimate_parameters(parameters)
    room = context - reply - size.likely
    if room < 0:
        raise ContextLengthExceeded.of(context, prompt=size.likely, reply=reply)
    history = Cut()
    if stored:
        older = groups[: len(groups) - len(current)]
        history = cut(stored, older, current, room=room, window=context - reply)
    size = sum((found.size for found in history.groups), size)
    # What does not fit the model is refused by the upstream, and costs nothing.
    size = estimates.Estimate(size.likely, min(size.most + estimates.PRIMING_TOKENS, max(context - reply, 0)))
    messages = [*system, *(message for found in [*history.groups, *current] for message in found.messages)]
    first_new = len(messages) - sum(found.new for found in current) - known
    return Prompt(messages, first_new, known, history, size, reply)


def grouped(stored: Stored | None, new: list[dict[str, Any]]) -> list[Group]:
    """Group what is stored and what is new. A result may answer a call from before the history that is read."""
    if stored is None:
        return group([], new, is_whole=True)
    groups = group(stored.rows, new, is_whole=stored.is_whole)
    results = {found.messages[0]["tool_call_id"] for found in groups if found.messages[0]["role"] == "tool"}
    callers = stored.callers(results) if results and not stored.is_whole else []
    return group([*callers, *stored.rows], new, is_whole=False) if callers else groups
