"""Forms of a prompt's messages for providers that do not take OpenAI's. Each returns messages of its own."""

import base64
import hashlib
from typing import Any

Messages = list[dict[str, Any]]


def developer_as_system(messages: Messages) -> Messages:
    """Name the role `developer` as it was named before, and still is elsewhere."""
    return [{**message, "role": "system"} if message["role"] == "developer" else message for message in messages]


def without_names(messages: Messages) -> Messages:
    return [{name: value for name, value in message.items() if name != "name"} for message in messages]


def one_system(messages: Messages) -> Messages:
    """Put all system messages into one, at the beginning. The same text counts once."""
    systems = [message for message in messages if message["role"] in {"system", "developer"}]
    others = [message for message in messages if message["role"] not in {"system", "developer"}]
    texts = dict.fromkeys(str(message["content"]) for message in systems)
    return [{"role": "system", "content": "\n\n".join(texts)}, *others] if systems else others


def short_call_ids(messages: Messages) -> Messages:
    """Give each tool call an id of nine letters and digits, which Mistral demands: the same id for the same call."""
    found = []
    for message in messages:
        message = dict(message)
        if message.get("tool_calls"):
            message["tool_calls"] = [{**call, "id": short_id(call["id"])} for call in message["tool_calls"]]
        if message.get("tool_call_id"):
            message["tool_call_id"] = short_id(message["tool_call_id"])
        found.append(message)
    return found


def short_id(call_id: str) -> str:
    if len(call_id) == 9 and call_id.isascii() and call_id.isalnum():
        return call_id
    return base64.b32encode(hashlib.sha256(call_id.encode()).digest()).decode()[:9]


def without_old_media(messages: Messages, first_new: int) -> Messages:
    """Put a word in the place of each picture, sound and file of the history, before the client's new messages."""
    return [without_media(message) if index < first_new else message for index, message in enumerate(messages)]


def without_media(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    texts = [part["text"] if part["type"] == "text" else f"[{part['type']}]" for part in content]
    return {**message, "content": "\n".join(texts)}
