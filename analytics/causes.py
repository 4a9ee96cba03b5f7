"""What a log line says of an error: the database's own words, and nothing that a client wrote."""

import sqlite3

import psycopg
from django.db import InterfaceError, OperationalError

# Errors of the database's state: their words name servers, files and limits. Those of other kinds may name values.
OF_THE_DATABASE = (
    OperationalError,
    InterfaceError,
    psycopg.OperationalError,
    psycopg.InterfaceError,
    sqlite3.OperationalError,
)
MAX_LENGTH = 200


def cause(error: BaseException) -> str:
    """Return the kind of an error, and of one of the database the first line of what it says."""
    kind = type(error).__name__
    if not isinstance(error, OF_THE_DATABASE):
        return kind
    line = str(error).strip().partition("\n")[0][:MAX_LENGTH]
    return f"{kind}: {''.join(char if char.isprintable() else ' ' for char in line)}" if line else kind
