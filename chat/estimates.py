"""Tokens of a prompt, estimated before the upstream counts them, and how many fit a model."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.conf import settings
from genai_prices.data_snapshot import get_snapshot

DEFAULT_REPLY_TOKENS = 4096
# What a picture costs at full detail, roughly: its bytes are not words.
PICTURE_TOKENS = 1500
# What the chat format adds to each message, and to each reply (OpenAI cookbook, "How to count tokens").
FRAME_TOKENS = 4
PRIMING_TOKENS = 3
# Prose takes less than one token for three bytes of UTF-8.
BYTES_A_TOKEN = 3


@dataclass(frozen=True)
class Estimate:
    """Tokens of a text: what prose of this size takes, and the most that any text of it can take."""

    likely: int = 0
    most: int = 0

    def __add__(self, other: "Estimate") -> "Estimate":
        return Estimate(self.likely + other.likely, self.most + other.most)


def estimate_message(message: dict[str, Any]) -> Estimate:
    """Estimate one chat message, with all its fields."""
    content = message.get("content")
    pictures = [part for part in content if part.get("type") == "image_url"] if isinstance(content, list) else []
    texts = [part for part in content if part not in pictures] if isinstance(content, list) else content
    others = [value for name, value in message.items() if name not in {"role", "content"}]
    return estimate_bytes(text_bytes([texts, others]), extra=len(pictures) * PICTURE_TOKENS + FRAME_TOKENS)


def estimate_messages(messages: Iterable[dict[str, Any]]) -> Estimate:
    return sum(map(estimate_message, messages), Estimate())


def estimate_parameters(parameters: dict[str, Any]) -> Estimate:
    """Estimate what tools and response formats add to the prompt."""
    schemas = [parameters[name] for name in ("tools", "response_format") if name in parameters]
    return estimate_bytes(len(json.dumps(schemas).encode())) if schemas else Estimate()


def estimate_bytes(size: int, *, extra: int = 0) -> Estimate:
    """Estimate `size` bytes of text, and `extra` tokens. Tokenizers work on bytes: no byte takes two tokens."""
    return Estimate(math.ceil(size / BYTES_A_TOKEN) + extra, size + extra)


def text_bytes(value: Any) -> int:
    """Count the bytes of all text in a JSON value."""
    if isinstance(value, dict):
        return sum(text_bytes(name) + text_bytes(item) for name, item in value.items() if name != "type")
    if isinstance(value, list):
        return sum(map(text_bytes, value))
    return 0 if value is None else len(str(value).encode())


def context_tokens(model: str) -> int:
    """Return how many tokens fit the model, prompt and reply together."""
    return published_context_tokens(model) or settings.OPENAI_CONTEXT_TOKENS


@cache
def published_context_tokens(model: str) -> int | None:
    try:
        _, info = get_snapshot().find_provider_model(model, None, "openai", None)
    except LookupError:
        return None
    return info.context_window


def most_reply_tokens(model: str, parameters: dict[str, Any]) -> int:
    """Return the most tokens that the reply may have: the client's own limit, or what is kept free for it."""
    asked: int | None = parameters.get("max_completion_tokens") or parameters.get("max_tokens")
    # A model with a short context keeps three quarters of it for the prompt.
    return asked or min(DEFAULT_REPLY_TOKENS, context_tokens(model) // 4)
