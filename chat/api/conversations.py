"""OpenAI's Conversations API, as its SDKs call it."""

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from chat import conversations, deletion
from chat.api import answers, openapi, policy
from chat.api.base import ClientViewSet, client_of
from chat.api.serializers import ConversationIn, ConversationUpdateIn, ItemListQuery, ItemsIn, validated
from chat.conversations import conversation_object, item_id, item_of, message_pk
from chat.exceptions import ApiError, ConversationNotFound, ItemNotFound
from chat.models import Conversation, Message

ITEM_EXAMPLES = [
    OpenApiExample("A message", {"items": [{"role": "user", "content": "My name is Ada."}]}, request_only=True)
]


def owned(request: Request, conversation_id: str) -> Conversation:
    found = Conversation.objects.owned_by(client_of(request)).filter(pk=conversation_id).first()
    if found is None:
        raise ConversationNotFound
    return found


class ConversationViewSet(ClientViewSet):
    @openapi.operation(
        "Conversations",
        answers.ConversationOut,
        *(400, 411, 413, 415),
        status=201,
        request=ConversationIn,
        examples=[
            OpenApiExample("Plain", {}, request_only=True),
            OpenApiExample("With metadata", {"metadata": {"app": "web", "version": "1.2"}}, request_only=True),
        ],
    )
    def create(self, request: Request) -> Response:
        """Begin a conversation, whose messages the server remembers."""
        data = validated(ConversationIn(data=request.data or {}))
        policy.check_messages(client_of(request), data.get("items") or [], "items")
        conversation = conversations.create(
            client_of(request), metadata=data.get("metadata") or {}, items=data.get("items") or []
        )
        return Response(conversation_object(conversation), status=status.HTTP_201_CREATED)

    @openapi.operation("Conversations", answers.ConversationOut, 404)
    def retrieve(self, request: Request, conversation_id: str) -> Response:
        """Return a conversation without its messages."""
        return Response(conversation_object(owned(request, conversation_id)))

    @openapi.operation(
        "Conversations",
        answers.ConversationOut,
        *openapi.BODY_ERRORS,
        operation_id="v1_conversations_update",
        request=ConversationUpdateIn,
        examples=[OpenApiExample("Metadata", {"metadata": {"app": "web"}}, request_only=True)],
    )
    def update(self, request: Request, conversation_id: str) -> Response:
        """Replace the metadata."""
        conversation = owned(request, conversation_id)
        conversation.metadata = validated(ConversationUpdateIn(data=request.data))["metadata"] or {}
        # It may be deleted by now.
        if not Conversation.objects.filter(pk=conversation.pk).update(metadata=conversation.metadata):
            raise ConversationNotFound
        return Response(conversation_object(conversation))

    @openapi.operation("Conversations", answers.ConversationDeletedOut, 404)
    def destroy(self, request: Request, conversation_id: str) -> Response:
        """Delete a conversation and its messages; what they cost stays in the ledger."""
        deletion.delete(client_of(request), conversation_id)
        return Response({"id": conversation_id, "object": "conversation.deleted", "deleted": True})


class ItemViewSet(ClientViewSet):
    @openapi.operation("Conversations", answers.ItemListOut, 400, 404, parameters=[ItemListQuery])
    def list(self, request: Request, conversation_id: str) -> Response:
        """List the messages of a conversation, page by page. A page has fewer than `limit` where they are large."""
        rows = owned(request, conversation_id).messages.all()
        query = validated(ItemListQuery(data=request.query_params))
        page = rows.order_by("id" if query["order"] == "asc" else "-id")
        if "after" in query:
            after = message_pk(query["after"])
            if after is None:
                raise ApiError("after must be the id of an item, as last_id gives it.", param="after")
            page = page.filter(pk__gt=after) if query["order"] == "asc" else page.filter(pk__lt=after)
        found, has_more = conversations.read_within(page[: query["limit"]], conversations.MAX_PAGE_BYTES)
        return Response(item_list(found, has_more=has_more))

    @openapi.operation(
        "Conversations", answers.ItemListOut, *openapi.BODY_ERRORS, request=ItemsIn, examples=ITEM_EXAMPLES
    )
    def create(self, request: Request, conversation_id: str) -> Response:
        """Append up to 20 messages without asking the model."""
        conversation = owned(request, conversation_id)
        items = validated(ItemsIn(data=request.data))["items"]
        policy.check_messages(client_of(request), items, "items")
        added = conversations.add_items(conversation, items)
        return Response(item_list(added, has_more=False))

    @openapi.operation("Conversations", answers.ItemOut, 404)
    def retrieve(self, request: Request, conversation_id: str, item_id: str) -> Response:
        """Return one message."""
        message = self.one(owned(request, conversation_id), item_id).first()
        if message is None:
            raise ItemNotFound
        return Response(item_of(message))

    @openapi.operation("Conversations", answers.ConversationOut, 404)
    def destroy(self, request: Request, conversation_id: str, item_id: str) -> Response:
        """Delete one message; the answer is its conversation."""
        conversation = owned(request, conversation_id)
        deleted, _ = self.one(conversation, item_id).delete()
        if not deleted:
            raise ItemNotFound
        return Response(conversation_object(conversation))

    def one(self, conversation: Conversation, item_id: str) -> QuerySet[Message]:
        return conversation.messages.filter(pk=message_pk(item_id) or 0)


def item_list(messages: Sequence[Message], *, has_more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [item_of(message) for message in messages],
        "first_id": item_id(messages[0]) if messages else None,
        "last_id": item_id(messages[-1]) if messages else None,
        "has_more": has_more,
    }
