"""What OpenAI refuses of a request to chat completions: the rules that a double must not be kinder about.

Words, codes and parameters are those that the API answers with, as its users report them.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

# CompletionCreateParams of openai-python 3.54.
PARAMETERS = {
    *("messages", "model", "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs"),
    *("max_completion_tokens", "max_tokens", "metadata", "modalities", "moderation", "n", "parallel_tool_calls"),
    *("prediction", "presence_penalty", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
    *("reasoning_effort", "response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream"),
    *("stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity"),
    "web_search_options",
}
FIELDS = {
    "system": {"role", "content", "name"},
    "developer": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {"role", "content", "name", "refusal", "tool_calls"},
    "tool": {"role", "content", "tool_call_id"},
}
PARTS = {
    "user": {"text", "image_url", "input_audio", "file"},
    "assistant": {"text", "refusal"},
}
SAMPLING = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "logprobs": False}
REASONING = re.compile(r"o\d|gpt-[5-9]")
# Models that want the Responses API for tools with reasoning.
SPLIT = re.compile(r"gpt-(5\.[6-9]|[6-9])")


class Refusal(NamedTuple):
    message: str
    param: str | None = None
    code: str | None = None


def refusal_of(body: dict[str, Any]) -> Refusal | None:
    """Return why OpenAI refuses the request; None where it takes it."""
    return next(iter([*_parameters(body), *_reasoning(body), *_messages(body.get("messages"))]), None)


def _parameters(body: dict[str, Any]) -> Iterator[Refusal]:
    for name in body:
        if name not in PARAMETERS:
            yield Refusal(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    if body.get("metadata") is not None and not body.get("store"):
        yield Refusal("The 'metadata' parameter is only allowed when 'store' is enabled.", "metadata")
    if body.get("stream_options") is not None and not body.get("stream"):
        yield Refusal("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    for name in ("tools", "functions", "modalities"):
        if body.get(name) == []:
            yield _empty(name)
    for name in ("tool_choice", "parallel_tool_calls"):
        if body.get(name) is not None and not body.get("tools"):
            yield Refusal(f"'{name}' is only allowed when 'tools' are specified.", name)
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        yield Refusal(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.", "max_tokens"
        )
    for name in ("safety_identifier", "prompt_cache_key"):
        if len(body.get(name) or "") > 64:
            yield Refusal(
                f"Invalid '{name}': string too long. Expected a string with maximum length 64.",
                name,
                "string_above_max_length",
            )


def _reasoning(body: dict[str, Any]) -> Iterator[Refusal]:
    model = str(body.get("model"))
    if not REASONING.match(model):
        if body.get("reasoning_effort"):
            yield Refusal(
                "Unrecognized request argument supplied: reasoning_effort", "reasoning_effort", "unknown_parameter"
            )
        return
    if body.get("max_tokens") is not None:
        yield Refusal(
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            "max_tokens",
            "unsupported_parameter",
        )
    if body.get("reasoning_effort") == "none":
        return
    if body.get("tools") and SPLIT.match(model):
        yield Refusal(
            f"Function tools with reasoning_effort are not supported for {model} in /v1/chat/completions. "
            "To use function tools, use /v1/responses or set reasoning_effort to 'none'.",
            "reasoning_effort",
        )
    for name, default in SAMPLING.items():
        if body.get(name) not in (None, default):
            yield Refusal(
                f"Unsupported value: '{name}' does not support {body[name]} with this model. "
                f"Only the default ({default}) value is supported.",
                name,
                "unsupported_value",
            )


def _messages(messages: Any) -> Iterator[Refusal]:
    if not isinstance(messages, list) or not messages:
        yield _empty("messages")
        return
    for index, message in enumerate(messages):
        yield from _message(message, f"messages[{index}]")
    yield from _pairs(messages)


def _message(message: dict[str, Any], path: str) -> Iterator[Refusal]:
    role = message.get("role")
    if role not in FIELDS:
        yield Refusal(f"Invalid value: '{role}'.", f"{path}.role", "invalid_value")
        return
    for name, value in message.items():
        if name not in FIELDS[role]:
            yield Refusal(f"Unknown parameter: '{path}.{name}'.", f"{path}.{name}", "unknown_parameter")
        elif value is None and not (role == "assistant" and name in {"content", "refusal"}):
            yield _wrong_type(f"{path}.{name}", "null")
    yield from _content(message, path)
    if "tool_calls" in message:
        yield from _calls(message["tool_calls"], f"{path}.tool_calls")


def _content(message: dict[str, Any], path: str) -> Iterator[Refusal]:
    content, role = message.get("content"), message["role"]
    if content is None and not (role == "assistant" and (message.get("tool_calls") or message.get("refusal"))):
        yield Refusal("Invalid value for 'content': expected a string, got null.", f"{path}.content")
    if content == []:
        yield _empty(f"{path}.content")
    for part in content if isinstance(content, list) else []:
        if part.get("type") not in PARTS.get(role, {"text"}):
            yield Refusal(f"Invalid value: '{part.get('type')}'.", f"{path}.content", "invalid_value")


def _calls(calls: Any, path: str) -> Iterator[Refusal]:
    if not isinstance(calls, list):
        yield _wrong_type(path, "null" if calls is None else "an object")
        return
    if not calls:
        yield _empty(path)
    for index, call in enumerate(calls):
        kind = call.get("type")
        if kind == "custom" and set(call) == {"id", "type", "custom"}:
            continue
        if kind != "function" or set(call) != {"id", "type", "function"}:
            yield Refusal(f"Missing or unknown parameter in '{path}[{index}]'.", f"{path}[{index}]")
            continue
        if not call["id"] or len(call["id"]) > 64:
            yield Refusal(f"Invalid '{path}[{index}].id': expected 1 to 64 characters.", f"{path}[{index}].id")
        function = call["function"]
        if set(function) != {"name", "arguments"} or not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", function["name"]):
            yield Refusal(f"Invalid '{path}[{index}].function.name'.", f"{path}[{index}].function.name")
        try:
            json.loads(function.get("arguments") or "")
        except (TypeError, ValueError):
            yield Refusal(
                f"Invalid '{path}[{index}].function.arguments': expected JSON.", f"{path}[{index}].function.arguments"
            )


def _pairs(messages: list[dict[str, Any]]) -> Iterator[Refusal]:
    """Each call is answered once, by the tool messages that follow it at once."""
    waiting: set[str] = set()
    for index, message in enumerate([*messages, {"role": "end"}]):
        if message["role"] == "tool":
            if message.get("tool_call_id") not in waiting:
                yield Refusal(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message "
                    "with 'tool_calls'.",
                    f"messages.[{index}].role",
                )
            waiting.discard(message.get("tool_call_id", ""))
            continue
        if waiting:
            yield Refusal(
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                "'tool_call_id'. The following tool_call_ids did not have response messages: "
                + ", ".join(sorted(waiting)),
                f"messages.[{index}].role",
            )
        waiting = {call.get("id", "") for call in message.get("tool_calls") or []}


def _empty(path: str) -> Refusal:
    return Refusal(
        f"Invalid '{path}': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        path,
        "empty_array",
    )


def _wrong_type(path: str, given: str) -> Refusal:
    return Refusal(f"Invalid type for '{path}': got {given} instead.", path, "invalid_type")
