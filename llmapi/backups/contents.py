"""What a backup holds: noted beside it while it is made, and compared once it is restored."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db import connection
from django.db.migrations.loader import MigrationLoader

from llmapi.version import VERSION

# Runs a query that answers one row.
Query = Callable[[str], tuple[Any, ...]]
Note = dict[str, Any]

# Sums of the ledger that a lost or doubled row would change.
SUMS = ("prompt_tokens", "completion_tokens", "total_tokens", "cost_nanos")
# Tables that have rows before anybody has used the service: of migrations, and of a server that has only started.
EVER_FILLED = {
    "django_content_type",
    "auth_permission",
    "django_migrations",
    "chores",
    "rollup_days",
    "upstream_models",
    "django_session",
}
READ_BYTES = 1024 * 1024


class BackupError(Exception):
    """One sentence that says what is wrong, and what to do."""


def note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def tables() -> list[str]:
    """List the tables of our database that are there, by their names."""
    return sorted({*connection.introspection.django_table_names(only_existing=True), "django_migrations"})


def describe(query: Query, names: list[str], migrations: list[str]) -> Note:
    """Count the rows of the tables, and add up the ledger."""
    sums = ", ".join(f"coalesce(sum({column}), 0)" for column in SUMS)
    return {
        "llmapi": VERSION,
        "database": connection.vendor,
        "migrations": migrations,
        "rows": {name: int(query(f"SELECT count(*) FROM {name}")[0]) for name in names},  # noqa: S608
        "ledger": dict(zip(SUMS, map(int, query(f"SELECT {sums} FROM usage_events")), strict=True)),  # noqa: S608
    }


def differences(noted: Note, found: Note) -> list[str]:
    """Say what differs between two notes, one sentence each; nothing where they hold the same."""
    return [
        f"{name} is {found[part].get(name, 'missing')}, and was {value}"
        for part in ("rows", "ledger")
        for name, value in noted[part].items()
        if found[part].get(name) != value
    ]


def applied_migrations() -> list[str]:
    return [f"{app}.{name}" for app, name in MigrationLoader(connection).applied_migrations]


def unknown_migrations(noted: Note) -> list[str]:
    """Return the migrations of a backup that this version does not have: it is of a later one."""
    known = {f"{app}.{name}" for app, name in MigrationLoader(None).disk_migrations}
    return [name for name in noted["migrations"] if name not in known]


def filled_tables(query: Query) -> list[str]:
    """List the tables that have rows which somebody would miss."""
    return [
        name
        for name in tables()
        if name not in EVER_FILLED and query(f"SELECT EXISTS (SELECT 1 FROM {name})")[0]  # noqa: S608
    ]


def checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def read_note(path: Path) -> Note | None:
    """Read the note beside a backup; None where there is none. Raises BackupError where the two differ."""
    beside = note_path(path)
    try:
        noted: Note = json.loads(beside.read_text(encoding="utf-8"))
        digest = noted["sha256"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise BackupError(f"{beside} cannot be read; put back the file that the backup was made with.") from exc
    if checksum(path) != digest:
        raise BackupError(f"{path} is not as it was when it was made; take another copy, or an older backup.")
    return noted
