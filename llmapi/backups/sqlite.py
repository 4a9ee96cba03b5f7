"""Backups of SQLite by its online backup: one file, as of one instant, while turns go on."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from django.db import connection

from llmapi.backups import contents
from llmapi.backups.contents import BackupError, Note

MAGIC = b"SQLite format 3\0"


def write(path: Path) -> Note:
    """Copy the database into an empty file, check the copy, and describe it. Raises BackupError, OSError and Error."""
    names, migrations = contents.tables(), contents.applied_migrations()
    connection.ensure_connection()
    with telling(), closing(sqlite3.connect(path)) as copy:
        # All pages in one step, from one read transaction: with steps, each write of a turn would begin it anew.
        connection.connection.backup(copy)
        # One file: a log beside it would be forgotten.
        copy.execute("PRAGMA journal_mode=DELETE")
        check(copy)
        return contents.describe(lambda sql: copy.execute(sql).fetchone(), names, migrations)


def check(copy: sqlite3.Connection) -> None:
    (words,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
    if words != "ok":
        raise BackupError(
            f"The database is damaged ({words}); restore an older backup, or try .recover of the program sqlite3."
        )


def restore(path: Path) -> None:
    """Put the backup in the place of the database, whole or not at all. Raises BackupError while it is in use."""
    target = str(connection.settings_dict["NAME"])
    connection.close()
    with (
        telling(),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(target, timeout=1, isolation_level=None)) as database,
    ):
        check(source)
        # Everybody who has it open in WAL mode holds a lock on it, also while nothing is read.
        database.execute("PRAGMA locking_mode=EXCLUSIVE")
        try:
            database.execute("BEGIN EXCLUSIVE")
            database.execute("COMMIT")
        except sqlite3.OperationalError as exc:
            raise BackupError("The database is in use; stop the server, then restore again.") from exc
        source.backup(database)


@contextmanager
def telling() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise BackupError(f"SQLite says: {str(exc)[:200]}; check the file, its folder and the disk.") from exc
