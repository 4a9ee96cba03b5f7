"""The canonical form of a message: what every provider takes, strict ones too.

Messages are kept as clients and models sent them, and made canonical whenever they go upstream. So what was stored
before a rule was known is sent by it all the same.
"""

import json
import re
from typing import Any

from django.conf import settings

from chat.pieces import A_MESSAGE, MAX_VALUES, count_json, worked
from chat.upstream.message_fields import CALL_FIELDS, RETURNABLE

# What OpenAI takes in the name of a user and of a tool.
NOT_IN_NAMES = re.compile(r"[\s<|\\/>]")
NOT_IN_TOOL_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
MAX_NAME = 64  # characters
# Shorter arguments of a call cannot have MAX_VALUES.
FEW_VALUES = 2 * MAX_VALUES  # characters
# JSON that is read in the time in which Python handles one value.
CHARACTERS_A_VALUE = 32


def canonical(message: dict[str, Any]) -> dict[str, Any] | None:
    """Return the message as it goes upstream; None for a reply that says nothing, which strict providers refuse."""
    worked(A_MESSAGE)
    role = message["role"]
    if role == "assistant":
        return canonical_reply(message)
    found: dict[str, Any] = {"role": role, "content": canonical_content(message.get("content"), role)}
    if role == "tool":
        found["tool_call_id"] = str(message.get("tool_call_id") or "")
    elif message.get("name"):
        found["name"] = canonical_name(message["name"])
    return found


def canonical_name(name: Any) -> str:
    return NOT_IN_NAMES.sub("_", str(name)[:MAX_NAME])


def canonical_content(content: Any, role: str) -> str | list[dict[str, Any]]:
    """Return text, or a user's parts where they are not only text: few providers take parts elsewhere."""
    if isinstance(content, str):
        return content
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    worked(2 * len(parts))
    if role == "user" and any(part.get("type") != "text" or len(part) > 2 for part in parts):
        return [part for part in parts if part.get("type") not in {"text", "refusal"} or part.get("text")]
    return "\n".join(str(part["text"]) for part in parts if part.get("text"))


def canonical_reply(message: dict[str, Any]) -> dict[str, Any] | None:
    content = message.get("content")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        worked(2 * len(parts))
        content = "".join(str(part.get("text") or part.get("refusal") or "") for part in parts)
    # Only OpenAI has a field for refusals; to all others they are what the assistant said.
    content = next((text for text in (content, message.get("refusal")) if text and isinstance(text, str)), None)
    given = message.get("tool_calls")
    worked(6 * len(given) if isinstance(given, list) else 0)
    calls = [call for one in given if (call := canonical_call(one))] if isinstance(given, list) else []
    found: dict[str, Any] = {"role": "assistant", "content": content or None}
    if calls:
        found["tool_calls"] = calls
    if message.get("name"):
        found["name"] = canonical_name(message["name"])
    if len(message) > len(found):
        for name in RETURNABLE.keys() & settings.UPSTREAM_MESSAGE_FIELDS:
            if value := message.get(name) or message.get(RETURNABLE[name]):
                found[name] = value
    return found if content or calls else None


def canonical_call(call: Any) -> dict[str, Any] | None:
    """Return a tool call with an id, a name and JSON for arguments; None where it has no name to be called by."""
    if not isinstance(call, dict):
        return None
    kind = "custom" if isinstance(call.get("custom"), dict) else "function"
    given = call.get(kind)
    if not isinstance(given, dict) or not given.get("name") or not isinstance(call.get("id"), str) or not call["id"]:
        return None
    # Models call tools by names that OpenAI does not take back, such as `functions.weather`.
    name = NOT_IN_TOOL_NAMES.sub("_", str(given["name"])[:MAX_NAME])
    if kind == "custom":
        body = {"name": name, "input": str(given.get("input") or "")}
    else:
        body = {"name": name, "arguments": canonical_arguments(given.get("arguments"))}
    extra = {name: call[name] for name in CALL_FIELDS & set(settings.UPSTREAM_MESSAGE_FIELDS) if call.get(name)}
    return {"id": call["id"], "type": kind, kind: body, **extra}


def canonical_arguments(arguments: Any) -> str:
    """Return arguments as JSON. Those of a call that was cut are no JSON, and nobody has answered it by them."""
    if isinstance(arguments, dict):
        return json.dumps(arguments, ensure_ascii=False)
    if isinstance(arguments, str):
        worked(len(arguments) // CHARACTERS_A_VALUE)
        if len(arguments) > FEW_VALUES and count_json(arguments.encode(errors="replace"), MAX_VALUES) > MAX_VALUES:
            return "{}"
    try:
        is_object = isinstance(json.loads(arguments, parse_constant=refuse_constant), dict)
    except (TypeError, ValueError, RecursionError):
        return "{}"
    return str(arguments) if is_object else "{}"


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
