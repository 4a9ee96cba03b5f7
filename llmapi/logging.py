"""One line a request and one a failure, as logfmt, on standard error.

No line carries a secret, a prompt or a reply: queries and bodies are not logged, and of an
exception's message only the first line is (PostgreSQL puts the values of a row in the second).
"""

import logging
import secrets
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from logging.config import dictConfig
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

logger = logging.getLogger(__name__)
# What a path may say as it is: RFC 3986's characters of a path, without those that logfmt gives a meaning.
PLAIN = "/-._~!$&'()*+,;:@"
FORMAT = "time=%(asctime)s level=%(levelname)s logger=%(name)s request_id=%(request_id)s %(message)s"
current_request_id: ContextVar[str] = ContextVar("current_request_id", default="-")


class RequestLogMiddleware:
    """Name each request `r_…`, answer with that name, and log how it went."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started = time.monotonic()
        request_id = f"r_{secrets.token_hex(12)}"
        request.request_id = request_id  # type: ignore[attr-defined]
        current_request_id.set(request_id)
        response = self.get_response(request)
        response["x-request-id"] = request_id
        elapsed_ms = round((time.monotonic() - started) * 1000)
        logger.info(
            "method=%s path=%s status=%d ms=%d", request.method, quoted(request.path), response.status_code, elapsed_ms
        )
        return response


def quoted(path: str) -> str:
    """A path is a stranger's text: nothing in it may end the line or begin another field."""
    return quote(path[:200], safe=PLAIN)


class HasTraceback(logging.Filter):
    """Our own line says which request was answered with an error; why it failed is said with a traceback alone."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            # Django's own words have the path as it came.
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


def configure() -> None:
    dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "logfmt": {
                    "()": LogfmtFormatter,
                    "format": FORMAT,
                }
            },
            "filters": {"has_traceback": {"()": "llmapi.logging.HasTraceback"}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "logfmt"}},
            "root": {"handlers": ["stderr"], "level": "DEBUG" if settings.DEBUG else "INFO"},
            "loggers": {
                "django": {"level": "INFO"},
                "django.request": {"level": "ERROR", "filters": ["has_traceback"]},
                # A stranger can ask for any host, and our own line says that it was refused.
                "django.security.DisallowedHost": {"level": "CRITICAL"},
                "django.server": {"level": "CRITICAL"},
                "django.db.backends": {"level": "WARNING"},
                # It repeats, line after line, what the failed request says once.
                "psycopg.pool": {"level": "ERROR"},
                # At DEBUG these print prompts, replies and keys.
                "openai": {"level": "WARNING"},
                "httpx2": {"level": "WARNING"},
                "httpcore2": {"level": "WARNING"},
            },
        }
    )
