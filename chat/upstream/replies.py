"""What a model answers: read, checked and counted, and assembled from the chunks of a stream."""

import json
import time
from dataclasses import dataclass
from typing import Any, TypeGuard

from analytics.ledger import LlmTokens
from chat.estimates import estimate_message
from chat.exceptions import UpstreamError


@dataclass(frozen=True)
class Call:
    """One request to the upstream: `body` as it is sent, and the size of its prompt as it was estimated."""

    request_id: str
    body: dict[str, Any]
    prompt_tokens: int


@dataclass(frozen=True)
class Completion:
    """OpenAI's `chat.completion` object, checked, with its one message, and the tokens that it took."""

    body: dict[str, Any]
    message: dict[str, Any]
    model: str
    tokens: LlmTokens

    @property
    def service_tier(self) -> str:
        """The tier that served it, which sets its price; empty where the answer names none."""
        tier = self.body.get("service_tier")
        return tier[:20] if isinstance(tier, str) else ""


def loads(raw: bytes) -> Any:
    """Read JSON, with text that every database can store."""
    try:
        return storable(json.loads(raw, parse_constant=lambda _: None))
    except (ValueError, RecursionError) as exc:
        raise UpstreamError("The model's answer is not JSON.", is_billed=True) from exc


def check(body: Any, call: Call) -> Completion:
    """Check the shape of a completion, and fill in what providers leave out. Raises UpstreamError."""
    try:
        choice = body["choices"][0]
        message = choice["message"]
        content = message.setdefault("content", None)
        if not isinstance(content, str | None):
            raise TypeError
    except (LookupError, TypeError, AttributeError) as exc:
        raise UpstreamError("The model's answer is not a completion.", is_billed=True) from exc
    choice.setdefault("finish_reason", "stop")
    if not isinstance(body.get("model"), str) or not body["model"]:
        body["model"] = call.body["model"]
    if not isinstance(body.get("created"), int):
        body["created"] = int(time.time())
    return Completion(body, message, body["model"], tokens_of(body.get("usage"), call, message))


def tokens_of(usage: Any, call: Call, reply: dict[str, Any]) -> LlmTokens:
    """Return the upstream's own figures; where it names none, an estimate that is marked as one."""
    figures = usage if isinstance(usage, dict) else {}
    prompt_tokens = count(figures, "prompt_tokens")
    completion_tokens = count(figures, "completion_tokens")
    if prompt_tokens is None or completion_tokens is None:
        estimates = call.prompt_tokens, estimate_message(reply).likely
        return LlmTokens(*estimates, total=sum(estimates), is_estimated=True)
    total = count(figures, "total_tokens")
    return LlmTokens(
        prompt=prompt_tokens,
        completion=completion_tokens,
        total=total if total is not None else prompt_tokens + completion_tokens,
        cached=count(figures.get("prompt_tokens_details"), "cached_tokens") or 0,
        cache_write=count(figures.get("prompt_tokens_details"), "cache_write_tokens") or 0,
        reasoning=count(figures.get("completion_tokens_details"), "reasoning_tokens") or 0,
    )


def count(figures: Any, name: str) -> int | None:
    """Return the figure if it is a whole number that the database can hold, else None."""
    value = figures.get(name) if isinstance(figures, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def storable(value: Any) -> Any:
    """Copy a JSON value, with U+FFFD for what no database stores: NUL, and halves of surrogate pairs."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [storable(item) for item in value]
    return value


def is_chunk(chunk: Any) -> TypeGuard[dict[str, Any]]:
    """Tell whether a JSON value has the shape of a `chat.completion.chunk`, as far as it is read here."""
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    return isinstance(choices, list) and all(isinstance(choice, dict) and is_delta(choice) for choice in choices)


def is_delta(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta") or {}
    logprobs = choice.get("logprobs") or {}
    if not isinstance(delta, dict) or not isinstance(logprobs, dict):
        return False
    calls = delta.get("tool_calls") or []
    return (
        isinstance(delta.get("content"), str | None)
        and isinstance(choice.get("finish_reason"), str | None)
        and all(isinstance(entries, list | None) for entries in logprobs.values())
        and isinstance(calls, list)
        and all(isinstance(call, dict) and isinstance(call.get("index"), int) for call in calls)
    )


class Assembler:
    """Assembles the chunks of a stream into one `chat.completion`."""

    def __init__(self) -> None:
        self.body: dict[str, Any] = {}
        self.message: dict[str, Any] = {"role": "assistant", "content": None}
        self.logprobs: dict[str, list[Any]] = {}
        self.tool_calls: dict[int, dict[str, Any]] = {}
        self.finish_reason: str | None = None
        self._text: list[str] = []

    def add(self, chunk: dict[str, Any]) -> None:
        self.body.update((name, value) for name, value in chunk.items() if name != "choices" and value is not None)
        for choice in chunk["choices"][:1]:
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            for name, entries in (choice.get("logprobs") or {}).items():
                self.logprobs.setdefault(name, []).extend(entries or [])
            self._add_delta(choice.get("delta") or {})

    def _add_delta(self, delta: dict[str, Any]) -> None:
        for name, value in delta.items():
            if name == "content":
                self._text.append(value or "")
            elif name == "tool_calls":
                for call in value or []:
                    merge(self.tool_calls.setdefault(call["index"], {}), call)
            elif name != "role" and value is not None:
                merge(self.message, {name: value})

    @property
    def has_reply(self) -> bool:
        return any(self._text) or bool(self.tool_calls) or "refusal" in self.message

    def completion(self, call: Call, *, finish_reason: str | None = None) -> Completion:
        """Return what has come so far. Its tokens are an estimate unless the upstream has named them."""
        message = {**self.message, "content": "".join(self._text) if any(self._text) or not self.tool_calls else None}
        if self.tool_calls:
            calls = (self.tool_calls[index] for index in sorted(self.tool_calls))
            message["tool_calls"] = [{name: value for name, value in call.items() if name != "index"} for call in calls]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": self.logprobs or None,
            "finish_reason": finish_reason or self.finish_reason or "stop",
        }
        return check({**self.body, "choices": [choice]}, call)


def merge(into: dict[str, Any], delta: dict[str, Any]) -> None:
    """Merge a delta as OpenAI's SDKs do: strings grow, objects merge, all else is replaced."""
    for name, value in delta.items():
        old = into.get(name)
        if isinstance(old, str) and isinstance(value, str) and name not in {"id", "type", "role"}:
            into[name] = old + value
        elif isinstance(old, dict) and isinstance(value, dict):
            merge(old, value)
        elif value is not None:
            into[name] = dict(value) if isinstance(value, dict) else value
