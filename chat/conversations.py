"""Conversations, and their messages as the items of OpenAI's Conversations API. Turns write their own messages."""

import re
from collections.abc import Sequence
from typing import Any

from django.db import connections, transaction
from django.db.models import QuerySet
from django.utils import timezone

from chat.exceptions import ConversationNotFound
from chat.models import ClientToken, Conversation, Message
from chat.sql import DIALECT, MESSAGE_BYTES, retry_deadlocks

# Bytes of messages on one page of a list, as they are stored.
MAX_PAGE_BYTES = 4 * 1024 * 1024
# The messages of a slice up to a number of bytes, but the first however large. The window adds up message by message
# and stops at `edge`, which is where the next one stands: what is beyond is not even read from the disk.
WITHIN = """
    WITH edge AS MATERIALIZED (
        SELECT position FROM (
            SELECT row_number() OVER sofar AS position, sum({bytes}) OVER sofar AS total FROM messages
            WHERE {condition} WINDOW sofar AS (ORDER BY id {order} ROWS UNBOUNDED PRECEDING)
        ) AS sums WHERE position > %s OR (total > %s AND position > 1) LIMIT 1
    )
    SELECT messages.{columns}, (SELECT count(*) FROM edge) AS has_more FROM messages WHERE {condition}
    ORDER BY id {order} LIMIT COALESCE((SELECT position - 1 FROM edge), %s)
"""


def create(client: ClientToken, *, metadata: dict[str, str], items: list[dict[str, Any]]) -> Conversation:
    with transaction.atomic():
        conversation = Conversation.objects.create(client_token=client, metadata=metadata, user_id=client.owner_id)
        if items:
            append(conversation, items)
    return conversation


def add_items(conversation: Conversation, items: list[dict[str, Any]]) -> list[Message]:
    """Append items in their order, and return their rows. Raises ConversationNotFound where it was deleted."""
    return retry_deadlocks(lambda: append(conversation, items))


def append(conversation: Conversation, items: list[dict[str, Any]]) -> list[Message]:
    with transaction.atomic():
        # This locks the row, so that items of two requests at once do not mix.
        if not Conversation.objects.filter(pk=conversation.pk).update(updated_at=timezone.now()):
            raise ConversationNotFound
        return Message.objects.bulk_create(
            Message.from_openai(message_of(item), conversation_id=conversation.pk, request_id="") for item in items
        )


def read_within(messages: QuerySet[Message], most_bytes: int, *, columns: str = "*") -> tuple[Sequence[Message], bool]:
    """Read a slice of messages by their ids, up to so many bytes, the first however large; and whether there are more.

    One statement of the database stops there, so no more than that is held in memory, here or there.
    """
    connection = connections[messages.db]
    query = messages.query.chain()
    is_ascending, limit = not str(query.order_by[0]).startswith("-"), query.high_mark
    query.clear_limits()
    query.clear_ordering(force=True)
    condition, params = query.get_compiler(connection=connection).compile(query.where)
    size, order = MESSAGE_BYTES.format(**DIALECT[connection.vendor]), "ASC" if is_ascending else "DESC"
    sql = WITHIN.format(bytes=size, condition=condition, order=order, columns=columns)
    found = [*Message.objects.using(messages.db).raw(sql, [*params, limit, most_bytes, *params, limit])]
    return found, bool(found and found[0].has_more)  # type: ignore[attr-defined]


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
