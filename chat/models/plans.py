"""Plans: named sets of what one person may use."""

from decimal import Decimal

from django.core.validators import MinValueValidator
from django.db import models


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


def requests() -> "models.PositiveIntegerField[int | None, int | None]":
    return models.PositiveIntegerField(
        "requests per minute", null=True, blank=True, help_text="Empty: RATE_LIMIT_PER_MIN. 0: no limit."
    )


class Plan(models.Model):
    """What one person of an app may use. Where a limit is empty, the one of the app's key for each user holds."""

    name = models.SlugField(unique=True, max_length=50, help_text="As a sign-in's claim names it: free, pro, …")
    requests_per_min = requests()
    tokens_per_min = limit("tokens per minute")
    concurrent_turns = limit("turns at once")
    day_tokens = limit("tokens a day")
    month_tokens = limit("tokens a month")
    day_usd = dollars("dollars a day")
    month_usd = dollars("dollars a month")
    allowed_models = models.CharField(
        max_length=1000, blank=True, help_text="Names of models, separated by spaces. Empty: all that the token allows."
    )

    class Meta:
        db_table = "plans"

    def __str__(self) -> str:
        return self.name

    @property
    def limits(self) -> dict[str, int | Decimal | None]:
        """The limits, by the columns of a client token that they take the place of."""
        return {
            "rate_limit_per_min": self.requests_per_min,
            "tokens_per_min": self.tokens_per_min,
            "user_concurrent_turns": self.concurrent_turns,
            "user_day_tokens": self.day_tokens,
            "user_month_tokens": self.month_tokens,
            "user_day_usd": self.day_usd,
            "user_month_usd": self.month_usd,
        }
