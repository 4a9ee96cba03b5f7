from typing import Any

from django.core.management.base import BaseCommand

from chat.turns import lifecycle as turns


class Command(BaseCommand):
    help = "Close turns whose process died, and free the idempotency keys they held."

    def handle(self, *args: Any, **options: Any) -> None:
        closed, freed = turns.settle_all_abandoned()
        if options["verbosity"]:
            self.stdout.write(f"{closed} turns abandoned, {freed} idempotency keys freed.")
