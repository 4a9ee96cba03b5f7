from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import connection

from analytics.management.base import OperatorCommand
from llmapi import health
from llmapi.backups import contents, postgresql, sqlite
from llmapi.backups.contents import BackupError, Note

ENGINES = {"postgresql": postgresql, "sqlite": sqlite}


class Command(OperatorCommand):
    group = "Backup"
    examples = ("llmapi-2026-11-27", "llmapi-2026-11-27 --replace")
    help = (
        "Put a backup into the database of DATABASE_URL, whole or not at all, and check what is there then. "
        "Stop the server first. A database that is in use, or has rows, is left as it is."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("path", metavar="PATH", type=Path, help="what manage.py backup has written")
        parser.add_argument("--replace", action="store_true", help="delete what the database holds now")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["path"]
        try:
            noted = read(path)
            if not options["replace"]:
                refuse_filled()
            ENGINES[connection.vendor].restore(path)
            found = contents.describe(query, contents.tables(), contents.applied_migrations())
            self.report(noted, found)
        except BackupError as exc:
            raise CommandError(str(exc)) from exc
        except OSError as exc:
            raise CommandError(f"{path} cannot be read ({exc.strerror or exc}); name a backup.") from exc

    def report(self, noted: Note | None, found: Note) -> None:
        """Compare what was restored with what was noted, and say what there is to do."""
        if noted is None:
            self.stderr.write("There is no note beside the backup, so nothing could be compared.")
        elif wrong := contents.differences(noted, found):
            raise BackupError(f"What was restored differs from the backup: {'; '.join(wrong[:5])}. Do not use it.")
        rows = found["rows"]
        as_of = f" as of {noted['created_at']}" if noted else ""
        self.stdout.write(
            f"{rows['conversations']:,} conversations, {rows['messages']:,} messages and {rows['usage_events']:,} turns"
            f"{as_of} are restored."
        )
        if missing := health.missing_migrations():
            self.stdout.write(
                f"The backup is of an earlier version ({health.describe(missing)}); run manage.py migrate."
            )


def read(path: Path) -> Note | None:
    """Read the note of a backup. Raises BackupError where it does not fit this database or this version."""
    with open(path, "rb") as file:
        magic = file.read(16)
    vendor = next((name for name, engine in ENGINES.items() if magic.startswith(engine.MAGIC)), None)
    if vendor is None:
        raise BackupError(f"{path} is no backup; name a file that manage.py backup has written.")
    if vendor != connection.vendor:
        raise BackupError(f"{path} is a backup of {vendor}; set DATABASE_URL to a database of that kind.")
    noted = contents.read_note(path)
    if noted and (unknown := contents.unknown_migrations(noted)):
        raise BackupError(f"The backup is of a later version ({health.describe(unknown)}); install that version first.")
    return noted


def refuse_filled() -> None:
    if filled := contents.filled_tables(query):
        hint = "name another database in DATABASE_URL, or add --replace to delete what it holds"
        raise BackupError(f"The database is not empty (rows in {', '.join(filled[:5])}); {hint}.")


def query(sql: str) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        row: tuple[Any, ...] = cursor.fetchone()
        return row
