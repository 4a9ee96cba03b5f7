"""Rollups: what the raw rows of a UTC day add up to, and what is kept of its users."""

from typing import Self

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now


class RollupDayQuerySet(models.QuerySet["RollupDay"]):
    def built(self) -> Self:
        return self.filter(built_at__isnull=False)

    def stale(self) -> Self:
        """Days whose raw rows have changed since they were read, or were still to come."""
        return self.built().filter(~Q(changes=F("built_changes")) | Q(is_partial=True))

    def unsettled(self) -> Self:
        """The newest built day, days that went on when they were built, and days that have changed since; by day."""
        newest = RollupDay.objects.built().order_by("-day").values("day")[:1]
        return self.built().filter(Q(day=newest) | Q(is_partial=True) | Q(changed_at__isnull=False)).order_by("day")

    def note_change(self) -> None:
        """Make these days stale, inside the transaction that changes their raw rows or what they are built of."""
        self.update(changes=F("changes") + 1, changed_at=Coalesce("changed_at", Now()))


class RollupDay(models.Model):
    """The state of a UTC day's rollups: whether they are there, and whether they agree with its raw rows."""

    day = models.DateField(primary_key=True)
    # Raised inside every transaction that changes a raw row of the day once it is over. A build that has read the
    # rows before such a change finds another number here than it began with, and is not kept.
    changes = models.PositiveIntegerField(default=0)
    built_changes = models.PositiveIntegerField(default=0)
    changed_at = models.DateTimeField(null=True, blank=True, help_text="Of the first change since it was read.")
    built_at = models.DateTimeField(null=True, blank=True, help_text="Empty: the day has no rollups yet.")
    is_partial = models.BooleanField(default=False, help_text="Built before the day was over: read for minutes only.")
    purged_at = models.DateTimeField(
        null=True, blank=True, help_text="When its raw rows began to be deleted; what was built of them is final."
    )

    objects = RollupDayQuerySet.as_manager()

    class Meta:
        db_table = "rollup_days"

    def __str__(self) -> str:
        return self.day.isoformat()


class Rollup(models.Model):
    """What is said of a day of one client, model or version; 0 and empty where it is of all."""

    day = models.DateField()
    client_token_id = models.BigIntegerField(default=0)
    model = models.CharField(max_length=100, blank=True)
    app_version = models.CharField(max_length=64, blank=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.day} {self.client_token_id or self.model or self.app_version or 'all'}"


class ActivityRollup(Rollup):
    """Users of a day: of all, or of a single client, model or version, whose columns are then not 0 or empty."""

    seen_users = models.PositiveIntegerField(default=0, help_text="Users with any event.")
    turns = models.PositiveIntegerField(default=0, help_text="Events of completed turns.")
    dau = models.PositiveIntegerField(default=0)
    wau = models.PositiveIntegerField(default=0)
    mau = models.PositiveIntegerField(default=0)
    new_users = models.PositiveIntegerField(default=0)
    signed_in = models.PositiveIntegerField(default=0, db_default=0, help_text="Of dau, those who had signed in.")
    # Of the users who were new 1, 7 or 30 days before, and in the slice, those active on this day, in any.
    returned_1 = models.PositiveIntegerField(default=0)
    returned_7 = models.PositiveIntegerField(default=0)
    returned_30 = models.PositiveIntegerField(default=0)
    time_spent = models.JSONField(default=dict, help_text="Histogram of seconds from a user's first event to the last.")

    class Meta:
        db_table = "activity_rollups"
        # Its order is that of the readers: one of them all, a range of days.
        constraints = [
            models.UniqueConstraint(
                fields=["client_token_id", "model", "app_version", "day"], name="activity_rollup_once"
            )
        ]
        # A day that is built again.
        indexes = [models.Index(fields=["day"], name="activity_rollup_day")]


class UsageRollup(Rollup):
    """A day's usage rows of one client, model and version; of a model; and of all: read at the grain that is asked."""

    class Grain(models.TextChoices):
        TOTAL = "total"
        MODEL = "model"
        FULL = "full"

    grain = models.CharField(max_length=8, choices=Grain)
    pending = models.PositiveIntegerField(default=0)
    completed = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    abandoned = models.PositiveIntegerField(default=0)
    # Turns for which tokens were sold, and those of them whose price is known.
    sold = models.PositiveIntegerField(default=0)
    priced = models.PositiveIntegerField(default=0)
    prompt_tokens = models.BigIntegerField(default=0)
    cached_tokens = models.BigIntegerField(default=0)
    completion_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    total_tokens = models.BigIntegerField(default=0)
    cost_nanos = models.BigIntegerField(default=0)
    # Of completed turns.
    timed = models.PositiveIntegerField(default=0, help_text="Completed turns with a latency.")
    latency_sum_ms = models.BigIntegerField(default=0)
    streamed = models.PositiveIntegerField(default=0, help_text="Completed turns with a first token.")
    first_token_sum_ms = models.BigIntegerField(default=0)
    latency_ms = models.JSONField(default=dict, help_text="Histogram.")
    first_token_ms = models.JSONField(default=dict, help_text="Histogram.")
    failures = models.JSONField(default=dict, help_text="Failed and abandoned turns by error code.")
    # Idempotent replays, under the model of the turn whose answer was given again, and what that turn had cost.
    replays = models.PositiveIntegerField(default=0)
    replayed_priced = models.PositiveIntegerField(default=0)
    replayed_tokens = models.BigIntegerField(default=0)
    replayed_nanos = models.BigIntegerField(default=0)
    # What clients said of replies on the day, under the model that had given them.
    thumbs_up = models.PositiveIntegerField(default=0)
    thumbs_down = models.PositiveIntegerField(default=0)
    regenerated = models.PositiveIntegerField(default=0)
    sign_ups = models.PositiveIntegerField(default=0, db_default=0)

    class Meta:
        db_table = "usage_rollups"
        # One client's own use over many days.
        indexes = [models.Index(fields=["client_token_id", "day"], name="usage_rollup_client")]
        # Its order is that of the readers: one grain, a range of days.
        constraints = [
            models.UniqueConstraint(
                fields=["grain", "day", "client_token_id", "model", "app_version"], name="usage_rollup_once"
            )
        ]

    @property
    def turns(self) -> int:
        return self.pending + self.completed + self.failed + self.abandoned


