"""Django's PostgreSQL, with a pool whose connections wait for an answer no longer than the work that has them may.

Clients that want more connections than there are get them in turns. Migrations wait for a table no longer than turns
may wait behind them.
"""

from typing import Any, Self

import psycopg
from django.db.backends.postgresql import base
from django.db.backends.postgresql.schema import DatabaseSchemaEditor
from psycopg_pool import PoolClosed, PoolTimeout

from analytics.fairness import Busy, Owner, Share, working_for
from chat.database import patience
from chat.postgres import BoundedConnection

# Whoever needs a table waits behind a migration that waits for it. So a migration gives up before PostgreSQL looks
# for deadlocks (deadlock_timeout, one second) and perhaps ends the turn instead. `migrate` then tries again.
LOCK = "SET LOCAL lock_timeout = '500ms'"


class SchemaEditor(DatabaseSchemaEditor):
    def __enter__(self) -> Self:
        super().__enter__()
        # What builds an index without a lock has no transaction, and waits for others as long as it takes.
        if self.atomic_migration and not self.collect_sql:
            self.execute(LOCK)
        return self


class DatabaseWrapper(base.DatabaseWrapper):
    SchemaEditorClass = SchemaEditor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if options := self.settings_dict["OPTIONS"].get("pool"):
            options["connection_class"] = BoundedConnection

    # For whom this connection is one of those that clients share, or nothing.
    _taken_for: Owner = None

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Take a connection of the pool, when it is this client's turn. Raises OperationalError."""
        owner = working_for() if self.pool else None
        if owner is None:
            return self._take_usable(conn_params)
        share = share_of(self.alias, self.settings_dict["OPTIONS"]["pool"])
        try:
            share.take(owner)
        except Busy as exc:
            raise psycopg.OperationalError("no connection of the pool was left in time") from exc
        try:
            connection = self._take_usable(conn_params)
        except BaseException:
            share.give_back(owner)
            raise
        self._taken_for = owner
        return connection

    def _close(self) -> Any:
        try:
            return super()._close()  # type: ignore[misc]
        finally:
            if (owner := self._taken_for) is not None:
                self._taken_for = None
                share_of(self.alias, {}).give_back(owner)

    def _take_usable(self, conn_params: dict[str, Any]) -> Any:
        """Take a connection that the server has not ended, and let it wait as long as this work may.

        The pool's own check would wait for an answer of each connection, and for a second after one that is broken.
        """
        while True:
            try:
                connection = super().get_new_connection(conn_params)
            except (PoolClosed, PoolTimeout) as exc:
                if (failure := BoundedConnection.failure) is None:
                    raise
                raise psycopg.OperationalError(first_line(failure)) from exc
            if not isinstance(connection, BoundedConnection):
                return connection
            is_usable = False
            try:
                connection.look()
                is_usable = True
                connection.become(patience())
            except BaseException as exc:
                # The pool throws a broken one away. There are only so many.
                self.pool.putconn(connection)
                if is_usable or not isinstance(exc, psycopg.Error):
                    raise
            else:
                return connection


_shares: dict[str, Share] = {}


def share_of(alias: str, pool: dict[str, Any]) -> Share:
    """Return the connections that clients share: all of a pool but the one of the background jobs.

    One client alone may have all but one of them.
    """
    if alias not in _shares:
        size = max(pool["max_size"] - 1, 1)
        _shares[alias] = Share(
            lambda: size, factor=max(size - 1, 1), patience=pool["timeout"], most_waiting=pool["max_waiting"]
        )
    return _shares[alias]


def first_line(error: psycopg.Error) -> str:
    """Return PostgreSQL's own words, without its advice. They name the server and the user, and no password."""
    return str(error).strip().partition("\n")[0]
