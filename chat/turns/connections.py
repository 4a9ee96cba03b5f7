"""Connections that last, beside those of requests: one for each lane, without what Django does around a statement."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from typing import Any, Protocol

import psycopg
from django.conf import settings
from django.db import connection
from psycopg.rows import tuple_row

from chat.database import LANE, wait_for_lock
from chat.postgres import BoundedConnection, server_timeouts
from chat.sql import Found, Row, Session, Statement, Step, clock, dumped, written

# The plan of a prepared statement is made once, maybe while its tables are small: it must be the one for large tables.
PLANS = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"


def connect(options: str = "", **more: Any) -> BoundedConnection:
    """Connect outside of the pool. A network that is gone is noticed by keepalives, within 25 seconds.

    `options` are PostgreSQL's settings for the session. A PgBouncer in transaction mode takes none.
    """
    keepalives = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    parameters = {**connection.get_connection_params(), **keepalives, **more}
    if not settings.PGBOUNCER:
        timeouts = (f"-c {name}={value}" for name, value in server_timeouts(LANE).items())
        parameters["options"] = " ".join([parameters.get("options", ""), *timeouts, options])
    found = BoundedConnection.connect(**parameters, autocommit=True, row_factory=tuple_row)
    found.patience = LANE
    return found


class LastingSession(Session, Protocol):
    """Runs statements on a connection of one thread, which lasts."""

    @property
    def is_connected(self) -> bool: ...

    @property
    def is_in_doubt(self) -> bool:
        """Tell whether the last transaction, which failed, may have been committed all the same."""

    def transaction(self, *, is_atomic: bool) -> AbstractContextManager[None]:
        """Run what follows in one transaction; where not `is_atomic`, each `run` of PostgreSQL is one by itself."""


def lasting_session(name: str) -> LastingSession:
    return PostgreSQLSession(name) if connection.vendor == "postgresql" else SQLiteSession()


class SQLiteSession:
    """Uses Django's connection of this thread, and nothing of Django's between it and SQLite."""

    is_connected = True
    is_in_doubt = False

    def __init__(self) -> None:
        self._connection: Any = None
        self._is_atomic = False

    @contextmanager
    def transaction(self, *, is_atomic: bool) -> Iterator[None]:
        if self._connection is None:
            connection.ensure_connection()
            self._connection = connection.connection
        self._is_atomic = is_atomic
        if not is_atomic:
            yield
            return
        # At once, so that no transaction fails halfway because another has the lock.
        wait_for_lock(lambda: self._connection.execute("BEGIN IMMEDIATE"), LANE.lock)
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def run(self, *steps: Step, is_last: bool = False) -> list[Found]:
        return [self._run(statement, rows) if rows else [] for statement, rows in steps]

    def _run(self, statement: Statement, rows: Sequence[Row]) -> Found:
        def run() -> Found:
            found: Found = self._connection.execute(in_sqlite(statement), [dumped(rows)]).fetchall()
            return found

        # A transaction has its lock.
        return run() if self._is_atomic else wait_for_lock(run, LANE.lock)


@cache
def in_sqlite(statement: Statement) -> str:
    return statement.sql("sqlite", clock()) % "?"


class PostgreSQLSession:
    """Runs prepared statements. All those of one `run` cost one round trip.

    They are sent as one text of EXECUTE commands, because PostgreSQL takes only one statement with parameters at once.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._connection: BoundedConnection | None = None
        self._prepared: set[str] = set()
        self._opening: list[str] = []
        self._has_ended = False  # COMMIT was sent, whether it was answered or not
        self._is_committed = False

    @property
    def is_in_doubt(self) -> bool:
        return self._is_committed or (self._has_ended and not self.is_connected)

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and not self._connection.closed

    def _look(self) -> None:
        """Find out without waiting whether the server has ended the connection since it was last used."""
        if self._connection is not None and not self._connection.closed:
            with suppress(psycopg.Error):
                self._connection.look()

    @contextmanager
    def transaction(self, *, is_atomic: bool) -> Iterator[None]:
        self._look()
        if not self.is_connected:
            # PgBouncer in transaction mode keeps nothing that was prepared.
            self._connection = connect(
                PLANS, application_name=f"llmapi-{self._name}", cursor_factory=psycopg.ClientCursor, context=None
            )
            self._prepared.clear()
        assert self._connection is not None
        self._opening = ["BEGIN"] if is_atomic else []
        self._has_ended = self._is_committed = False
        try:
            yield
            if is_atomic and not self._opening and not self._has_ended:
                self._has_ended = True
                self._connection.execute("COMMIT")
        except BaseException:
            with suppress(psycopg.Error):  # Where the connection is broken, the server rolls back by itself.
                self._connection.execute("ROLLBACK")
            raise

    def run(self, *steps: Step, is_last: bool = False) -> list[Found]:
        assert self._connection is not None
        wanted = [(statement, rows) for statement, rows in steps if rows]
        if not wanted:
            return [[] for _ in steps]
        commands = [*self._opening, *(self._command(statement) for statement, _ in wanted)]
        is_begun, self._opening = bool(self._opening), []
        if is_last:
            commands.append("COMMIT")
            self._has_ended = True
        with self._connection.cursor() as cursor:
            cursor.execute(";".join(commands), [dumped(rows) for _, rows in wanted])
            if is_begun:
                cursor.nextset()
            found: list[Found] = []
            for _ in wanted:
                result = cursor.pgresult
                found.append(cursor.fetchall() if result and result.nfields else [])
                cursor.nextset()
        self._is_committed = is_last
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
