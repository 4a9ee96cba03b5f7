"""Logs in logfmt on standard error: one line for each request, and a traceback for each failure.

No line holds a secret, a prompt or a reply. Queries and bodies are not logged. Of the message of an exception only the
first line is logged, because PostgreSQL puts the values of a row in the second.
"""

import logging
import secrets
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote

from django.http import HttpRequest
from django.http.response import HttpResponseBase

logger = logging.getLogger(__name__)
# Characters that a path keeps: those of RFC 3986 for a path, without those that have a meaning in logfmt.
UNQUOTED = "/-._~!$&'()*+,;:@"
current_request_id: ContextVar[str] = ContextVar("current_request_id", default="-")


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
        path, elapsed_ms = quote_path(request.path), round((time.monotonic() - started) * 1000)
        arguments = (request.method, path, response.status_code, elapsed_ms)
        refusal = {"is_refusal": 400 <= response.status_code != 500}
        logger.info("method=%s path=%s status=%d ms=%d", *arguments, extra=refusal)
        return response


def quote_path(path: str) -> str:
    """Quote a path, so that no text of a stranger can end the line or begin another field."""
    return quote(path[:200], safe=UNQUOTED)


class FewRefusals(logging.Filter):
    """Keeps LINES_A_SECOND lines about refused requests, and says with the next one how many others there were.

    Whoever is refused can ask again at once, and would fill the disk.
    """

    LINES_A_SECOND = 50

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self._second = 0.0
        self._kept = 0
        self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(record, "is_refusal", False):
            return True
        now = time.monotonic()
        if now - self._second >= 1:
            self._second, self._kept = now, 0
        if self._kept == self.LINES_A_SECOND:
            self._dropped += 1
            return False
        self._kept += 1
        if self._dropped:
            record.msg = f"{record.msg} unlogged={self._dropped}"
            self._dropped = 0
        return True


class ServerRefusals(FewRefusals):
    """Keeps few lines of the server about what is no request, and of each only the beginning: a stranger wrote it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno == logging.WARNING and record.exc_info is None:
            record.__dict__["is_refusal"] = True
            record.msg, record.args = quote_line(record.getMessage()), None
        return super().filter(record)


def quote_line(text: str) -> str:
    """Keep one line of text, without what a terminal would take for a command."""
    return "".join(char if char.isprintable() else " " for char in text[:200])


class HasTraceback(logging.Filter):
    """Keep only records with a traceback. Our own line already tells which request failed."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            # The message of Django has the unquoted path.
            record.msg, record.args = "request failed", None
        return bool(record.exc_info)


class LogfmtFormatter(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        record.request_id = current_request_id.get()
        return super().format(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        summary = traceback.TracebackException(*ei, capture_locals=False)
        error: traceback.TracebackException | None = summary
        while error is not None:
            first_line = str(getattr(error, "_str", "")).partition("\n")[0]
            error._str = first_line[:200]  # type: ignore[attr-defined]
            error = error.__cause__ or error.__context__
        return "".join(summary.format()).rstrip()
