"""The parts of a provider's chunk, read into OpenAI's: finish reasons, contents, calls and probabilities."""

import re
from typing import Any

from chat.exceptions import UpstreamError
from chat.upstream.text import storable

# Seconds, milliseconds, microseconds, nanoseconds.
TIME_UNITS = (1, 10**3, 10**6, 10**9)
MIN_TIME, MAX_TIME = 10**9, 2**32 - 1

# What finish reasons mean, by the words in them; the first that fits holds. OpenAI's own are stop, length, tool_calls
# and content_filter; FAILED is a reply that is not whole.
FAILED = "failed"
MEANINGS = {
    "": r"^(null|none)?$",
    "content_filter": r"safety|content_filter|prohibited|blocklist|spii|guardrail|recitation|sensitive|moderat",
    FAILED: r"malformed|unexpected_tool|error|abort|cancel|timeout|insufficient|failed|failure|overload",
    "length": r"length|max_|token_limit|incomplete|context_window|truncat",
    "tool_calls": r"tool|function_call",
}


def unreadable(reason: str) -> UpstreamError:
    return UpstreamError(f"The model's answer cannot be read: {reason}.", is_billed=True)


def meaning_of(reason: Any) -> str:
    """Return what a finish reason means: one of OpenAI's, FAILED, or "" for none. Google writes some after a colon."""
    if not isinstance(reason, str):
        return "stop" if reason else ""
    word = re.sub(r"[\s-]+", "_", reason.lower())
    return next((meaning for meaning, pattern in MEANINGS.items() if re.search(pattern, word)), "stop")


def time_of(value: Any) -> int:
    """Return a time in seconds since 1970, 0 for none. Some providers send finer units, a fraction, or text."""
    if type(value) is int and 0 < value <= MAX_TIME:
        return value
    if isinstance(value, str) and len(value) < 20 and value.isdecimal():
        value = int(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return 0
    # Another number than a time of our days is none.
    return next((int(value // unit) for unit in TIME_UNITS if MIN_TIME <= value // unit <= MAX_TIME), 0)


def choices_of(frame: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the choices of a chunk that hold something; a single one may stand without its list."""
    choices = frame.get("choices") or []
    choices = [choices] if isinstance(choices, dict) else choices
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices if choice):
        raise unreadable("its choices are none")
    return [choice for choice in choices if choice]


def parts_of(content: Any) -> tuple[str, str]:
    """Return the text of a content, and the thinking in it: Mistral sends both as parts."""
    if content is None or isinstance(content, str):
        return content or "", ""
    texts, thoughts = [], []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            texts.append(part)
        elif part is not None and not isinstance(part, dict):
            raise unreadable("its content is no text")
        elif not part:
            continue
        elif part.get("type") in {"thinking", "reasoning"}:
            thought = part.get(part["type"], part.get("text"))
            thoughts.append("".join(parts_of(thought)))
        elif isinstance(part.get("text"), str):
            texts.append(part["text"])
    return "".join(texts), "".join(thoughts)


def calls_of(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the deltas of tool calls, the legacy `function_call` as one of them."""
    calls = given.get("tool_calls") or []
    calls = [calls] if isinstance(calls, dict) else calls
    if not isinstance(calls, list) or not all(isinstance(call, dict | None) for call in calls):
        raise unreadable("its tool calls are none")
    calls = [call for call in calls if call]
    legacy = given.get("function_call")
    return [*calls, {"index": 0, "function": legacy}] if isinstance(legacy, dict) and legacy else calls


def logprobs_of(value: Any) -> dict[str, list[Any]]:
    """Return the lists of OpenAI's `logprobs` that hold something."""
    lists = value.items() if isinstance(value, dict) else ()
    return {name: storable(entries) for name, entries in lists if isinstance(entries, list) and entries}
