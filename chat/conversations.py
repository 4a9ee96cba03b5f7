"""Conversations, and their messages as the items of OpenAI's Conversations API. Turns write their own messages."""

import re
from typing import Any

from django.db import transaction
from django.utils import timezone

from chat.exceptions import ConversationNotFound
from chat.models import ClientToken, Conversation, Message


def create(client: ClientToken, *, metadata: dict[str, str], items: list[dict[str, Any]]) -> Conversation:
    with transaction.atomic():
        conversation = Conversation.objects.create(client_token=client, metadata=metadata)
        if items:
            add_items(conversation, items)
    return conversation


def add_items(conversation: Conversation, items: list[dict[str, Any]]) -> list[Message]:
    """Append items in their order, and return their rows. Raises ConversationNotFound where it was deleted."""
    with transaction.atomic():
        # This locks the row, so that items of two requests at once do not mix.
        if not Conversation.objects.filter(pk=conversation.pk).update(updated_at=timezone.now()):
            raise ConversationNotFound
        return Message.objects.bulk_create(
            Message.from_openai(message_of(item), conversation_id=conversation.pk, request_id="") for item in items
        )


def conversation_object(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.pk,
        "object": "conversation",
        "created_at": int(conversation.created_at.timestamp()),
        "metadata": conversation.metadata,
        "conversation_id": conversation.pk,
    }


def item_id(message: Message) -> str:
    return f"msg_{message.pk}"


def message_pk(item_id: str) -> int | None:
    """Return the key of the row that an item id names; None where it is no item id."""
    found = re.fullmatch(r"msg_([0-9]{1,18})", item_id)
    return int(found[1]) if found else None


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
    # OpenAI's items have no place for these; they are returned all the same.
    return item | {name: stored[name] for name in ("tool_calls", "tool_call_id", "name") if stored.get(name)}


def parts_of(stored: dict[str, Any]) -> list[dict[str, Any]]:
    is_reply = stored["role"] == "assistant"
    content = stored["content"]
    given = content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []
    parts = [part_of(part, is_reply=is_reply) for part in given if isinstance(part, dict) and "type" in part]
    if stored.get("refusal"):
        parts.append({"type": "refusal", "refusal": stored["refusal"]})
    return parts


def part_of(part: dict[str, Any], *, is_reply: bool) -> dict[str, Any]:
    if part["type"] == "text" and is_reply:
        return {"type": "output_text", "text": part.get("text") or "", "annotations": [], "logprobs": []}
    if part["type"] == "text":
        return {"type": "input_text", "text": part.get("text") or ""}
    if part["type"] == "image_url" and not is_reply and isinstance(part.get("image_url"), dict):
        image = part["image_url"]
        detail = image.get("detail", "auto")
        return {"type": "input_image", "image_url": image.get("url"), "detail": detail, "file_id": None}
    return part


def message_of(item: dict[str, Any]) -> dict[str, Any]:
    """Turn an item, whose parts are read already, into the chat message that is sent to the model."""
    content = item["content"]
    if isinstance(content, list) and len(content) == 1 and content[0]["type"] == "text":
        content = content[0]["text"]
    return {"role": item["role"], "content": content}
