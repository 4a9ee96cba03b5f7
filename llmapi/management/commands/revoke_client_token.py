import sys
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth import get_user_model
from django.core.management.base import CommandError, CommandParser
from django.db import transaction

from analytics.management.base import OperatorCommand
from analytics.reports.csv import printable
from chat.models import ClientToken
from llmapi.management.arguments import find_client

# Whom the admin's history names: a user that nobody can log in as.
ACTOR = "manage.py"


class Command(OperatorCommand):
    group = "Clients"
    examples = ("web", "3 --yes")
    help = (
        "Revoke a client token, at once in all processes. Its next request is refused with 401; replies that run now "
        "are finished. The admin's history records it, and the admin can make the token active again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("client", metavar="NAME", help="its name or id, as list_client_tokens shows them")
        parser.add_argument("--yes", "--noinput", "--no-input", action="store_true", help="do not ask")

    def handle(self, *args: Any, **options: Any) -> None:
        pk, _ = find_client(options["client"], "NAME")
        client = ClientToken.objects.filter(pk=pk).first()
        if client is None:
            raise CommandError(f"NAME: no token has the id {pk}; manage.py list_client_tokens shows all.")
        named = f"{printable(client.name)} (id {pk}, {client.prefix or 'the setting CLIENT_API_TOKEN'})"
        if not client.is_active:
            self.stdout.write(f"{named} is revoked already.")
            return
        if not options["yes"]:
            self.confirm(named)
        revoke(client)
        self.stdout.write(f"{named} is revoked: its next request is refused.")

    def confirm(self, named: str) -> None:
        if not sys.stdin.isatty():
            raise CommandError("Nobody can be asked here; add --yes to revoke the token.")
        if input(f"Revoke {named}? Whoever uses it is refused from now on. [y/N] ").strip().lower() not in {"y", "yes"}:
            raise CommandError("Nothing is revoked.")


@transaction.atomic
def revoke(client: ClientToken) -> None:
    """Revoke the token, and record it where staff see who changed a token."""
    ClientToken.objects.filter(pk=client.pk).update(is_active=False)
    actor, is_new = get_user_model().objects.get_or_create(username=ACTOR, defaults={"is_active": False})
    if is_new:
        actor.set_unusable_password()
        actor.save()
    LogEntry.objects.log_actions(
        actor.pk,
        ClientToken.objects.filter(pk=client.pk),
        CHANGE,
        change_message="Revoked the token.",
        single_object=True,
    )
