"""Connections that last, beside those of requests: one for each lane, without what Django does around a statement."""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from typing import Any, Protocol

import psycopg
from django.conf import settings
from django.db import connection
from psycopg.rows import tuple_row

from chat.sql import Found, Session, Statement, Step, clock, dumped, written

# Milliseconds that a batch waits for a row which somebody else has locked. Its requests then run alone.
LOCK_TIMEOUT_MS = 1000
# The plan of a prepared statement is made once, maybe while its tables are small: it must be the one for large tables.
PLANS = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"


def connect(**more: Any) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect outside of the pool. A network that is gone is noticed by keepalives, within 25 seconds."""
    keepalives = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    parameters = {**connection.get_connection_params(), **keepalives, **more}
    return psycopg.connect(**parameters, autocommit=True, row_factory=tuple_row)


class LastingSession(Session, Protocol):
    """Runs statements on a connection of one thread, which lasts."""

    @property
    def is_connected(self) -> bool: ...

    def transaction(self, *, is_atomic: bool) -> AbstractContextManager[None]:
        """Run what follows in one transaction; where not `is_atomic`, each `run` of PostgreSQL is one by itself."""


def lasting_session(name: str) -> LastingSession:
    return PostgreSQLSession(name) if connection.vendor == "postgresql" else SQLiteSession()


class SQLiteSession:
    """Uses Django's connection of this thread, and nothing of Django's between it and SQLite."""

    is_connected = True

    def __init__(self) -> None:
        connection.ensure_connection()
        self._connection: sqlite3.Connection = connection.connection

    @contextmanager
    def transaction(self, *, is_atomic: bool) -> Iterator[None]:
        if not is_atomic:
            yield
            return
        # The write lock is taken at once, so that no transaction fails halfway because another has it.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def run(self, *steps: Step) -> list[Found]:
        return [
            self._connection.execute(in_sqlite(statement), [dumped(rows)]).fetchall() if rows else []
            for statement, rows in steps
        ]


@cache
def in_sqlite(statement: Statement) -> str:
    return statement.sql("sqlite", clock()) % "?"


class PostgreSQLSession:
    """Runs prepared statements. All those of one `run` cost one round trip.

    They are sent as one text of EXECUTE commands, because PostgreSQL takes only one statement with parameters at once.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._prepared: set[str] = set()
        self._opening: list[str] = []

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and not self._connection.closed

    @contextmanager
    def transaction(self, *, is_atomic: bool) -> Iterator[None]:
        if not self.is_connected:
            # PgBouncer in transaction mode takes no options, and keeps nothing that was prepared.
            options = {} if settings.PGBOUNCER else {"options": f"-c lock_timeout={LOCK_TIMEOUT_MS} {PLANS}"}
            self._connection = connect(
                application_name=f"llmapi-{self._name}", cursor_factory=psycopg.ClientCursor, context=None, **options
            )
            self._prepared.clear()
        assert self._connection is not None
        self._opening = ["BEGIN"] if is_atomic else []
        try:
            yield
            if is_atomic and not self._opening:
                self._connection.execute("COMMIT")
        except BaseException:
            with suppress(psycopg.Error):  # Where the connection is broken, the server rolls back by itself.
                self._connection.execute("ROLLBACK")
            raise

    def run(self, *steps: Step) -> list[Found]:
        assert self._connection is not None
        wanted = [(statement, rows) for statement, rows in steps if rows]
        commands = [*self._opening, *(self._command(statement) for statement, _ in wanted)]
        self._opening, skipped = [], len(self._opening)
        found: list[Found] = []
        if wanted:
            with self._connection.cursor() as cursor:
                cursor.execute(";".join(commands), [dumped(rows) for _, rows in wanted])
                for _ in range(skipped):
                    cursor.nextset()
                for _ in wanted:
                    found.append(cursor.fetchall() if cursor.description else [])
                    cursor.nextset()
        answers = iter(found)
        return [next(answers) if rows else [] for _, rows in steps]

    def _command(self, statement: Statement) -> str:
        if statement.name not in self._prepared:
            sql = written(statement, "postgresql", clock())
            if settings.PGBOUNCER:
                return sql
            assert self._connection is not None
            self._connection.execute(f"PREPARE {statement.name} (json) AS {sql.replace('%s', '$1')}")
            self._prepared.add(statement.name)
        return f"EXECUTE {statement.name}(%s)"
