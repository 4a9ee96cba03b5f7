"""Connections to PostgreSQL that wait for an answer no longer than they may.

A timeout of the server's own ends what is slow. It ends nothing where the server is frozen, or where the network
swallows what it says: that is noticed only here.
"""

import logging
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from django.conf import settings
from django.db import connections
from psycopg.abc import PQGen
from psycopg.connection import _WAIT_INTERVAL
from psycopg.errors import _WaitTimeout

from analytics.fairness import outside
from chat.database import IDLE_IN_TRANSACTION_SECONDS, Patience

logger = logging.getLogger(__name__)
RV = TypeVar("RV")


class BoundedConnection(psycopg.Connection[Any]):
    """Closes itself, and raises OperationalError, where the server has been silent for too long."""

    patience: Patience | None = None
    # Why the last connection could not be made. A pool tells its log alone.
    failure: psycopg.Error | None = None

    @classmethod
    def connect(cls, *args: Any, **kwargs: Any) -> "BoundedConnection":
        try:
            made = super().connect(*args, **kwargs)
        except psycopg.Error as exc:
            BoundedConnection.failure = exc
            raise
        BoundedConnection.failure = None
        return made

    def wait(self, gen: PQGen[RV], interval: float = _WAIT_INTERVAL, timeout: float | None = None) -> RV:
        """Wait for the end of what was sent: a statement with its result, COMMIT and ROLLBACK too."""
        silence = self.patience.silence if self.patience else None
        try:
            with outside():
                return super().wait(gen, interval, silence if timeout is None else timeout)
        except _WaitTimeout:
            if timeout is not None or silence is None:
                raise
            logger.warning("the database has not answered for %g s", silence)
            self.close()
            forget_idle_connections()
            raise psycopg.OperationalError("The database does not answer.") from None

    def become(self, patience: Patience) -> None:
        """Wait from now on as long as this kind of work may. Costs a round trip where it was another kind before."""
        if self.patience == patience:
            return
        self.patience = patience
        if not self.autocommit:
            # Whoever had it before closed it in a transaction, as Django does where a ROLLBACK fails. What follows
            # would begin another one, in which Django finds no connection that it can use.
            self.autocommit = True
        # A session of PgBouncer in transaction mode is that of others as well: only this side's bound is left.
        if not settings.PGBOUNCER:
            self.execute(";".join(f"SET {name} = {value}" for name, value in server_timeouts(patience).items()))

    def look(self) -> None:
        """Find out without waiting whether the server has ended the connection since it was last used."""
        # The first reads why, and the second that nothing follows.
        self.pgconn.consume_input()
        self.pgconn.consume_input()


def server_timeouts(patience: Patience) -> dict[str, int]:
    """Return PostgreSQL's own settings, in milliseconds. 0 stands for no limit."""
    return {
        "statement_timeout": round(1000 * (patience.statement or 0)),
        "lock_timeout": round(1000 * (patience.lock or 0)),
        "idle_in_transaction_session_timeout": 1000 * IDLE_IN_TRANSACTION_SECONDS if patience.statement else 0,
    }


def forget_idle_connections() -> None:
    """Close the idle connections of all pools: what has silenced one has most likely silenced them too."""
    for found in connections.all():
        pool = getattr(found, "_connection_pools", {}).get(found.alias)
        if pool is not None and not pool.closed:
            with suppress(psycopg.Error):
                pool.drain()
