"""Proof that a person, or the real app, asks for a session. Each kind is one function; it fails closed.

Cloudflare Turnstile: https://developers.cloudflare.com/turnstile/get-started/server-side-validation/
Firebase App Check: https://firebase.google.com/docs/app-check/custom-resource-backend
"""

import json
from collections.abc import Callable
from typing import Any

import jwt
import urllib3

from analytics.fairness import close_connection, outside
from chat.exceptions import AttestationFailed
from chat.identity.providers import LEEWAY_SECONDS, TIMEOUT_SECONDS, keys_of, pool
from chat.identity.tokens import kid_of
from chat.models import Attestation, ClientToken

SITEVERIFY = "https://challenges.cloudflare.com/turnstile/v0/siteverify"
APP_CHECK_ISSUER = "https://firebaseappcheck.googleapis.com/"
APP_CHECK_KEYS = "https://firebaseappcheck.googleapis.com/v1/jwks"
MAX_PROOF = 4096
MAX_ANSWER = 64 * 1024


def check(client: ClientToken, sent: dict[str, Any] | None, address: str) -> None:
    """Raise AttestationFailed, unless what the app demands is proved, or it demands nothing."""
    attestation = Attestation.objects.filter(client_token=client).first()
    if attestation is None:
        return
    if sent is None or sent.get("type") != attestation.kind or len(sent.get("token", "")) > MAX_PROOF:
        raise AttestationFailed(
            f'This app needs "attestation": {{"type": "{attestation.kind}", "token": …}}.', param="attestation"
        )
    if not CHECKS[attestation.kind](attestation, sent["token"], address):
        raise AttestationFailed("The proof is not taken; make a new one and try again.", param="attestation")


def turnstile(attestation: Attestation, proof: str, address: str) -> bool:
    """Ask Cloudflare, which takes each proof once, for five minutes."""
    close_connection()
    fields = {"secret": attestation.secret, "response": proof, "remoteip": address}
    with outside():
        try:
            answer = pool.request(
                "POST", SITEVERIFY, fields=fields, encode_multipart=False, timeout=TIMEOUT_SECONDS, retries=False
            )
            found = json.loads(answer.data[:MAX_ANSWER])
        except (urllib3.exceptions.HTTPError, ValueError):
            return False
    hostnames = attestation.hostnames.split()
    return found.get("success") is True and (not hostnames or found.get("hostname") in hostnames)


def app_check(attestation: Attestation, proof: str, _: str) -> bool:
    try:
        key = keys_of(APP_CHECK_KEYS).find(kid_of(proof))
        if key is None:
            return False
        claims = jwt.decode(
            proof,
            key.key,
            ["RS256"],
            audience=f"projects/{attestation.project}",
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "iat", "aud", "iss", "sub"]},
        )
    except (jwt.PyJWTError, RecursionError):
        return False
    return str(claims["iss"]).startswith(APP_CHECK_ISSUER)


CHECKS: dict[str, Callable[[Attestation, str, str], bool]] = {
    Attestation.Kind.TURNSTILE: turnstile,
    Attestation.Kind.APP_CHECK: app_check,
}
