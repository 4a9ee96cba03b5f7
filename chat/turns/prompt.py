"""The prompt of a turn: the newest whole turns of the conversation that fit the model, then the new messages."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from django.conf import settings

from chat import estimates
from chat.exceptions import ContextLengthExceeded
from chat.models import Conversation, Message

# Messages read of a history, however many would fit: the work of a request must not grow with the table.
MAX_MESSAGES = 400


@dataclass(frozen=True)
class Prompt:
    """What is sent to the model, oldest message first, and its size: nothing else of a turn estimates it again."""

    messages: list[dict[str, Any]]
    is_truncated: bool  # Older messages were left out.
    size: estimates.Estimate
    most_reply_tokens: int


def build(
    conversation: Conversation | None, new: list[dict[str, Any]], *, model: str, parameters: dict[str, Any]
) -> Prompt:
    """Lay out the system prompt, the history that fits, and the `new` messages.

    Raises ContextLengthExceeded when the new messages alone do not fit.
    """
    system = [{"role": "system", "content": settings.SYSTEM_PROMPT}] if settings.SYSTEM_PROMPT else []
    context, reply = estimates.context_tokens(model), estimates.most_reply_tokens(model, parameters)
    size = estimates.estimate_messages([*system, *new]) + estimates.estimate_parameters(parameters)
    if size.likely > context - reply:
        raise ContextLengthExceeded.of(context, prompt=size.likely, reply=reply)
    history: list[dict[str, Any]] = []
    is_truncated = False
    if conversation:
        history, history_size, is_truncated = recent_turns(conversation, context - reply - size.likely)
        size += history_size
    # What does not fit the model is refused by the upstream, and costs nothing.
    size = estimates.Estimate(size.likely, min(size.most + estimates.PRIMING_TOKENS, max(context - reply, 0)))
    return Prompt([*system, *history, *new], is_truncated, size, reply)


def recent_turns(conversation: Conversation, budget: int) -> tuple[list[dict[str, Any]], estimates.Estimate, bool]:
    """Read the newest turns worth at most `budget` tokens.

    Returns their messages, oldest first, their size, and whether there are older ones.
    """
    newest_first = list(conversation.messages.order_by("-id")[: MAX_MESSAGES + 1])
    rows = newest_first[:MAX_MESSAGES][::-1]
    starts = turn_starts(rows)
    if len(newest_first) <= MAX_MESSAGES and starts[:1] != [0]:
        starts.insert(0, 0)  # a conversation may open with a greeting by the assistant
    messages = [row.as_openai() for row in rows]
    start, size = len(rows), estimates.Estimate()
    for begin, end in reversed(list(pairwise([*starts, len(rows)]))):
        longer = size + estimates.estimate_messages(messages[begin:end])
        if longer.likely > budget:
            break
        start, size = begin, longer
    return messages[start:], size, start > 0 or len(newest_first) > MAX_MESSAGES


def turn_starts(rows: list[Message]) -> list[int]:
    """Find where history may be cut: before a message that answers nothing.

    The upstream refuses a tool's result without the call before it, and a reply makes no sense without its question.
    """
    return [
        index
        for index, row in enumerate(rows)
        if row.role not in {Message.Role.ASSISTANT, Message.Role.TOOL}
        and (index == 0 or not row.request_id or row.request_id != rows[index - 1].request_id)
    ]
