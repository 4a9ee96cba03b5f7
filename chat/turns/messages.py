"""The canonical form of a message: what every provider takes, strict ones too.

Messages are kept as clients and models sent them, and made canonical whenever they go upstream. So what was stored
before a rule was known is sent by it all the same.
"""

import json
from typing import Any

from django.conf import settings

# Fields of a reply that an upstream may want back (UPSTREAM_MESSAGE_FIELDS), and where they are kept.
RETURNABLE = {
    "reasoning_content": "reasoning_content",
    "reasoning": "reasoning_content",
    "reasoning_details": "reasoning_details",
    "extra_content": "extra_content",
}
# Of a tool call, too: Google's models want their thought signatures back.
CALL_FIELDS = {"extra_content"}


def canonical(message: dict[str, Any]) -> dict[str, Any] | None:
    """Return the message as it goes upstream; None for a reply that says nothing, which strict providers refuse."""
    if message["role"] == "assistant":
        return canonical_reply(message)
    found = {"role": message["role"], "content": message.get("content") or ""}
    for name in ("tool_call_id",) if message["role"] == "tool" else ("name",):
        if message.get(name):
            found[name] = message[name]
    return found


def canonical_reply(message: dict[str, Any]) -> dict[str, Any] | None:
    content = message.get("content")
    if isinstance(content, list):
        # Few providers take parts from an assistant.
        content = "".join(part.get("text") or part.get("refusal") or "" for part in content)
    # Only OpenAI has a field for refusals; to all others they are what the assistant said.
    content = content or message.get("refusal")
    calls = [call for given in message.get("tool_calls") or [] if (call := canonical_call(given))]
    found: dict[str, Any] = {"role": "assistant", "content": content or None}
    if calls:
        found["tool_calls"] = calls
    if message.get("name"):
        found["name"] = message["name"]
    if len(message) > len(found):
        for name in RETURNABLE.keys() & settings.UPSTREAM_MESSAGE_FIELDS:
            if value := message.get(name) or message.get(RETURNABLE[name]):
                found[name] = value
    return found if content or calls else None


def canonical_call(call: dict[str, Any]) -> dict[str, Any] | None:
    """Return a tool call with an id, a name and JSON for arguments; None where it has no name to be called by."""
    kind = "custom" if isinstance(call.get("custom"), dict) else "function"
    given = call.get(kind)
    if not isinstance(given, dict) or not given.get("name") or not call.get("id"):
        return None
    if kind == "custom":
        body = {"name": given["name"], "input": given.get("input") or ""}
    else:
        body = {"name": given["name"], "arguments": canonical_arguments(given.get("arguments"))}
    extra = {name: call[name] for name in CALL_FIELDS & set(settings.UPSTREAM_MESSAGE_FIELDS) if call.get(name)}
    return {"id": call["id"], "type": kind, kind: body, **extra}


def canonical_arguments(arguments: Any) -> str:
    """Return arguments as JSON. Those of a call that was cut are no JSON, and nobody has answered it by them."""
    if isinstance(arguments, dict):
        return json.dumps(arguments, ensure_ascii=False)
    try:
        json.loads(arguments)
    except (TypeError, ValueError, RecursionError):
        return "{}"
    return str(arguments)
