"""Fail at once while PostgreSQL cannot be reached, instead of letting requests queue for a connection.

The settings import this module, and gunicorn reads them before gevent patches the threads. So nothing of the pool or of
Django's database may be imported here until a pool calls.
"""

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

# Seconds that a request waits for a connection of the pool.
POOL_SECONDS = 2


def fail_waiting(pool: "ConnectionPool[Any]") -> None:
    """Fail the requests that wait for a pool which could not connect, unless it has connections that may serve them.

    A closed pool fails its waiters. Django makes a new pool for the next request, and that one tries to connect again:
    so the service resumes as soon as the database does.
    """
    if not pool.get_stats().get("pool_size"):
        # In another thread: close() waits for this one.
        threading.Thread(target=replace_pool, args=(pool,), name="pool-closer", daemon=True).start()


def replace_pool(pool: "ConnectionPool[Any]") -> None:
    """Forget a pool, then close it. Django's own close_pool() closes it first, while requests still come to it."""
    from django.db import connections

    for connection in connections.all():
        pools = getattr(connection, "_connection_pools", {})
        if pools.get(connection.alias) is pool:
            pools.pop(connection.alias, None)
            pool.close()
