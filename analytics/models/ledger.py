from datetime import datetime
from typing import Self

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

# Turns that ended without a reply: the condition of a partial index. SQLite uses the index only if a query repeats the
# condition literally, and it does not recognise a list of statuses.
BROKEN = ~Q(status="completed") & ~Q(status="pending")


class UsageEventQuerySet(models.QuerySet["UsageEvent"]):
    def pending(self) -> Self:
        return self.filter(status=UsageEvent.Status.PENDING)

    def stale(self, now: datetime | Now) -> Self:
        """Pending rows whose process died: a running turn renews its lease before it ends."""
        return self.pending().filter(locked_until__lt=now)


class UsageEvent(models.Model):
    """One call to the upstream: opened before it is made, closed with what it cost.

    Ids are plain columns: a deleted conversation or token leaves its cost behind.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        COMPLETED = "completed"
        FAILED = "failed"
        ABANDONED = "abandoned"

    request_id = models.CharField(max_length=40, unique=True)
    client_token_id = models.BigIntegerField()
    user_id = models.CharField(max_length=255)
    conversation_id = models.CharField(max_length=40, blank=True, help_text="Empty for a stateless completion.")
    model = models.CharField(max_length=100, help_text="As the client asked for it.")
    served_model = models.CharField(max_length=100, blank=True, help_text="As the answer named it; its price is paid.")
    service_tier = models.CharField(
        max_length=20, blank=True, default="", db_default="", help_text="As the answer named it; its price is paid."
    )
    app_version = models.CharField(max_length=64, blank=True, help_text="As the client's metadata named it.")
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    error_code = models.CharField(max_length=64, blank=True)
    prompt_tokens = models.PositiveIntegerField(default=0)
    cached_tokens = models.PositiveIntegerField(default=0, help_text="Of the prompt tokens, those billed as cached.")
    cache_write_tokens = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Of the prompt tokens, those billed as written to the cache."
    )
    completion_tokens = models.PositiveIntegerField(default=0)
    reasoning_tokens = models.PositiveIntegerField(default=0, help_text="Of the completion tokens.")
    total_tokens = models.PositiveIntegerField(default=0)
    is_estimated = models.BooleanField(default=False, help_text="The upstream named no figures; these are ours.")
    # Billionths of a dollar: the cheapest token costs 5 of them, so sums are exact. Null: the price is unknown.
    cost_nanos = models.BigIntegerField(null=True, blank=True)
    latency_ms = models.PositiveIntegerField(null=True, blank=True)
    first_token_ms = models.PositiveIntegerField(null=True, blank=True, help_text="Of a streamed reply.")
    is_stream = models.BooleanField(default=False)
    is_cancel_asked = models.BooleanField(default=False, help_text="The client asked to stop the reply.")
    locked_until = models.DateTimeField(help_text="A row still pending after this is abandoned.")
    # What the turn has reserved of each budget, by the budget's key. Null once its real use is known.
    reserved_json = models.JSONField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = UsageEventQuerySet.as_manager()

    class Meta:
        db_table = "usage_events"
        indexes = [
            # Metrics, reconcile and the admin's list read a range of time; a conversation's page, one conversation.
            models.Index(fields=["created_at"], name="usage_created"),
            models.Index(fields=["conversation_id", "id"], name="usage_conversation"),
            # GET /v1/usage reads one client's rows of today.
            models.Index(fields=["client_token_id", "created_at"], name="usage_client_created"),
            # The admin lists the turns of one user, of one model, and those that went wrong, which are few.
            models.Index(fields=["user_id", "created_at"], name="usage_user_created"),
            models.Index(fields=["model", "created_at"], name="usage_model_created"),
            models.Index(fields=["status", "created_at"], condition=BROKEN, name="usage_broken"),
            # settle_abandoned looks for turns that died among the few that are pending.
            models.Index(fields=["locked_until"], condition=Q(status="pending"), name="usage_pending"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["pending", "completed", "failed", "abandoned"]), name="usage_status_known"
            ),
            models.CheckConstraint(
                condition=Q(status="pending", finished_at__isnull=True)
                | (~Q(status="pending") & Q(finished_at__isnull=False)),
                name="usage_finished_unless_pending",
            ),
        ]

    def __str__(self) -> str:
        return self.request_id


class MergedUser(models.Model):
    """A user who turned out to be another: an anonymous person who has signed in.

    Rows of the day of the merge are the other's. Those of days before stay, and say since when the other is there.
    """

    user_id = models.CharField(max_length=255)
    merged_into = models.CharField(max_length=255)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "merged_users"
        constraints = [models.UniqueConstraint(fields=["user_id"], name="merged_user_once")]

    def __str__(self) -> str:
        return f"{self.user_id} is {self.merged_into}"


class AnalyticsEvent(models.Model):
    """Something that happened to a user, for product metrics."""

    event_name = models.CharField(max_length=64)
    client_token_id = models.BigIntegerField()
    user_id = models.CharField(max_length=255)
    conversation_id = models.CharField(max_length=40, blank=True)
    request_id = models.CharField(max_length=40, blank=True)
    model = models.CharField(max_length=100, blank=True)
    app_version = models.CharField(max_length=64, blank=True)
    metadata_json = models.JSONField(default=dict, blank=True)
    client_event_id = models.CharField(
        max_length=64, null=True, blank=True, help_text="What the client that sent the event calls it."
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "analytics_events"
        indexes = [
            # Metrics read one kind of event in a range of time; the admin, the newest events, and those of one user.
            models.Index(fields=["event_name", "created_at"], name="event_name_created"),
            models.Index(fields=["created_at"], name="event_created"),
            models.Index(fields=["user_id", "created_at"], name="event_user_created"),
        ]
        constraints = [
            # An event that a client sends again is stored once.
            models.UniqueConstraint(
                fields=["client_token_id", "client_event_id"],
                condition=Q(client_event_id__isnull=False),
                name="event_once_per_client",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event_name} {self.request_id}"
