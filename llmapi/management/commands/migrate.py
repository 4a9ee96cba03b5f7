from typing import Any

from django.core.management.commands import migrate

from analytics.management.base import OperatorCommand
from llmapi.exclusive import exclusive


class Command(OperatorCommand, migrate.Command):
    group = "Server"
    examples = ("", "--plan", "--check")
    help = "Bring the tables of the database to this version. Two that run at once wait for each other."

    def handle(self, *args: Any, **options: Any) -> None:
        with exclusive():
            super().handle(*args, **options)
