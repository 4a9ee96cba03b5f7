"""Messages as the items of OpenAI's Conversations API, and back."""

from typing import Any

from chat.models import Message

PREFIX = "msg_"


def item_id(message: Message) -> str:
    return f"{PREFIX}{message.pk}"


def message_pk(item_id: str) -> int | None:
    """The row an item id names; None where it is no item id."""
    digits = item_id.removeprefix(PREFIX)
    is_id = item_id.startswith(PREFIX) and digits.isascii() and digits.isdecimal() and len(digits) <= 18
    return int(digits) if is_id else None


def item_of(message: Message) -> dict[str, Any]:
    stored = message.as_openai()
    item: dict[str, Any] = {
        "id": item_id(message),
        "type": "message",
        "role": message.role,
        "status": "completed",
        "content": [*parts_of(stored)],
        "created_at": int(message.created_at.timestamp()),
    }
    # What OpenAI's items have no place for is not lost.
    return item | {name: stored[name] for name in ("tool_calls", "tool_call_id", "name") if stored.get(name)}


def parts_of(stored: dict[str, Any]) -> list[dict[str, Any]]:
    is_reply = stored["role"] == "assistant"
    content = stored["content"]
    given = content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []
    parts = [output_part(part) if is_reply else input_part(part) for part in given]
    if stored.get("refusal"):
        parts.append({"type": "refusal", "refusal": stored["refusal"]})
    return parts


def output_part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] != "text":
        return part
    return {"type": "output_text", "text": part["text"], "annotations": [], "logprobs": []}


def input_part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return {"type": "input_text", "text": part["text"]}
    if part["type"] == "image_url" and isinstance(part.get("image_url"), dict):
        image = part["image_url"]
        detail = image.get("detail", "auto")
        return {"type": "input_image", "image_url": image.get("url"), "detail": detail, "file_id": None}
    return part


def message_of(item: dict[str, Any]) -> dict[str, Any]:
    """An item as the chat message that the model is sent."""
    content = item["content"]
    if isinstance(content, list):
        content = [chat_part(part) for part in content]
        if len(content) == 1 and content[0]["type"] == "text":
            content = content[0]["text"]
    return {"role": item["role"], "content": content}


def chat_part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] in {"input_text", "output_text", "text"}:
        return {"type": "text", "text": part.get("text", "")}
    if part["type"] == "input_image":
        return {"type": "image_url", "image_url": {"url": part.get("image_url"), "detail": part.get("detail", "auto")}}
    return part
