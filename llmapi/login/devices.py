"""Browsers that a user has logged in with: a signed cookie gives them tries that no stranger can use up.

See "Slow Down Online Guessing Attacks with Device Cookies" of OWASP. The cookie logs nobody in.
"""

import secrets
from datetime import timedelta

from django.conf import settings
from django.core import signing
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from llmapi.login.tries import digest_of, normalise

COOKIE = "staff_device"
SALT = "llmapi.login.devices"
TTL = timedelta(days=180)


def device_of(request: HttpRequest, name: str) -> str:
    """Return the id of the browser, if this user has logged in with it; else an empty text."""
    text = request.COOKIES.get(COOKIE, "")
    if not text or len(text) > 300:
        return ""
    try:
        of_name, device = signing.loads(text, salt=SALT, max_age=TTL)
    except (signing.BadSignature, ValueError, TypeError):
        return ""
    return str(device) if of_name == digest_of(normalise(name)) else ""


def remember(request: HttpRequest, response: HttpResponseBase, name: str) -> None:
    """Let the browser tell the next time that this user has logged in with it."""
    device = device_of(request, name) or secrets.token_hex(8)
    response.set_cookie(
        COOKIE,
        signing.dumps([digest_of(normalise(name)), device], salt=SALT),
        max_age=TTL,
        path=settings.SESSION_COOKIE_PATH,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
