"""The tokens of a session: a short-lived access token, and the refresh token that it is renewed with.

An access token is a JWT (RFC 7519) under a key of our own. It is read together with the rows that it names, so that
what is revoked ends with the next request. A refresh token is a MAC of the session's row: none is stored.
"""

import hmac
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import jwt
from django.conf import settings
from django.utils.crypto import salted_hmac

from chat.exceptions import SessionExpired, SessionInvalid
from chat.models import ClientSession, SigningKey

NAME = "llmapi"  # the issuer of access tokens, and who is to take them
# One algorithm for each key, never what a token says (RFC 8725, section 3.1).
ALGORITHM = "HS256"
ACCESS_SECONDS = 600
REFRESH = "rt_"
# Bytes. A longer token is not read.
MAX_TOKEN = 8192
CLAIMS = ["iss", "aud", "sub", "sid", "exp", "iat", "jti"]


class Claims(NamedTuple):
    """What an access token names: a session, and the key that has signed it."""

    session_id: str
    kid: str


def is_access_token(token: str) -> bool:
    """Tell a JWT from a client token by its form: a JSON object in base64 begins so."""
    return token.startswith("eyJ") and token.count(".") == 2


def kid_of(token: str) -> str | None:
    """Return which key a JWT says that it was signed with, before anything of it is believed."""
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except (jwt.InvalidTokenError, RecursionError):  # JSON that is nested too deep
        return None
    return kid if isinstance(kid, str) else None


def sign(session: ClientSession, key: SigningKey, jti: str) -> str:
    """Make the access token of a session."""
    person, now = session.person, int(time.time())
    claims = {
        "iss": NAME,
        "aud": NAME,
        "sub": person.pk,
        "sid": session.pk,
        "cid": person.client_token_id,
        "org": session.origin,
        "anon": person.is_anonymous,
        "iat": now,
        "exp": now + ACCESS_SECONDS,
        "jti": jti,
    }
    return jwt.encode(claims, key_of(key.pk, settings.SECRET_KEY), ALGORITHM, headers={"kid": key.pk})


def read(token: str) -> Claims:
    """Return what an access token names. Raises SessionExpired or SessionInvalid; the rows are not looked at."""
    if len(token) > MAX_TOKEN:
        raise SessionInvalid
    claims, ends_at = verify(token, (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))
    if time.time() >= ends_at:
        raise SessionExpired
    return claims


@lru_cache(maxsize=10_000)
def verify(token: str, secrets: tuple[str, ...]) -> tuple[Claims, float]:
    """Return what a token names, if it is one of ours, and when it ends. A client sends the same one for ten minutes.

    Raises SessionInvalid.
    """
    kid = kid_of(token)
    if kid is None or not kid.startswith("k_") or len(kid) > 16:
        raise SessionInvalid
    for secret in secrets:
        try:
            claims = jwt.decode(
                token,
                key_of(kid, secret),
                [ALGORITHM],
                audience=NAME,
                issuer=NAME,
                # Told apart by the caller, whenever it asks.
                options={"require": CLAIMS, "verify_exp": False, "enforce_minimum_key_length": True},
            )
        except jwt.InvalidSignatureError:
            continue
        except jwt.InvalidTokenError as exc:
            raise SessionInvalid from exc
        return Claims(str(claims["sid"]), kid), float(claims["exp"])
    raise SessionInvalid


def refresh_token_of(session: ClientSession) -> str:
    """Make the refresh token of a session's generation."""
    return _refresh_token(session.pk, session.generation, session.seed, settings.SECRET_KEY)


def session_of(refresh_token: str) -> tuple[str, int] | None:
    """Read which session and which generation a refresh token says it is of; None where it is none."""
    name, _, rest = refresh_token.removeprefix(REFRESH).partition(".")
    number, _, mac = rest.partition(".")
    is_one = refresh_token.startswith(REFRESH) and len(refresh_token) < 200 and mac.isascii()
    return (
        (f"s_{name}", int(number)) if is_one and number.isdecimal() and number.isascii() and len(number) < 10 else None
    )


def is_genuine(refresh_token: str, session: ClientSession, generation: int) -> bool:
    """Tell whether we have made the token, for that generation of the session."""
    return any(
        hmac.compare_digest(refresh_token, _refresh_token(session.pk, generation, session.seed, secret))
        for secret in secrets()
    )


def _refresh_token(session_id: str, generation: int, seed: str, secret: str) -> str:
    text = f"{session_id}.{generation}.{seed}"
    mac = salted_hmac("chat.identity.refresh", text, secret=secret, algorithm="sha256").hexdigest()
    return f"{REFRESH}{session_id.removeprefix('s_')}.{generation}.{mac}"


def key_of(kid: str, secret: str) -> bytes:
    return salted_hmac("chat.identity.signing", kid, secret=secret, algorithm="sha256").digest()


def secrets() -> Iterator[str]:
    yield settings.SECRET_KEY
    yield from settings.SECRET_KEY_FALLBACKS
