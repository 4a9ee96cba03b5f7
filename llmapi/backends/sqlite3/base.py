"""Django's SQLite, whose waits for a lock let other greenlets run, and whose files nobody else can read."""

import logging
import os
from functools import cache
from typing import Any

from django.db.backends.sqlite3 import base

from chat.database import patience, wait_for_lock
from llmapi.files import create_private, make_private

logger = logging.getLogger(__name__)
# SQLite gives its log and what belongs to it the mode of the database; older ones have the mode of then.
SUFFIXES = ("", "-wal", "-shm", "-journal")
# Seconds that a command waits for the lock: without any end, it could wait for itself.
COMMAND_LOCK_SECONDS = 60


def lock_seconds() -> float:
    return patience().lock or COMMAND_LOCK_SECONDS


class Cursor(base.SQLiteCursorWrapper):
    """Runs again, while the lock is taken, what SQLite has refused: it has done nothing of it."""

    def execute(self, query: str, params: Any = None) -> Any:
        return wait_for_lock(lambda: base.SQLiteCursorWrapper.execute(self, query, params), lock_seconds())


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        if not self.is_in_memory_db():
            keep_private(str(conn_params["database"]))
        # The first connection reads the log that a dead process has left, under a lock.
        return wait_for_lock(lambda: base.DatabaseWrapper.get_new_connection(self, conn_params), lock_seconds())

    def create_cursor(self, name: str | None = None) -> Any:
        return self.connection.cursor(factory=Cursor)


@cache
def keep_private(path: str) -> None:
    """Create the file if there is none, and take it from others if it was readable for all; once in a process."""
    try:
        create_private(path)
        for suffix in SUFFIXES:
            make_private(path + suffix)
    except OSError as exc:
        # Whether the file can be opened is for SQLite to say.
        logger.warning("%s cannot be kept from other users: %s", os.path.basename(path), exc.strerror)
