"""Backups of PostgreSQL by its own programs, pg_dump and pg_restore."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from django.conf import settings
from django.db import connection, transaction
from django.db.backends.postgresql.client import DatabaseClient

from llmapi.backups import contents
from llmapi.backups.contents import BackupError, Note

MAGIC = b"PGDMP"
DUMP = ("--format=custom", "--no-owner", "--no-privileges")
RESTORE = ("--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges")
OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


def write(path: Path) -> Note:
    """Dump the database into an empty file, read the dump once, and describe it as of the same instant."""
    refuse_pooler()
    names, migrations = contents.tables(), contents.applied_migrations()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        (snapshot,) = query("SELECT pg_export_snapshot()")
        run("pg_dump", *DUMP, f"--snapshot={snapshot}", f"--file={path}")
        note = contents.describe(query, names, migrations)
    run("pg_restore", f"--file={os.devnull}", str(path), connects=False)
    return note


def restore(path: Path) -> None:
    """Put the dump in the place of the tables, in one transaction. Raises BackupError while others use the database."""
    refuse_pooler()
    (others,) = query(OTHERS)
    if others:
        raise BackupError(f"{others} other sessions use the database; stop the servers, then restore again.")
    has_tables = bool(connection.introspection.table_names())
    connection.close()
    run("pg_restore", *RESTORE, *(("--clean", "--if-exists") if has_tables else ()), str(path))


def query(sql: str) -> tuple[int, ...]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        row: tuple[int, ...] = cursor.fetchone()
        return row


def refuse_pooler() -> None:
    if settings.PGBOUNCER:
        hint = "run it with PGBOUNCER=false and the DATABASE_URL of PostgreSQL itself"
        raise BackupError(f"A session of a backup cannot be pooled; {hint}.")


def run(program: str, *arguments: str, connects: bool = True) -> None:
    """Run a program of PostgreSQL's. The password goes into its environment: others can read its arguments."""
    login, env = DatabaseClient.settings_to_cmd_args_env(connection.settings_dict, [])
    command = [program, *((*login[1:-1], f"--dbname={login[-1]}") if connects else ()), *arguments]
    if not shutil.which(program):
        hint = "install PostgreSQL's client programs (postgresql-client), or run where they are"
        raise BackupError(
            f"{program} is not installed; {hint}: {shlex.join(part for part in command if 'snapshot' not in part)}"
        )
    done = subprocess.run(  # noqa: S603
        command,
        env={**os.environ, **(env or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        words = " ".join(done.stderr.split())[:300]
        raise BackupError(f"{program} failed ({words}); it must not be older than the server that it asks.")
