from typing import Any

from analytics.management.base import OperatorCommand
from chat.turns.recovery import settle_all_abandoned


class Command(OperatorCommand):
    group = "Server"
    examples = ("",)
    help = "Close turns whose process died, and free the idempotency keys that they held."

    def handle(self, *args: Any, **options: Any) -> None:
        closed, freed = settle_all_abandoned()
        if options["verbosity"]:
            self.stdout.write(f"{closed} turns abandoned, {freed} idempotency keys freed.")
