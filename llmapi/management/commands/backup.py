from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import connection
from django.utils import timezone

from analytics.management.base import OperatorCommand
from llmapi.backups import files, postgresql, sqlite
from llmapi.backups.contents import BackupError


class Command(OperatorCommand):
    group = "Backup"
    examples = ("llmapi-2026-11-27", "/var/backups/llmapi-2026-11-27")
    help = (
        "Write the whole database into a file, as of one instant, while the server goes on. PATH.json beside it says "
        "what it holds. Both are for their owner alone: they hold prompts and replies. SECRET_KEY is not in it, "
        "so keep .env as well."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("path", metavar="PATH", type=Path, help="a new file; none is overwritten")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["path"]
        engine = postgresql if connection.vendor == "postgresql" else sqlite
        # What is committed by now is in it.
        began = timezone.now().isoformat(timespec="seconds")
        try:
            with files.partial_file(path) as partial:
                note = {"created_at": began, **engine.write(partial)}
                files.publish(partial, path, note)
        except BackupError as exc:
            raise CommandError(str(exc)) from exc
        except OSError as exc:
            hint = "name a new file, in a writable folder with enough room"
            raise CommandError(f"{path} cannot be written ({exc.strerror or exc}); {hint}.") from exc
        rows = note["rows"]
        self.stdout.write(
            f"{path}: {path.stat().st_size:,} bytes with {rows['conversations']:,} conversations, {rows['messages']:,} "
            f"messages and {rows['usage_events']:,} turns as of {note['created_at']}."
        )
