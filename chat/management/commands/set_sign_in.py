from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from analytics.management.base import OperatorCommand
from chat.identity.presets import PRESETS, settings_of
from chat.models import ClientToken, IdentityProvider

COLUMNS = ("issuer", "audience", "algorithm", "jwks_url", "subject_claim", "plan_claim", "party_claim")


class Command(OperatorCommand):
    group = "Clients"
    examples = (
        "page --preset supabase --of https://abc.supabase.co",
        "extension --preset google --of 123-abc.apps.googleusercontent.com",
        "app --issuer https://id.example.com --audience shop --jwks-url https://id.example.com/jwks.json",
    )
    help = (
        "Let the people of a publishable key sign in with a provider of your own. A shared secret is set in the admin."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="the key's name")
        parser.add_argument("--preset", choices=[*PRESETS], help="a provider whose settings are known")
        parser.add_argument(
            "--of", help="whose: " + "; ".join(f"{name}, {asked}" for name, (asked, _) in PRESETS.items())
        )
        for column in COLUMNS:
            field = IdentityProvider._meta.get_field(column)
            parser.add_argument(f"--{column.replace('_', '-')}", help=str(getattr(field, "help_text", "")) or column)

    def handle(self, *args: Any, **options: Any) -> None:
        clients = list(ClientToken.objects.filter(name=options["name"], is_publishable=True, is_active=True)[:2])
        if len(clients) != 1:
            found = "no active publishable key is" if not clients else "more than one publishable key is"
            raise CommandError(f"NAME: {found} called so; manage.py list_client_tokens shows all.")
        if bool(options["preset"]) != bool(options["of"]):
            raise CommandError("--preset and --of go together.")
        try:
            known = settings_of(options["preset"], options["of"]) if options["preset"] else {}
        except ValueError as exc:
            raise CommandError(f"--of: {exc}") from exc
        named = {column: options[column] for column in COLUMNS if options[column] is not None}
        provider = IdentityProvider.objects.filter(client_token=clients[0]).first()
        provider = provider or IdentityProvider(client_token=clients[0])
        for column, value in {**known, **named}.items():
            setattr(provider, column, value)
        try:
            provider.full_clean()
        except ValidationError as exc:
            column, problems = next(iter(exc.message_dict.items()))
            raise CommandError(f"--{column.replace('_', '-')}: {problems[0]}") from exc
        provider.save()
        self.stdout.write(f"People of {clients[0].name} sign in with {provider.issuer}.")
