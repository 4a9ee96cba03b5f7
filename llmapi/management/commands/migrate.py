from typing import Any

from django.core.management.commands import migrate

from llmapi.exclusive import exclusive


class Command(migrate.Command):
    help = f"{migrate.Command.help} Two that run at once wait for each other."

    def handle(self, *args: Any, **options: Any) -> None:
        with exclusive():
            super().handle(*args, **options)
