"""What the server remembers: conversations and their messages."""

import secrets
from typing import Any, Self

from django.db import models
from django.db.models import Q
from django.utils import timezone

from chat.models.clients import ClientToken


def new_conversation_id() -> str:
    return f"c_{secrets.token_hex(12)}"


class ConversationQuerySet(models.QuerySet["Conversation"]):
    def owned_by(self, client: ClientToken) -> Self:
        """Return those of the client, or only those of the person whose session it is."""
        own = self.filter(client_token=client)
        return own.filter(user_id=client.owner_id) if client.owner_id else own


class ConversationManager(models.Manager["Conversation"]):
    """Conversations, but not those whose messages are being deleted: nobody may see a part of one."""

    def get_queryset(self) -> ConversationQuerySet:
        return ConversationQuerySet(self.model, using=self._db).filter(deleted_at=None)

    def owned_by(self, client: ClientToken) -> ConversationQuerySet:
        return self.get_queryset().owned_by(client)


class Conversation(models.Model):
    conversation_id = models.CharField(primary_key=True, max_length=40, default=new_conversation_id, editable=False)
    client_token = models.ForeignKey(
        ClientToken, on_delete=models.PROTECT, related_name="conversations", db_index=False
    )
    user_id = models.CharField(max_length=255, blank=True, help_text="The end user who spoke first.")
    metadata = models.JSONField(default=dict, blank=True)
    # The id of a message. Older ones are kept and listed, and no longer sent. Null: all are sent.
    history_from = models.BigIntegerField(null=True, blank=True, editable=False)
    # The last of the messages at its beginning that are its instructions, once it has been cut. They are always sent.
    instructions_to = models.BigIntegerField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now, help_text="When its last turn was settled.")
    # Set once it is deleted, in the transaction that everybody waits for who adds messages. Its messages follow in
    # batches, and the row in the end.
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = ConversationManager()
    with_deleted = ConversationQuerySet.as_manager()

    class Meta:
        db_table = "conversations"
        indexes = [
            # The admin lists the newest first: all, those of one user, and those of one client.
            models.Index(fields=["-created_at"], name="conversation_created"),
            models.Index(fields=["user_id", "-created_at"], name="conversation_user_created"),
            models.Index(fields=["client_token", "-created_at"], name="conversation_client_created"),
            # purge_deleted finishes what a request has begun.
            models.Index(fields=["deleted_at"], condition=Q(deleted_at__isnull=False), name="conversation_deleted"),
        ]

    def __str__(self) -> str:
        return self.conversation_id

    def history(self) -> "models.QuerySet[Message]":
        """The messages that turns still read."""
        return self.messages.filter(pk__gte=self.history_from) if self.history_from else self.messages.all()


def text_of(content: str | list[dict[str, Any]] | None) -> str:
    """Return the readable text of a message's content, which may be a list of parts."""
    if isinstance(content, list):
        return "\n".join(part.get("text") or f"[{part.get('type')}]" for part in content)
    return content or ""


class Message(models.Model):
    class Role(models.TextChoices):
        SYSTEM = "system"
        DEVELOPER = "developer"
        USER = "user"
        ASSISTANT = "assistant"
        TOOL = "tool"

    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="messages", db_index=False)
    role = models.CharField(max_length=16, choices=Role)
    content = models.TextField(blank=True, help_text="The text of the message.")
    # The fields of OpenAI's message that the text does not hold: parts, name, tool calls.
    extra = models.JSONField(null=True, blank=True)
    request_id = models.CharField(max_length=40, blank=True, help_text="The turn that wrote it.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "messages"
        # Staff without this permission see figures and no texts.
        permissions = [("read_messages", "Can read prompts and replies")]
        indexes = [
            # The history of a conversation, newest first. With a plain foreign-key index PostgreSQL reads the
            # primary key backwards, through the messages of all conversations.
            models.Index(fields=["conversation", "id"], name="message_conversation_id"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(role__in=["system", "developer", "user", "assistant", "tool"]), name="message_role_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} message {self.pk}"

    @classmethod
    def from_openai(cls, message: dict[str, Any], *, conversation_id: str, request_id: str) -> Self:
        """Make the row of an OpenAI message; `as_openai` returns exactly the same message."""
        return cls(conversation_id=conversation_id, request_id=request_id, **cls.columns_of(message))

    @staticmethod
    def columns_of(message: dict[str, Any]) -> dict[str, Any]:
        """Return the columns that hold an OpenAI message."""
        extra = {name: value for name, value in message.items() if name not in {"role", "content"}}
        content = message.get("content")
        if not isinstance(content, str):
            extra["content"] = content
        return {"role": message["role"], "content": text_of(content), "extra": extra or None}

    def as_openai(self) -> dict[str, Any]:
        return {"role": self.role, "content": self.content, **(self.extra or {})}
