"""Tokens of a prompt, estimated before the upstream counts them, and how many fit a model."""

import json
import math
import re
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

from django.conf import settings
from genai_prices.data_snapshot import get_snapshot

from chat.pieces import A_MESSAGE, worked

DEFAULT_REPLY_TOKENS = 4096
# Kept free for what a model thinks before it answers, which the bound of a reply counts too: without room for it the
# reply is empty. OpenAI's guide to reasoning advises to begin with 25,000 tokens for both.
REASONING_TOKENS = {"minimal": 1024, "low": 4096, "medium": 16_384, "high": 24_576, "xhigh": 49_152}
# What the chat format adds to each message, and to each reply (OpenAI cookbook, "How to count tokens").
FRAME_TOKENS = 4
PRIMING_TOKENS = 3
# Prose takes less than one token for three bytes of UTF-8.
BYTES_A_TOKEN = 3


class Estimate(NamedTuple):
    """Tokens of a text: what prose of this size takes, and the most that any text of it can take.

    A tuple, because one is made for each message of a history.
    """

    likely: int = 0
    most: int = 0

    def __add__(self, other: "Estimate") -> "Estimate":  # type: ignore[override]
        return Estimate(self.likely + other.likely, self.most + other.most)


# What is no text costs by what it shows or how long it plays, and its bytes are not words. Each pair is first the
# likely figure, and then the one at which most tokens come of a byte.

# A picture at full detail, roughly (OpenAI's guide "Images and vision": 85 tokens, and 170 for each of 8 tiles).
PICTURE_TOKENS = 1500
# OpenAI reads each page of a PDF as its text and as a picture (its guide "File inputs").
PAGE_TOKENS = Estimate(likely=500 + PICTURE_TOKENS, most=1500 + PICTURE_TOKENS)
PAGE_BYTES = (50_000, 10_000)
# A larger file is large for its pictures, not for its pages.
LARGE_FILE_PAGES = 25
# Where a data: URL tells its media type, and a file's name its kind, in characters.
HEAD = 100
# Files that are read as text, where the upstream takes others than PDFs: by their media type, or their name.
TEXT_TYPES = re.compile(
    r"data:(text/|application/([a-z0-9.-]*\+)?(x-)?(json|jsonl|ndjson|xml|yaml|javascript|sh|sql)\b)", re.I
)
TEXT_NAMES = re.compile(
    r"\.(txt|md|csv|tsv|jsonl?|ndjson|xml|html?|ya?ml|toml|ini|log|py|js|ts|java|go|rs|c|h|cpp|sh|sql)$", re.I
)
# What a user says is a token for each 100 ms (OpenAI's guide "Managing costs" of its realtime API).
AUDIO_TOKENS_A_SECOND = 10
# 16 and 8 kHz at 16 and 8 bits; 128 and 8 kbit/s, which is the lowest rate of MP3.
PLAIN_AUDIO = frozenset({"wav", "pcm16"})
PLAIN_AUDIO_BYTES = (32_000, 8_000)
COMPRESSED_AUDIO_BYTES = (16_000, 1_000)


def estimate_message(message: dict[str, Any]) -> Estimate:
    """Estimate one chat message, with all its fields."""
    worked(A_MESSAGE)
    size = 0
    media: list[Estimate] = []
    for name, value in message.items():
        if name == "content" and isinstance(value, list):
            worked(len(value))
            for part in value:
                estimate = MEDIA.get(part.get("type"))
                if estimate:
                    media.append(estimate(part))
                else:
                    size += text_bytes(part)
        elif name != "role":
            size += text_bytes(value)
    return sum(media, estimate_bytes(size, extra=FRAME_TOKENS))


def estimate_messages(messages: Iterable[dict[str, Any]]) -> Estimate:
    return sum(map(estimate_message, messages), Estimate())


def estimate_parameters(parameters: dict[str, Any]) -> Estimate:
    """Estimate what tools, response formats and fields that only the upstream knows add to the prompt."""
    names = ("tools", "response_format", *settings.UPSTREAM_FIELDS)
    schemas = [parameters[name] for name in names if name in parameters]
    return estimate_bytes(len(json.dumps(schemas).encode())) if schemas else Estimate()


def estimate_bytes(size: int, *, extra: int = 0) -> Estimate:
    """Estimate `size` bytes of text, and `extra` tokens. Tokenizers work on bytes: no byte takes two tokens."""
    return Estimate(math.ceil(size / BYTES_A_TOKEN) + extra, size + extra)


def estimate_picture(part: dict[str, Any]) -> Estimate:
    return Estimate(PICTURE_TOKENS, PICTURE_TOKENS)


def estimate_file(part: dict[str, Any]) -> Estimate:
    """Estimate a PDF by its size. Of one that was uploaded before, nobody here knows the size."""
    file = part.get("file")
    data = file.get("file_data") if isinstance(file, dict) else None
    if not isinstance(data, str) or not data:
        return Estimate(PAGE_TOKENS.likely, LARGE_FILE_PAGES * PAGE_TOKENS.most)
    size = base64_bytes(data)
    name = file.get("filename") if isinstance(file, dict) else None
    if TEXT_TYPES.match(data[:HEAD]) or (isinstance(name, str) and TEXT_NAMES.search(name[-HEAD:])):
        return estimate_bytes(size)
    likely, most = (math.ceil(size / a_page) for a_page in PAGE_BYTES)
    return Estimate(min(likely, LARGE_FILE_PAGES) * PAGE_TOKENS.likely, most * PAGE_TOKENS.most)


def estimate_audio(part: dict[str, Any]) -> Estimate:
    audio = part.get("input_audio")
    fields = audio if isinstance(audio, dict) else {}
    size = base64_bytes(str(fields.get("data") or ""))
    rates = PLAIN_AUDIO_BYTES if fields.get("format") in PLAIN_AUDIO else COMPRESSED_AUDIO_BYTES
    return Estimate(*(math.ceil(size * AUDIO_TOKENS_A_SECOND / a_second) for a_second in rates))


def base64_bytes(data: str) -> int:
    """Return how many bytes are in a Base64 text, or in a data: URL, which may hold its bytes as text."""
    is_text = data.startswith("data:") and ";base64," not in data[:HEAD]
    return len(data) if is_text else len(data) * 3 // 4


MEDIA = {"image_url": estimate_picture, "file": estimate_file, "input_audio": estimate_audio}


def text_bytes(value: Any) -> int:
    """Count the bytes of all text in a JSON value."""
    worked(1)
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
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
    """Return the most tokens that the reply may have: the client's own limit, or what is kept free for it.

    What the model rejects of a prediction is billed as if it were in the reply (OpenAI's guide "Predicted outputs").
    """
    asked: int | None = parameters.get("max_completion_tokens") or parameters.get("max_tokens")
    rejected = text_bytes(parameters.get("prediction"))
    thinking = REASONING_TOKENS.get(parameters.get("reasoning_effort", ""), 0)
    # A model with a short context keeps three quarters of it for the prompt.
    return (asked or min(DEFAULT_REPLY_TOKENS + thinking, context_tokens(model) // 4)) + rejected
