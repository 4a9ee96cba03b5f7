"""JWTs of a team's own provider of identities, as OpenID Connect has them: who signs in, and on which plan.

The algorithm and the keys are those that staff have set for the app; what a token says of itself is never followed
(RFC 8725). A key that is not known yet is asked for once a minute at most, so that invented ids cost nobody a request.
"""

import json
import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

import jwt
import urllib3

from analytics.fairness import close_connection, outside
from chat.exceptions import SignInInvalid, Unavailable
from chat.identity.tokens import MAX_TOKEN, kid_of
from chat.models import IdentityProvider

logger = logging.getLogger(__name__)

# Seconds: how long keys are believed, how soon they are asked for again, and how soon after a failure, how long a
# provider may take, and by how much its clock may differ from ours.
FRESH_SECONDS, AGAIN_SECONDS, AFTER_FAILURE_SECONDS, TIMEOUT_SECONDS, LEEWAY_SECONDS = 3600, 60, 5, 5, 60
MAX_JWKS = 512 * 1024
REQUIRED = ["exp", "iat", "iss"]
# Characters of an id. Longer ones are no ids.
MAX_SUBJECT = 255


@dataclass(frozen=True)
class Identity:
    """Whom a provider names: `issuer` and `subject` together, never an address of mail."""

    issuer: str
    subject: str
    plan: str = ""


def verify(provider: IdentityProvider, token: str, origin: str) -> Identity:
    """Return whom a JWT names. Raises SignInInvalid, or Unavailable where the provider's keys cannot be had."""
    if len(token) > MAX_TOKEN:
        raise SignInInvalid(f"The token is longer than {MAX_TOKEN:,} characters.", param="subject_token")
    try:
        claims = decode(provider, token)
    except (jwt.InvalidTokenError, jwt.InvalidKeyError, RecursionError) as exc:
        raise SignInInvalid(f"The provider's token is not taken: {exc}.", param="subject_token") from exc
    if provider.party_claim and claim(claims, provider.party_claim) != origin:
        raise SignInInvalid(f"The token's {provider.party_claim} is not this origin.", param="subject_token")
    subject, plan = claim(claims, provider.subject_claim), claim(claims, provider.plan_claim)
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT or "\0" in subject:
        raise SignInInvalid(f"The token names nobody in its claim {provider.subject_claim}.", param="subject_token")
    return Identity(provider.issuer, subject, plan if isinstance(plan, str) else "")


def decode(provider: IdentityProvider, token: str) -> dict[str, Any]:
    """Return the claims of a token. Raises InvalidTokenError or InvalidKeyError, or Unavailable."""
    try:
        return _decode(provider, token, key_for(provider, token))
    except jwt.InvalidSignatureError:
        # A provider that names no key, or another one by the same name, may have changed it.
        if provider.jwks_url and keys_of(provider.jwks_url).renew():
            return _decode(provider, token, key_for(provider, token))
        raise


def _decode(provider: IdentityProvider, token: str, key: Any) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(
        token,
        key,
        [provider.algorithm],
        audience=provider.audience or None,
        issuer=provider.issuer,
        leeway=LEEWAY_SECONDS,
        options={
            "require": [*REQUIRED, *(["aud"] if provider.audience else [])],
            "verify_aud": bool(provider.audience),
            "enforce_minimum_key_length": True,
        },
    )
    return found


def claim(claims: dict[str, Any], path: str) -> Any:
    """Find a claim by its path: app_metadata.plan, or a name that has dots itself."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def key_for(provider: IdentityProvider, token: str) -> Any:
    """Return the key that the token must be signed with."""
    if provider.algorithm.startswith("HS"):
        return provider.shared_secret
    found = keys_of(provider.jwks_url).find(kid_of(token))
    if found is None:
        raise jwt.InvalidKeyError("no key of the provider has its id")
    if found.algorithm_name != provider.algorithm:
        raise jwt.InvalidKeyError(f"its key is not for {provider.algorithm}")
    return found.key


class Keys:
    """The public keys of one provider, as its JWKS lists them (RFC 7517)."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._found: list[jwt.PyJWK] = []
        self._asked_at = float("-inf")
        self._lock = threading.Lock()

    def find(self, kid: str | None) -> jwt.PyJWK | None:
        """Return the key of that id; of a single key, that one where the token names none.

        Raises Unavailable where there are none.
        """
        age = time.monotonic() - self._asked_at
        if age > FRESH_SECONDS or (self._named(kid) is None and age > AGAIN_SECONDS):
            self._ask()
        if not self._found:
            raise Unavailable("The provider of identities does not answer; try again in a moment.")
        return self._named(kid)

    def renew(self) -> bool:
        """Ask for the keys again, unless that was a moment ago. Returns whether they were asked for."""
        if time.monotonic() - self._asked_at <= AGAIN_SECONDS:
            return False
        self._ask()
        return True

    def _named(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None:
            return self._found[0] if len(self._found) == 1 else None
        return next((key for key in self._found if key.key_id == kid), None)

    def _ask(self) -> None:
        """Read the keys, unless another has just done so. Keys that were believed so far are, where that fails."""
        close_connection()
        with outside(), self._lock:
            if time.monotonic() - self._asked_at <= AGAIN_SECONDS:
                return
            self._asked_at = time.monotonic()
            try:
                self._found = read_keys(fetch(self._url))
            except (urllib3.exceptions.HTTPError, ValueError, TypeError, jwt.PyJWTError) as exc:
                logger.warning("the keys of a provider of identities cannot be read: %s", type(exc).__name__)
                if not self._found:
                    # Whoever waited for us does not wait as long again.
                    self._asked_at -= AGAIN_SECONDS - AFTER_FAILURE_SECONDS


def read_keys(body: bytes) -> list[jwt.PyJWK]:
    keys = json.loads(body)
    listed = keys.get("keys") if isinstance(keys, dict) else None
    if not isinstance(listed, list):
        raise TypeError("no JWKS")
    found = []
    for key in listed[:100]:
        # A provider may list keys of kinds that are none of ours.
        try:
            found.append(jwt.PyJWK(key))
        except jwt.PyJWTError:
            continue
    return found


def fetch(url: str) -> bytes:
    """Read a small document. Raises urllib3's HTTPError, or ValueError where it is none."""
    answer = pool.request(
        "GET",
        url,
        timeout=TIMEOUT_SECONDS,
        retries=False,
        preload_content=False,
        headers={"Accept": "application/json"},
    )
    try:
        body = answer.read(MAX_JWKS + 1)
    finally:
        answer.release_conn()
    if answer.status != 200 or len(body) > MAX_JWKS:
        raise ValueError(f"status {answer.status}, {len(body)} bytes")
    return body


pool = urllib3.PoolManager(maxsize=4)
_keys: dict[str, Keys] = {}


def keys_of(url: str) -> Keys:
    return _keys.setdefault(url, Keys(url))
