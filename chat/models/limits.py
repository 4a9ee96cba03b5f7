"""What is used of limits: rates, and budgets of a day or a month."""

from django.core.validators import MinValueValidator
from django.db import models

from chat.models.clients import ClientToken


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
