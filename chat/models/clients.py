"""Client tokens: who may ask, how much, and what."""

import hashlib
import re
import secrets
from copy import copy
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from chat.models.plans import Plan, dollars, limit, requests

if TYPE_CHECKING:
    from chat.models.people import ClientSession, Person

SECRET, PUBLISHABLE = "llm_", "pk_"
# A scheme and a host as browsers send them, or any extension of Firefox: its id differs with each installation.
ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?|chrome-extension://[a-p]{32}|moz-extension://([0-9a-f-]{36})?")


def validate_origins(text: str) -> None:
    for origin in text.split():
        if not ORIGIN.fullmatch(origin):
            raise ValidationError(
                f"{origin[:100]} is no origin; write https://app.example.com, chrome-extension://ID or "
                "moz-extension://, without a path."
            )


def words(default: str, help_text: str) -> "models.CharField[str, str]":
    return models.CharField(max_length=1000, blank=True, default=default, db_default=default, help_text=help_text)


def plan_of_people(help_text: str) -> "models.ForeignKey[Plan | None, Plan | None]":
    return models.ForeignKey(
        Plan, on_delete=models.PROTECT, null=True, blank=True, related_name="+", db_index=False, help_text=help_text
    )


def permission(help_text: str) -> "models.BooleanField[bool, bool]":
    return models.BooleanField(default=False, db_default=False, help_text=help_text)


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
    rate_limit_per_min = requests()
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
    # --- publishable tokens ---
    is_publishable = models.BooleanField(
        "publishable",
        default=False,
        db_default=False,
        help_text="Safe to ship in an app or a page (pk_…): it can only start sessions of people.",
    )
    origins = models.TextField(
        blank=True,
        default="",
        db_default="",
        validators=[validate_origins],
        help_text="From where browsers may use it, one a line: https://app.example.com, chrome-extension://ID, "
        "moz-extension:// (any). Empty: none, only servers and apps.",
    )
    anonymous_plan = plan_of_people("Of people who have not signed in. Empty: only the limits of this token.")
    default_plan = plan_of_people("Of people who have, where nothing else says so.")
    anonymous_day_tokens = limit("tokens a day, all anonymous")
    anonymous_month_tokens = limit("tokens a month, all anonymous")
    anonymous_day_usd = dollars("dollars a day, all anonymous")
    anonymous_month_usd = dollars("dollars a month, all anonymous")
    sessions_per_min = models.PositiveIntegerField(
        "new sessions per minute", default=60, db_default=60, help_text="Of all its people together. 0: none."
    )
    address_sessions_per_hour = models.PositiveIntegerField(
        "new anonymous people per hour and address",
        default=30,
        db_default=30,
        validators=[MinValueValidator(1)],
        help_text="An address is one of IPv4, or a /64 network of IPv6.",
    )
    # --- what may be sent ---
    is_restricted = models.BooleanField(
        "restricted",
        default=False,
        db_default=False,
        help_text="Only what is allowed below may be sent. Publishable tokens always are.",
    )
    allowed_roles = words("user", "Roles of messages, separated by spaces: user, assistant, system, developer, tool.")
    may_send_history = permission("May send `messages` in place of a conversation.")
    may_send_pictures = permission("May send pictures, files and sound.")
    may_send_formats = permission("May ask for JSON (response_format).")
    allowed_models = words("", "Names of models. Empty: all that the server has.")
    allowed_tools = words("", "Names of tools. Empty: none.")
    allowed_efforts = words("none minimal low", "Values of reasoning_effort.")
    allowed_tiers = words("auto default", "Values of service_tier.")
    most_output_tokens = models.PositiveIntegerField(
        default=4096, db_default=4096, validators=[MinValueValidator(1)], help_text="Of one reply."
    )

    expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    # The columns of limits, besides requests per minute. Empty: no limit.
    SPENDING = (
        *("tokens_per_min", "concurrent_turns", "day_tokens", "month_tokens", "day_usd", "month_usd"),
        *("user_day_tokens", "user_month_tokens", "user_day_usd", "user_month_usd"),
    )

    # What all anonymous people of a publishable token may spend together.
    POOL = ("anonymous_day_tokens", "anonymous_month_tokens", "anonymous_day_usd", "anonymous_month_usd")
    # What may be sent, where the token is restricted.
    POLICY = (
        *("allowed_roles", "may_send_history", "may_send_pictures", "may_send_formats", "allowed_models"),
        *("allowed_tools", "allowed_efforts", "allowed_tiers", "most_output_tokens"),
    )

    # Of a session: whose it is, and the limits that only a plan has (`as_used_by`).
    session: "ClientSession | None" = None
    person: "Person | None" = None
    plan: Plan | None = None
    user_concurrent_turns: int | None = None

    class Meta:
        db_table = "client_tokens"
        constraints = [
            models.CheckConstraint(
                condition=Q(is_publishable=False) | Q(is_setting=False, can_read_metrics=False, is_restricted=True),
                name="client_token_publishable_is_restricted",
            ),
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
        token = f"{PUBLISHABLE if self.is_publishable else SECRET}{secrets.token_urlsafe(32)}"
        self.prefix = token[:9]
        self.digest = self.digest_of(token)
        return token

    @property
    def is_usable(self) -> bool:
        """Whether the token is taken. Of a session: whether that is, whose person may be blocked all the same."""
        now = timezone.now()
        if self.session and (self.session.revoked_at or self.session.expires_at <= now):
            return False
        return self.is_active and (self.expires_at is None or self.expires_at > now)

    @property
    def requests_per_minute(self) -> int:
        return settings.RATE_LIMIT_PER_MIN if self.rate_limit_per_min is None else self.rate_limit_per_min

    # Begins the names of users that stand for client tokens. No client may name another's.
    USER_PREFIX = "token:"

    @property
    def default_user_id(self) -> str:
        """The user of a request that names none."""
        return self.person.pk if self.person else f"{self.USER_PREFIX}{self.pk}"

    @property
    def owner_id(self) -> str:
        """The user whose conversations, turns and keys alone this client may touch; empty: those of all its users."""
        return self.person.pk if self.person else ""

    @property
    def holder(self) -> int | str:
        """Who holds what is shared: places, rates, turns of the processor. Each person of an app is one."""
        return self.person.pk if self.person else self.pk

    def own_name(self, name: str, most: int) -> str:
        """Return a name that a request has chosen, as it is stored: the names of two people never meet.

        It has `most` characters or fewer; of a long one the digest is kept.
        """
        if not self.person:
            return name
        own = f"{self.person.pk}:"
        is_short = len(own) + len(name) <= most
        return own + (name if is_short else hashlib.blake2b(name.encode(), digest_size=16).hexdigest())

    def as_used_by(self, session: "ClientSession | None", person: "Person", plan: Plan | None) -> Self:
        """Return this client as one of its people may use it, with the plan's limits. It is not to be saved."""
        own = copy(self)
        own.session, own.person, own.plan = session, person, plan
        for name, most in (plan.limits if plan else {}).items():
            if most is not None:
                setattr(own, name, most)
        return own
