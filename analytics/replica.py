"""Read figures from a read replica of the database, where REPLICA_DATABASE_URL names one.

What staff's pages, `/metrics` and reports read runs inside `reading()`, and a router sends it to the replica. All else
reads the primary, because a replica lags: a turn, a client's own usage, and whoever reads what was just written.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime

from django.db import InterfaceError, OperationalError, connections
from django.utils import timezone

logger = logging.getLogger(__name__)

# The replica's name in DATABASES.
ALIAS = "replica"
# Commits of the primary have its clock's time. A primary without commits stays at the last one, but a running server
# commits every 15 seconds.
REPLAYED = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_xact_replay_timestamp() END"
_is_reading: ContextVar[bool] = ContextVar("is_reading_replica", default=False)


class ReplicaUnavailable(OperationalError):
    """The replica cannot be reached, or has given up a statement."""

    def __init__(self) -> None:
        super().__init__(
            "The replica cannot be read; check REPLICA_DATABASE_URL and its server, or unset it to read the primary."
        )


@contextmanager
def reading() -> Iterator[None]:
    """Send what is read inside to the replica, if there is one. Raises ReplicaUnavailable where it cannot be read.

    The primary does not stand in: it would get the whole load just when something is wrong.
    """
    if ALIAS not in connections:
        yield
        return
    token = _is_reading.set(True)
    try:
        yield
    except (InterfaceError, OperationalError) as exc:
        logger.warning("the read replica cannot be read: %s", str(exc).partition("\n")[0])
        raise ReplicaUnavailable from exc
    finally:
        _is_reading.reset(token)


def is_reading() -> bool:
    return _is_reading.get()


def replayed_to() -> datetime:
    """Return the time of the newest commit that the replica has; now, where it is no standby of PostgreSQL."""
    connection = connections[ALIAS]
    replayed: datetime | None = None
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(REPLAYED)
            (replayed,) = cursor.fetchone()
    return replayed or timezone.now()
