"""Which part of a conversation's history is sent: the newest whole turns that fit the model."""

import json
import math
from functools import cache
from itertools import pairwise
from typing import Any

from django.conf import settings
from genai_prices.data_snapshot import get_snapshot

from chat.exceptions import ContextLengthExceeded
from chat.models import Conversation, Message

# Messages read of a history, however many would fit: what a request does must not grow with the table.
MAX_MESSAGES = 400
DEFAULT_REPLY_TOKENS = 4096
# Roughly what a picture costs at full detail, for parts whose bytes are not words.
PART_TOKENS = 1500
# With which every reply is primed (OpenAI cookbook, "How to count tokens").
PRIMING_TOKENS = 3


def window_of(model: str) -> int:
    """Tokens that fit the model, prompt and reply together."""
    return published_window(model) or settings.OPENAI_CONTEXT_TOKENS


@cache
def published_window(model: str) -> int | None:
    try:
        _, info = get_snapshot().find_provider_model(model, None, "openai", None)
    except LookupError:
        return None
    return info.context_window


def estimate_tokens(message: dict[str, Any], *, bytes_a_token: int = 3) -> int:
    """What a message costs: prose takes less than a token for three bytes of UTF-8, and nothing more than one for each.

    The 4 are what the chat format adds to each message (OpenAI cookbook, "How to count tokens").
    """
    content = message.get("content")
    pictures = [part for part in content if part.get("type") == "image_url"] if isinstance(content, list) else []
    said = [part for part in content if part not in pictures] if isinstance(content, list) else content
    rest = [value for name, value in message.items() if name not in {"role", "content"}]
    return math.ceil(size_of([said, rest]) / bytes_a_token) + len(pictures) * PART_TOKENS + 4


def size_of(value: Any) -> int:
    """Bytes of the text in it."""
    if isinstance(value, dict):
        return sum(size_of(name) + size_of(item) for name, item in value.items() if name != "type")
    if isinstance(value, list):
        return sum(size_of(item) for item in value)
    return 0 if value is None else len(str(value).encode())


def reply_tokens(model: str, parameters: dict[str, Any]) -> int:
    """The most that the reply may have: as the client says, or what is kept free for it."""
    said: int | None = parameters.get("max_completion_tokens") or parameters.get("max_tokens")
    # A short window is not given away to the reply: a quarter of it is.
    return said or min(DEFAULT_REPLY_TOKENS, window_of(model) // 4)


def prompt_tokens(messages: list[dict[str, Any]], parameters: dict[str, Any], *, bytes_a_token: int = 3) -> int:
    """What the upstream counts as the prompt, as of `estimate_tokens`: messages, and what tools and formats say."""
    spoken = sum(estimate_tokens(message, bytes_a_token=bytes_a_token) for message in messages)
    said = [parameters[name] for name in ("tools", "response_format") if name in parameters]
    return spoken + (math.ceil(len(json.dumps(said).encode()) / bytes_a_token) if said else 0)


def most_prompt_tokens(body: dict[str, Any]) -> int:
    """What the prompt can cost at most: tokenizers work on bytes, and what does not fit the model is refused."""
    fitting = window_of(body["model"]) - reply_tokens(body["model"], body)
    return min(prompt_tokens(body["messages"], body, bytes_a_token=1) + PRIMING_TOKENS, max(fitting, 0))


def build(
    conversation: Conversation | None, new: list[dict[str, Any]], *, model: str, parameters: dict[str, Any]
) -> tuple[list[dict[str, Any]], bool]:
    """The messages to send, oldest first, and whether earlier ones were left out.

    Raises ContextLengthExceeded when the new messages alone do not fit.
    """
    window = window_of(model)
    system = [{"role": "system", "content": settings.SYSTEM_PROMPT}] if settings.SYSTEM_PROMPT else []
    budget = window - reply_tokens(model, parameters) - prompt_tokens([*system, *new], parameters)
    if budget < 0:
        raise ContextLengthExceeded(
            f"The messages and the reply do not fit the {window} tokens of {model}; "
            "shorten them, or lower max_completion_tokens."
        )
    history, is_truncated = recent_turns(conversation, budget) if conversation else ([], False)
    return [*system, *history, *new], is_truncated


def recent_turns(conversation: Conversation, budget: int) -> tuple[list[dict[str, Any]], bool]:
    """The newest turns worth at most `budget` tokens, oldest first, and whether there are older ones."""
    newest_first = list(conversation.messages.order_by("-id")[: MAX_MESSAGES + 1])
    rows = newest_first[:MAX_MESSAGES][::-1]
    starts = turn_starts(rows)
    if len(newest_first) <= MAX_MESSAGES and starts[:1] != [0]:
        starts.insert(0, 0)  # a conversation may open with a greeting by the assistant
    start = len(rows)
    spent = 0
    for begin, end in reversed(list(pairwise([*starts, len(rows)]))):
        spent += sum(estimate_tokens(row.as_openai()) for row in rows[begin:end])
        if spent > budget:
            break
        start = begin
    return [row.as_openai() for row in rows[start:]], start > 0 or len(newest_first) > MAX_MESSAGES


def turn_starts(rows: list[Message]) -> list[int]:
    """Where history may be cut: before a message that answers nothing.

    A tool's result is refused without the call before it, and a reply makes no sense without its question.
    """
    return [
        index
        for index, row in enumerate(rows)
        if row.role not in {Message.Role.ASSISTANT, Message.Role.TOOL}
        and (index == 0 or not row.request_id or row.request_id != rows[index - 1].request_id)
    ]
