"""How people of an app sign in, and how an app proves that it is one."""

from django.core.exceptions import ValidationError
from django.core.validators import URLValidator
from django.db import models

from chat.models.clients import ClientToken

MIN_SECRET = 32  # bytes of an HMAC's key (RFC 7518, section 3.2)
# One algorithm is chosen, never the token's own word for it (RFC 8725, section 3.1).
ALGORITHMS = ["RS256", "ES256", "EdDSA", "PS256", "HS256"]


class IdentityProvider(models.Model):
    """Whose JWTs name the people of an app (OpenID Connect), and what of them is read."""

    client_token = models.OneToOneField(ClientToken, on_delete=models.CASCADE, related_name="identity_provider")
    issuer = models.CharField(max_length=255, help_text="The claim iss, to the letter.")
    audience = models.CharField(
        max_length=255, blank=True, help_text="The claim aud, or one of its values. Empty only where a party is named."
    )
    algorithm = models.CharField(max_length=8, choices=[(name, name) for name in ALGORITHMS], default="RS256")
    jwks_url = models.CharField(
        max_length=500, blank=True, validators=[URLValidator(["https", "http"])], help_text="Where its keys are."
    )
    shared_secret = models.CharField(max_length=500, blank=True, help_text="In place of keys, for HS256.")
    subject_claim = models.CharField(max_length=100, default="sub", help_text="What tells a person by.")
    plan_claim = models.CharField(
        max_length=100, blank=True, help_text="What names the plan, with dots for what is inside: app_metadata.plan"
    )
    party_claim = models.CharField(
        max_length=100, blank=True, help_text="A claim that must be the origin of the request: azp, for Clerk."
    )

    class Meta:
        db_table = "identity_providers"

    def __str__(self) -> str:
        return str(self.issuer)

    def clean(self) -> None:
        """Refuse settings under which a token of somebody else's would be taken, or none could be."""
        is_shared = self.algorithm == "HS256"
        if is_shared and len(self.shared_secret.encode()) < MIN_SECRET:
            raise ValidationError({"shared_secret": f"HS256 needs a secret of {MIN_SECRET} bytes or more."})
        if not is_shared and not self.jwks_url:
            raise ValidationError({"jwks_url": "Say where the provider's keys are."})
        if not self.audience and not self.party_claim:
            raise ValidationError({"audience": "Without it tokens for any other app would be taken."})


class Attestation(models.Model):
    """What a client must prove before it gets a session: that a person, or the real app, asks for it."""

    class Kind(models.TextChoices):
        TURNSTILE = "turnstile", "Cloudflare Turnstile"
        APP_CHECK = "app_check", "Firebase App Check"

    client_token = models.OneToOneField(ClientToken, on_delete=models.CASCADE, related_name="attestation")
    kind = models.CharField(max_length=16, choices=Kind)
    secret = models.CharField(max_length=255, blank=True, help_text="Of Turnstile: the widget's secret key.")
    project = models.CharField(max_length=100, blank=True, help_text="Of App Check: the project's number.")
    hostnames = models.CharField(
        max_length=1000, blank=True, help_text="Of Turnstile: where the widget may have stood, separated by spaces."
    )

    class Meta:
        db_table = "attestations"

    def __str__(self) -> str:
        return str(self.kind)
