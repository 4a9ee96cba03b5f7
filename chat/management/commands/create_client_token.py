from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from chat.models import ClientToken


class Command(BaseCommand):
    help = "Create a client token and show it, this once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="who uses it: an app, a site, an environment")
        parser.add_argument("--rate-limit", type=int, help="requests per minute; 0: no limit (RATE_LIMIT_PER_MIN)")
        for name in ClientToken.SPENDING:
            field = ClientToken._meta.get_field(name)
            parser.add_argument(f"--{name.replace('_', '-')}", metavar="MOST", help=f"{field.verbose_name} (no limit)")  # type: ignore[union-attr]
        parser.add_argument("--expires-in-days", type=int, help="days until it stops working (never)")
        parser.add_argument("--can-read-metrics", action="store_true", help="let it read /metrics")

    def handle(self, *args: Any, **options: Any) -> None:
        days, limit = options["expires_in_days"], options["rate_limit"]
        if (days is not None and days < 1) or (limit is not None and limit < 0):
            raise CommandError("--expires-in-days takes 1 or more, --rate-limit 0 or more.")
        client = ClientToken(
            name=options["name"],
            rate_limit_per_min=limit,
            expires_at=timezone.now() + timedelta(days=days) if days else None,
            can_read_metrics=options["can_read_metrics"],
        )
        for name in ClientToken.SPENDING:
            setattr(client, name, options[name])
        token = client.renew()
        try:
            client.clean_fields()
        except ValidationError as exc:
            name, problems = next(iter(exc.message_dict.items()))
            raise CommandError(f"--{name.replace('_', '-')}: {problems[0]}") from exc
        client.save()
        self.stdout.write(token)
        self.stderr.write("This is the only time the token is shown: llmapi keeps its digest alone.")
