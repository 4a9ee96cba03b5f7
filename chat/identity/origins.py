"""From where browsers may use a publishable token: at minting, on each call of a session, and in answers to preflights.

This stops a page of somebody else, not a program: anything but a browser can send any Origin.
"""

import threading
import time

from rest_framework.request import Request

from chat.exceptions import OriginNotAllowed
from chat.models import ClientToken

# A browser leaves Origin out where a page reads from its own server, and an extension from a host that it may reach.
READS = {"GET", "HEAD"}
# The id of an extension of Firefox differs with each installation.
ANY_FIREFOX = "moz-extension://"
# Seconds for which the origins of all tokens are remembered.
REMEMBER_SECONDS = 5.0


def is_listed(origin: str, listed: "set[str] | list[str]") -> bool:
    return origin in listed or (origin.startswith(ANY_FIREFOX) and ANY_FIREFOX in listed)


def check(client: ClientToken, request: Request, bound: str = "") -> None:
    """Raise OriginNotAllowed, unless the request comes from where the token may be used.

    `bound`: the origin at which the session was started.
    """
    origin, listed = request.headers.get("Origin"), client.origins.split()
    if origin is None:
        # A token for browsers is not taken from a program, however little that proves.
        if listed and request.method not in READS:
            raise OriginNotAllowed(
                "This key is for browsers, which send an Origin; servers and apps need one of their own."
            )
        return
    if not is_listed(origin, listed):
        raise OriginNotAllowed
    if bound and origin != bound:
        raise OriginNotAllowed("The session was started at another origin; start one here with POST /v1/sessions.")


class Published:
    """The origins of all active publishable tokens. A preflight names no token, so it is answered by these."""

    def __init__(self) -> None:
        self._found: set[str] = set()
        self._until = 0.0
        self._lock = threading.Lock()

    def __contains__(self, origin: str) -> bool:
        with self._lock:
            is_over = time.monotonic() >= self._until
            if is_over:
                # Others go on with what is known, while one asks.
                self._until = time.monotonic() + REMEMBER_SECONDS
        if is_over:
            tokens = ClientToken.objects.filter(is_publishable=True, is_active=True).exclude(origins="")
            self._found = {origin for text in tokens.values_list("origins", flat=True) for origin in text.split()}
        return is_listed(origin, self._found)

    def forget(self) -> None:
        self._until = 0.0


published = Published()