class UserDay(Rollup):
    """What one user did and bought on a day with one client, model and version."""

    client_token_id = models.BigIntegerField()
    user_id = models.CharField(max_length=255)
    turns = models.PositiveIntegerField(default=0, help_text="Completed turns; with any, the user was active.")
    events = models.PositiveIntegerField(default=0)
    first_at = models.DateTimeField(null=True, blank=True)
    last_at = models.DateTimeField(null=True, blank=True)
    # Of the user, whatever the client, model and version; empty on days without a completed turn.
    age_days = models.PositiveIntegerField(null=True, blank=True, help_text="Days since the user was first active.")
    is_signed_in = models.BooleanField(default=False, db_default=False, help_text="On this day, or one before.")
    sold = models.PositiveIntegerField(default=0)
    priced = models.PositiveIntegerField(default=0)
    total_tokens = models.BigIntegerField(default=0)
    cost_nanos = models.BigIntegerField(default=0)

    class Meta:
        db_table = "user_days"
        indexes = [
            # Distinct users of one client or of all in a range of days, without a look at the table.
            models.Index(
                fields=["client_token_id", "day", "user_id"], condition=Q(turns__gt=0), name="user_day_client_active"
            ),
            models.Index(fields=["day", "user_id"], condition=Q(turns__gt=0), name="user_day_active"),
            # Activation and return of users who were new to a client, model or version, without a look at the table.
            models.Index(
                fields=["day", "client_token_id", "model", "app_version", "user_id"],
                condition=Q(turns__gt=0, age_days=0),
                name="user_day_new",
            ),
            # Who has bought most in some days. Of the day alone, because its rows lie together: of an index that goes
            # on by other columns PostgreSQL expects otherwise, and reads the whole table.
            models.Index(fields=["day"], condition=Q(sold__gt=0), name="user_day_bought"),
            # How many turns a user has completed so far.
            models.Index(fields=["user_id", "day"], name="user_day_user"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["day", "client_token_id", "user_id", "model", "app_version"], name="user_day_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.user_id}"


class Milestone(models.Model):
    """The day a user was first active, and that of the fifth completed turn."""

    user_id = models.CharField(max_length=255, primary_key=True)
    first_day = models.DateField()
    fifth_day = models.DateField(null=True, blank=True)

    class Meta:
        db_table = "user_milestones"
        # Activation by the day on which users were new.
        indexes = [models.Index(fields=["first_day", "fifth_day"], name="milestone_first_fifth")]

    def __str__(self) -> str:
        return self.user_id


class SignUp(models.Model):
    """The day on which a person signed in for the first time."""

    user_id = models.CharField(max_length=255, primary_key=True)
    day = models.DateField()

    class Meta:
        db_table = "sign_ups"
        indexes = [models.Index(fields=["day"], name="sign_up_day")]

    def __str__(self) -> str:
        return self.user_id


class SessionRollup(Rollup):
    """Sessions that ended on `built_on` and had begun on `day`, by what their first event was about; and all."""

    built_on = models.DateField()
    is_total = models.BooleanField(default=False)
    seconds = models.JSONField(default=dict, help_text="Histogram.")

    class Meta:
        db_table = "session_rollups"
        # Sessions by the day of their first event.
        indexes = [models.Index(fields=["is_total", "day"], name="session_rollup_day")]
        constraints = [
            models.UniqueConstraint(
                fields=["built_on", "day", "is_total", "client_token_id", "model", "app_version"],
                name="session_rollup_once",
            ),
        ]


class OpenSession(models.Model):
    """A session that may go on past the midnight which ended `built_on`."""

    built_on = models.DateField()
    user_id = models.CharField(max_length=255)
    client_token_id = models.BigIntegerField()
    model = models.CharField(max_length=100, blank=True)
    app_version = models.CharField(max_length=64, blank=True)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()

    class Meta:
        db_table = "open_sessions"
        constraints = [models.UniqueConstraint(fields=["built_on", "user_id"], name="open_session_once")]

    def __str__(self) -> str:
        return f"{self.built_on} {self.user_id}"


class Refusals(models.Model):
    """Requests of a client that were refused on a day, for one reason."""

    day = models.DateField()
    client_token_id = models.BigIntegerField()
    code = models.CharField(max_length=64)
    count = models.PositiveBigIntegerField(default=0)

    class Meta:
        db_table = "refusals_daily"
        constraints = [models.UniqueConstraint(fields=["day", "client_token_id", "code"], name="refusals_once")]

    def __str__(self) -> str:
        return f"{self.day} {self.code}"
