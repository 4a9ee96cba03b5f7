"""How a line of the log is written: logfmt or JSON for machines, or a short one for people at a terminal.

A record has a message, which is ours, and `fields`, which may hold what a stranger wrote: `extra={"fields": {…}}`. Each
record is one line, but for a traceback on a terminal, and no value can end the line or begin another field.

The words of an exception are written only where they cannot name a value of a row or a request: those of most kinds
may. The traceback tells where it was raised all the same.
"""

import json
import logging
import re
import sqlite3
import time
import traceback
from contextvars import ContextVar
from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError

from analytics.causes import MAX_LENGTH, OF_THE_DATABASE

current_request_id: ContextVar[str] = ContextVar("current_request_id", default="-")

# Their first line names code, constraints, files and servers. PostgreSQL puts the values of a row in the second line.
WITHOUT_VALUES = (
    *OF_THE_DATABASE,
    *(IntegrityError, psycopg.IntegrityError, sqlite3.IntegrityError, ImproperlyConfigured),
    *(ArithmeticError, AttributeError, ImportError, MemoryError, NameError, NotImplementedError, RecursionError),
)
# Values that need no quotes in logfmt.
BARE = re.compile(r"[!#-<>-~]+")
MAX_VALUE = 1000
MAX_MESSAGE = 2000


class Formatter(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def entries(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return the names and values of a line. Those that say nothing are left out."""
        fields: dict[str, Any] = getattr(record, "fields", {})
        found = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "request_id": fields.get("request_id") or current_request_id.get(),
            "message": record.getMessage()[:MAX_MESSAGE],
        }
        for name, value in fields.items():
            if value is not None and value != "":
                found[name] = value[:MAX_VALUE] if isinstance(value, str) else value
        if record.exc_info and record.exc_info[1]:
            # Kept with the record, where every other handler finds it in place of the whole.
            record.exc_text = found["exception"] = self.formatException(record.exc_info)
        return found

    def formatException(self, ei: Any) -> str:  # noqa: N802
        summary = traceback.TracebackException(*ei, capture_locals=False)
        clear(summary, ei[1])
        return "".join(summary.format()).rstrip()


def clear(summary: traceback.TracebackException, error: BaseException | None) -> None:
    """Take out of a traceback what the exception says, and those behind it, where that may be somebody's text."""
    found: Any = summary
    first_line = str(error).partition("\n")[0][:MAX_LENGTH] if isinstance(error, WITHOUT_VALUES) else ""
    found._str, found.__notes__ = first_line, None
    if isinstance(error, SyntaxError):
        found.text = found.msg = None
    if summary.__cause__ and error:
        clear(summary.__cause__, error.__cause__)
    if summary.__context__ and error:
        clear(summary.__context__, error.__context__)
    for inner, inner_error in zip(summary.exceptions or (), getattr(error, "exceptions", ()), strict=True):
        clear(inner, inner_error)


class LogfmtFormatter(Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join([f"{name}={logfmt(value)}" for name, value in self.entries(record).items()])


def logfmt(value: Any) -> str:
    text = value if isinstance(value, str) else written(value)
    return text if BARE.fullmatch(text) else json.dumps(text)


def written(value: Any) -> str:
    """Write a value that is no text. Costs are small numbers, which nobody wants to read as 1.1e-05."""
    if isinstance(value, float):
        return f"{value:.9f}".rstrip("0").rstrip(".")
    return str(value).lower() if isinstance(value, bool) else str(value)


class JsonFormatter(Formatter):
    """One object of ASCII a line: what ends a line in Unicode alone would end one for some readers.

    A library for it would bring a formatter that writes the words of exceptions, and this is its only line.
    """

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.entries(record), default=str)


class ConsoleFormatter(Formatter):
    """What people read at a terminal: the time of day, and what happened; of a turn, what it took."""

    def format(self, record: logging.LogRecord) -> str:
        found = self.entries(record)
        exception = found.pop("exception", "")
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = f"{record.levelname} " if record.levelno != logging.INFO else ""
        line = f"{clock} {level}{self.sentence(found)}"
        return printable(line) + (f"\n{exception}" if exception else "")

    def sentence(self, found: dict[str, Any]) -> str:
        message, request_id = found["message"], found["request_id"]
        fields = {name: value for name, value in found.items() if name not in HEAD}
        if fields and message in SENTENCES:
            return SENTENCES[message](found)
        told = " ".join([message, *(f"{name}={written_text(value)}" for name, value in fields.items())])
        return told if request_id == "-" else f"{told} {request_id}"


HEAD = {"time", "level", "logger", "request_id", "message"}


def turn_sentence(found: dict[str, Any]) -> str:
    who = found.get("client") or f"client {found['client_id']}"
    outcome = f"{found['status']}: {found['code']}" if "code" in found else found["status"]
    parts = [f"{who} {found['model']} {outcome}"]
    if "prompt_tokens" in found:
        parts.append(f"{found['prompt_tokens']}+{found['completion_tokens']} tokens")
    if "cost_usd" in found:
        parts.append(f"${written(found['cost_usd'])}")
    if "latency_ms" in found:
        parts.append(f"{found['latency_ms']} ms")
    if words := found.get("upstream_error"):
        parts.append(f"the provider said: {words}")
    return f"{', '.join(parts)} {found['request_id']}"


def request_sentence(found: dict[str, Any]) -> str:
    what = f"{found['method']} {found['path']} {found['status']} {found.get('code', '')}".rstrip()
    unlogged = f", and {found['unlogged']} like it" if "unlogged" in found else ""
    return f"{what}, {found['ms']} ms, {found.get('client') or found['address']}{unlogged} {found['request_id']}"


SENTENCES = {"turn": turn_sentence, "request": request_sentence}


def written_text(value: Any) -> str:
    return value if isinstance(value, str) else written(value)


def printable(text: str) -> str:
    """Escape what a terminal would take for a command, or for the end of the line."""
    return "".join([char if char.isprintable() else ascii(char)[1:-1] for char in text])


FORMATTERS = {"logfmt": LogfmtFormatter, "json": JsonFormatter, "console": ConsoleFormatter}
