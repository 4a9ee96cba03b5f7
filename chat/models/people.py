"""People of publishable tokens, and their sessions."""

import secrets

from django.db import models
from django.db.models import Q
from django.utils import timezone

from chat.models.clients import ClientToken
from chat.models.plans import Plan

# Begins the id of a person.
PERSON = "u_"


def new_person_id() -> str:
    return f"{PERSON}{secrets.token_hex(12)}"


def new_session_id() -> str:
    return f"s_{secrets.token_hex(12)}"


def new_key_id() -> str:
    return f"k_{secrets.token_hex(4)}"


class Person(models.Model):
    """Somebody who uses an app: anonymous, or known by the id that a provider of identities gives.

    The id is the `user_id` of all that the person does. No name and no address is kept.
    """

    person_id = models.CharField(primary_key=True, max_length=26, default=new_person_id, editable=False)
    client_token = models.ForeignKey(ClientToken, on_delete=models.PROTECT, related_name="people", db_index=False)
    # Who says who it is, and what it calls the person. Empty: anonymous.
    issuer = models.CharField(max_length=255, blank=True, editable=False)
    subject = models.CharField(max_length=255, blank=True, editable=False)
    plan = models.ForeignKey(
        Plan,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        db_index=False,
        related_name="+",
        help_text="Empty: as the sign-in says, or the plan of the app.",
    )
    # As the last sign-in named it.
    claimed_plan = models.ForeignKey(
        Plan, on_delete=models.PROTECT, null=True, editable=False, db_index=False, related_name="+"
    )
    is_blocked = models.BooleanField("blocked", default=False, help_text="Refuses all that the person does, at once.")
    # The known person whom an anonymous one became.
    merged_into = models.ForeignKey("self", on_delete=models.PROTECT, null=True, editable=False, related_name="merged")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    signed_up_at = models.DateTimeField(null=True, editable=False, help_text="The first sign-in.")
    last_seen_at = models.DateTimeField(default=timezone.now, editable=False, help_text="The last session or refresh.")

    class Meta:
        db_table = "people"
        verbose_name_plural = "people"
        indexes = [
            models.Index(fields=["-created_at"], name="person_created"),
            models.Index(fields=["client_token", "-created_at"], name="person_client_created"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["client_token", "issuer", "subject"], condition=~Q(subject=""), name="person_once_per_subject"
            ),
        ]

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def is_anonymous(self) -> bool:
        return not self.subject


class ClientSession(models.Model):
    """A person on one device. Access tokens name it; the refresh token is told by `generation` and `seed`."""

    session_id = models.CharField(primary_key=True, max_length=26, default=new_session_id, editable=False)
    person = models.ForeignKey(Person, on_delete=models.CASCADE, related_name="sessions")
    origin = models.CharField(max_length=255, blank=True, help_text="From where it was started; empty: no browser.")
    # A refresh token is a MAC of these (`chat.identity.tokens`): none is stored, and none can be made from a stolen key
    # or a stolen table alone.
    seed = models.CharField(max_length=43, editable=False)
    generation = models.PositiveIntegerField(default=0, editable=False)
    refreshed_at = models.DateTimeField(default=timezone.now, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(help_text="When it ends, unless it is refreshed before.")
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        db_table = "client_sessions"
        # purge_expired deletes those that are over.
        indexes = [models.Index(fields=["expires_at"], name="client_session_expires")]

    def __str__(self) -> str:
        return str(self.pk)


class SigningKey(models.Model):
    """A key that access tokens are signed with. It is derived from SECRET_KEY and the id: no secret is stored."""

    kid = models.CharField(primary_key=True, max_length=16, default=new_key_id, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    # Until then tokens that it has signed are taken. Null: it signs.
    retires_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        db_table = "signing_keys"

    def __str__(self) -> str:
        return str(self.pk)
