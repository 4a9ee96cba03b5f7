from typing import Any

from django.core.management.base import CommandParser

from analytics.management.base import OperatorCommand
from chat.identity import sessions, tokens


class Command(OperatorCommand):
    group = "Clients"
    examples = ("", "--at-once")
    help = (
        "Sign access tokens of sessions with a new key. Tokens of the old one are taken till they are over. Nobody has "
        "to sign in again: refresh tokens are not signed with it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--at-once", action="store_true", help="take no token of an old key any more: clients refresh at once"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        key = sessions.rotate_key(is_at_once=options["at_once"])
        when = "now" if options["at_once"] else f"in {tokens.ACCESS_SECONDS // 60 + 1} minutes"
        self.stdout.write(f"{key.pk} signs from now on; tokens of older keys end {when}.")
