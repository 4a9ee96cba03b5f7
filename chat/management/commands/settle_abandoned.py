from typing import Any

from django.core.management.base import BaseCommand

from chat.turns.recovery import settle_all_abandoned


class Command(BaseCommand):
    help = "Close turns whose process died, and free the idempotency keys that they held."

    def handle(self, *args: Any, **options: Any) -> None:
        closed, freed = settle_all_abandoned()
        if options["verbosity"]:
            self.stdout.write(f"{closed} turns abandoned, {freed} idempotency keys freed.")
