"""Conversations and their items: every write but a turn's."""

from typing import Any

from django.db import transaction
from django.utils import timezone

from chat.exceptions import ConversationNotFound
from chat.items import message_of
from chat.models import ClientToken, Conversation, Message


def create(client: ClientToken, *, metadata: dict[str, str], items: list[dict[str, Any]]) -> Conversation:
    with transaction.atomic():
        conversation = Conversation.objects.create(client_token=client, metadata=metadata)
        if items:
            add_items(conversation, items)
    return conversation


def add_items(conversation: Conversation, items: list[dict[str, Any]]) -> list[Message]:
    """Append items, in their order; the rows."""
    with transaction.atomic():
        # The row is locked, so that what is written at once stands one after the other.
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
