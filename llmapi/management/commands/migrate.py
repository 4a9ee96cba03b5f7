import time
from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import OperationalError

from analytics.management.base import OperatorCommand
from llmapi.exclusive import exclusive

# What PostgreSQL says where others use a table: lock_not_available, deadlock_detected.
IN_USE = {"55P03", "40P01"}
MAX_TRIES = 100
PAUSE_SECONDS = 2


class Command(OperatorCommand, migrate.Command):
    group = "Server"
    examples = ("", "--plan", "--check")
    help = (
        "Bring the tables of the database to this version. Two that run at once wait for each other. Where a table is "
        "in use, it lets the others pass and tries again."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        with exclusive():
            for _ in range(MAX_TRIES):
                try:
                    super().handle(*args, **options)
                except OperationalError as exc:
                    if getattr(exc.__cause__, "sqlstate", None) not in IN_USE:
                        raise
                else:
                    return
                self.stderr.write("A table is in use; trying again ...")
                time.sleep(PAUSE_SECONDS)
        raise CommandError(
            "A table stays in use, perhaps by a backup; run manage.py migrate again when that has ended."
        )
