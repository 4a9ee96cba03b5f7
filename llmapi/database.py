"""A PostgreSQL that is away is an error at once, not a queue.

The settings name this, and gunicorn reads them before gevent has patched the threads: nothing of Django's
database or of the pool may be imported until a pool calls.
"""

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool


def give_up(pool: "ConnectionPool") -> None:
    """The pool could not connect: fail those who wait for it, unless a connection it has may still serve them.

    A pool that is closed fails its waiters, and Django makes a new one for the next request, which tries again:
    so the service resumes with the database. Not in this thread, which closing would wait for.
    """
    if not pool.get_stats().get("pool_size"):
        threading.Thread(target=replace, args=(pool,), name="pool-closer", daemon=True).start()


def replace(pool: "ConnectionPool") -> None:
    """Django's own close_pool() closes first and forgets afterwards, while requests still come to the pool."""
    from django.db import connection

    pools = getattr(connection, "_connection_pools", {})
    if pools.get(connection.alias) is pool:
        pools.pop(connection.alias, None)
        pool.close()
