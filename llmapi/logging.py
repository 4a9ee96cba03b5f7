"""Logs on standard error: one line for each request, one when a turn settles, and a traceback for each failure.

No line holds a secret, a prompt or a reply. Queries and bodies are not logged. `log_formats` writes the lines.
"""

import logging
import secrets
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from analytics.causes import cause
from chat.api.addresses import address_of
from llmapi.log_formats import current_request_id

logger = logging.getLogger(__name__)
# Characters that a path keeps: those of RFC 3986 for a path, without those that have a meaning in logfmt.
UNQUOTED = "/-._~!$&'()*+,;:@"
UNAUTHORIZED = 401


class RequestLogMiddleware:
    """Give each request an id `r_…`, send it in `x-request-id`, and log the status and the time."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started = time.monotonic()
        request_id = f"r_{secrets.token_hex(12)}"
        request.request_id = request_id  # type: ignore[attr-defined]
        current_request_id.set(request_id)
        response = self.get_response(request)
        response["x-request-id"] = request_id
        fields = fields_of(request, response) | {"ms": round((time.monotonic() - started) * 1000)}
        is_refusal = 400 <= response.status_code != 500
        logger.info("request", extra={"fields": fields, "is_refusal": is_refusal})
        # The connection may carry other requests, and what is wrong with the next head is not about this one.
        response._resource_closers.append(forget_request)  # type: ignore[attr-defined]
        return response


def fields_of(request: HttpRequest, response: HttpResponseBase) -> dict[str, Any]:
    client = getattr(getattr(request, "admission", None), "client", None)
    return {
        "method": request.method if (request.method or "").isalpha() else "-",
        "path": quote_path(request.path),
        "status": response.status_code,
        "code": code_of(response) if response.status_code >= 400 else None,
        "address": address_of(request),
        "client": client and client.name,
        "client_id": client and client.pk,
    }


def code_of(response: HttpResponseBase) -> str | None:
    """Return the code of an error that a view of DRF has answered with."""
    with suppress(AttributeError, KeyError, TypeError):
        return str(response.data["error"]["code"])  # type: ignore[attr-defined]
    return None


def forget_request() -> None:
    current_request_id.set("-")


def quote_path(path: str) -> str:
    """Quote a path, so that no text of a stranger can end the line or begin another field."""
    return quote(path[:200], safe=UNQUOTED)


class Window:
    """Lets so many lines pass in each window of so many seconds, and counts the others."""

    def __init__(self, most: int, seconds: float) -> None:
        self.most = most
        self.seconds = seconds
        self._began = float("-inf")
        self._kept = 0
        self._dropped = 0

    def admit(self) -> bool:
        if self.is_over:
            self._began, self._kept = time.monotonic(), 0
        if self._kept >= self.most:
            self._dropped += 1
            return False
        self._kept += 1
        return True

    @property
    def is_over(self) -> bool:
        return time.monotonic() - self._began >= self.seconds

    def take_dropped(self) -> int:
        dropped, self._dropped = self._dropped, 0
        return dropped


class FewRefusals(logging.Filter):
    """Keeps LINES_A_SECOND lines about refused requests, and says with the next one how many others there were.

    Whoever is refused can ask again at once, and would fill the disk. Of refused tokens, which come by the thousands
    from an old client or a guesser, it keeps UNAUTHORIZED_A_MINUTE; any later line says how many others there were.
    """

    LINES_A_SECOND = 50
    UNAUTHORIZED_A_MINUTE = 10

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self._refusals = Window(self.LINES_A_SECOND, 1)
        self._unauthorized = Window(self.UNAUTHORIZED_A_MINUTE, 60)

    def filter(self, record: logging.LogRecord) -> bool:
        fields = record.__dict__.setdefault("fields", {})
        is_unauthorized = fields.get("status") == UNAUTHORIZED
        if getattr(record, "is_refusal", False):
            if not (self._unauthorized if is_unauthorized else self._refusals).admit():
                return False
            if not is_unauthorized:
                fields["unlogged"] = self._refusals.take_dropped() or None
        if is_unauthorized or self._unauthorized.is_over:
            fields["unlogged_401"] = self._unauthorized.take_dropped() or None
        return True


class ServerRefusals(FewRefusals):
    """Keeps few lines of the server about what is no request, and of each only what is the server's own.

    It quotes what it cannot read: the head of a request, or a body that is longer than its client said.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        text = cause(record.msg) if isinstance(record.msg, BaseException) else record.getMessage()
        record.msg, record.args = own_words(text), None
        if record.levelno == logging.WARNING and record.exc_info is None:
            record.__dict__["is_refusal"] = True
        return super().filter(record)


def own_words(text: str) -> str:
    """Keep one line of text up to its first quotation or query."""
    for mark in "'\"?":
        text = text.partition(mark)[0]
    return "".join(char if char.isprintable() else " " for char in text[:200]).rstrip(" b:(")


class HasTraceback(logging.Filter):
    """Keep only records with a traceback. Our own line already tells which request failed."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            # The message of Django has the unquoted path.
            record.msg, record.args = "request failed", None
        return bool(record.exc_info)


class Quiet(logging.Filter):
    """Keeps the lines that people at a terminal look for: no request that went well. A turn has a line of its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name != __name__ or record.__dict__["fields"]["status"] >= 400


def log_crashes() -> None:
    """Log what no code of this process has caught, in place of Python, which tells the words of the exception."""
    threading.excepthook = lambda crash: log_crash(crash.exc_type, crash.exc_value, crash.exc_traceback)
    sys.unraisablehook = lambda crash: log_crash(crash.exc_type, crash.exc_value, crash.exc_traceback)
    sys.excepthook = log_crash


def log_crash(kind: Any, error: Any, tb: Any) -> None:
    if not issubclass(kind, SystemExit):
        logger.getChild("crash").error("a thread or greenlet has crashed", exc_info=(kind, error or kind(), tb))
