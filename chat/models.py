import hashlib
import secrets
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Self

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from chat.audit import AuditRecord

__all__ = [
    "AuditRecord",
    "Budget",
    "Chore",
    "ClientToken",
    "Conversation",
    "IdempotencyKey",
    "Message",
    "RateLimit",
    "UpstreamModel",
]

# How long the answer to an idempotency key is kept.
KEY_TTL = timedelta(hours=24)


def new_conversation_id() -> str:
    return f"c_{secrets.token_hex(12)}"


def limit(name: str) -> "models.PositiveBigIntegerField[int | None, int | None]":
    return models.PositiveBigIntegerField(
        name, null=True, blank=True, validators=[MinValueValidator(1)], help_text="Empty: no limit."
    )


def dollars(name: str) -> "models.DecimalField[Decimal | None, Decimal | None]":
    return models.DecimalField(
        name,
        max_digits=12,
        decimal_places=4,
        null=True,
        blank=True,
        validators=[MinValueValidator(Decimal("0.0001"))],
        help_text="Empty: no limit.",
    )


class ClientToken(models.Model):
    """The credential of a client. The token itself is shown once, and only its digest is kept."""

    name = models.CharField(max_length=100, help_text="Who uses it: an app, a site, an environment.")
    prefix = models.CharField(max_length=12, editable=False, help_text="The token's first characters, to tell it by.")
    digest = models.CharField(max_length=64, unique=True, null=True, editable=False)
    # The one row that stands for the setting CLIENT_API_TOKEN, so that it can own conversations and be limited or
    # revoked. It has no digest: the token is whatever the setting says now.
    is_setting = models.BooleanField(default=False, editable=False)
    is_active = models.BooleanField("active", default=True, help_text="Untick to revoke the token at once.")
    can_read_metrics = models.BooleanField(default=False, help_text="May read /metrics.")
    rate_limit_per_min = models.PositiveIntegerField(
        "requests per minute", null=True, blank=True, help_text="Empty: RATE_LIMIT_PER_MIN. 0: no limit."
    )
    tokens_per_min = limit("tokens per minute")
    concurrent_turns = limit("turns at once")
    day_tokens = limit("tokens a day")
    month_tokens = limit("tokens a month")
    day_usd = dollars("dollars a day")
    month_usd = dollars("dollars a month")
    user_day_tokens = limit("tokens a day, each user")
    user_month_tokens = limit("tokens a month, each user")
    user_day_usd = dollars("dollars a day, each user")
    user_month_usd = dollars("dollars a month, each user")
    expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    # The columns of limits, besides requests per minute. Empty: no limit.
    SPENDING = (
        *("tokens_per_min", "concurrent_turns", "day_tokens", "month_tokens", "day_usd", "month_usd"),
        *("user_day_tokens", "user_month_tokens", "user_day_usd", "user_month_usd"),
    )

    class Meta:
        db_table = "client_tokens"
        constraints = [
            models.UniqueConstraint(
                fields=["is_setting"], condition=Q(is_setting=True), name="client_token_one_setting"
            ),
            models.CheckConstraint(
                condition=Q(is_setting=True) ^ Q(digest__isnull=False), name="client_token_digest_or_setting"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @staticmethod
    def digest_of(token: str) -> str:
        """Return the token's SHA-256. One round is enough: a token is 256 random bits, and cannot be guessed."""
        return hashlib.sha256(token.encode()).hexdigest()

    def renew(self) -> str:
        """Give the row a new token, without saving it, and return that token: it is shown only now."""
        token = f"llm_{secrets.token_urlsafe(32)}"
        self.prefix = token[:9]
        self.digest = self.digest_of(token)
        return token

    @property
    def is_usable(self) -> bool:
        return self.is_active and (self.expires_at is None or self.expires_at > timezone.now())

    @property
    def requests_per_minute(self) -> int:
        return settings.RATE_LIMIT_PER_MIN if self.rate_limit_per_min is None else self.rate_limit_per_min

    # Begins the names of users that stand for client tokens. No client may name another's.
    USER_PREFIX = "token:"

    @property
    def default_user_id(self) -> str:
        """The user of a request that names none."""
        return f"{self.USER_PREFIX}{self.pk}"


class ConversationQuerySet(models.QuerySet["Conversation"]):
    def owned_by(self, client: ClientToken) -> Self:
        return self.filter(client_token=client)


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


class IdempotencyKeyQuerySet(models.QuerySet["IdempotencyKey"]):
    def held(self) -> Self:
        return self.filter(response_json=None)

    def stale(self, now: datetime | Now) -> Self:
        """Keys whose turn died: a running turn renews its lease before it ends."""
        return self.held().filter(locked_until__lt=now)


class IdempotencyKey(models.Model):
    """A key in use by a running turn (`response_json` is null), or the stored answer of a completed one."""

    client_token = models.ForeignKey(
        ClientToken, on_delete=models.PROTECT, related_name="idempotency_keys", db_index=False
    )
    idempotency_key = models.CharField(max_length=255)
    request_hash = models.CharField(max_length=64)
    # Text, not a JSON column: a replay repeats the first answer byte for byte.
    response_json = models.TextField(null=True, blank=True)
    # The turn that runs or ran under the key. It is also the fencing token: a turn settles only a key that it holds.
    request_id = models.CharField(max_length=40)
    locked_until = models.DateTimeField(help_text="When another request may take the key over from a turn that died.")
    created_at = models.DateTimeField(default=timezone.now)

    objects = IdempotencyKeyQuerySet.as_manager()

    class Meta:
        db_table = "idempotency_keys"
        indexes = [
            # purge_expired deletes the oldest.
            models.Index(fields=["created_at"], name="idempotency_key_created"),
            # settle_abandoned frees the keys of turns that died.
            models.Index(fields=["locked_until"], condition=Q(response_json=None), name="idempotency_key_held"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["client_token", "idempotency_key"], name="idempotency_key_once_per_client"),
        ]

    def __str__(self) -> str:
        return self.idempotency_key


class RateLimit(models.Model):
    """The state of one rate (GCRA): when its bucket is empty again, in seconds since 1970."""

    key = models.CharField(primary_key=True, max_length=100)
    theoretical_arrival = models.FloatField(validators=[MinValueValidator(0)])

    class Meta:
        db_table = "rate_limits"
        indexes = [
            # purge_expired deletes buckets that are empty.
            models.Index(fields=["theoretical_arrival"], name="rate_limit_arrival"),
        ]

    def __str__(self) -> str:
        return self.key


class Budget(models.Model):
    """What is used of one limit in one period: by turns that have closed, and reserved by turns that run."""

    class Unit(models.TextChoices):
        TURNS = "turns"  # that run at once
        TOKENS = "tokens"
        NANOS = "nanos"  # billionths of a dollar

    key = models.CharField(primary_key=True, max_length=320)
    client_token = models.ForeignKey(ClientToken, on_delete=models.PROTECT, related_name="budgets")
    user_id = models.CharField(max_length=255, blank=True, help_text="Empty: of all users of the token together.")
    unit = models.CharField(max_length=8, choices=Unit)
    period = models.CharField(max_length=10, blank=True, help_text="A UTC day or month; empty: now.")
    used = models.BigIntegerField()
    most = models.BigIntegerField(null=True, help_text="The limit when it was last asked; null: there is none.")
    resets_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "budgets"
        indexes = [
            # purge_expired deletes periods that are over.
            models.Index(fields=["resets_at"], name="budget_resets"),
        ]

    def __str__(self) -> str:
        return self.key


class Chore(models.Model):
    """When a background job is due. Any process may run it, and one at a time does."""

    name = models.CharField(primary_key=True, max_length=64)
    due_at = models.DateTimeField()

    class Meta:
        db_table = "chores"

    def __str__(self) -> str:
        return self.name


class UpstreamModel(models.Model):
    """A model that this server asks for, as its provider listed it when it was last asked."""

    name = models.CharField(primary_key=True, max_length=100)
    shutdown_date = models.DateField(null=True, blank=True, help_text="Empty: the provider names no day.")
    asked_at = models.DateTimeField()

    class Meta:
        db_table = "upstream_models"

    def __str__(self) -> str:
        return self.name
