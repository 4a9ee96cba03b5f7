"""Idempotency keys, and the answers that were given under them."""

from datetime import datetime, timedelta
from typing import Self

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from chat.models.clients import ClientToken

# How long the answer to an idempotency key is kept.
KEY_TTL = timedelta(hours=24)


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
    # As the client sent it; that of a session as `ClientToken.own_name` writes it.
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
