"""One process at a time changes the tables of a database: others that start meanwhile wait for it."""

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

from llmapi.files import private_opener

# Of our advisory lock, among those of everybody who uses this database.
LOCK = 0x6C6C6D61
WAITING = "Another process is changing the tables of the database; waiting for it ..."

_is_held = False


@contextmanager
def exclusive() -> Iterator[None]:
    """Hold the lock, which also ends with this process. Holding it twice is no more than once."""
    global _is_held
    if _is_held:
        yield
        return
    with lock_of_postgresql() if connection.vendor == "postgresql" else lock_of_sqlite():
        _is_held = True
        try:
            yield
        finally:
            _is_held = False


@contextmanager
def lock_of_postgresql() -> Iterator[None]:
    """Hold an advisory lock in a transaction of its own: PgBouncer keeps no session for longer."""
    holder = connection.copy()
    holder.set_autocommit(False)
    try:
        with holder.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
            if not cursor.fetchone()[0]:
                print(WAITING, file=sys.stderr, flush=True)
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        yield
    finally:
        holder.rollback()
        # The pool gives it to others, who expect it as the pool made it.
        holder.set_autocommit(True)
        holder.close()


@contextmanager
def lock_of_sqlite() -> Iterator[None]:
    """Lock a file beside the database: SQLite has locks of its own on the database's."""
    with open(f"{connection.settings_dict['NAME']}-lock", "w", opener=private_opener) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(WAITING, file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
