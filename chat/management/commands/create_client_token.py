from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from analytics.management.base import OperatorCommand
from chat.models import ClientToken

MAX_DAYS = 36_500
# Options whose names differ from their columns'.
OPTIONS = {"name": "NAME", "rate_limit_per_min": "--rate-limit", "origins": "--origin"}


class Command(OperatorCommand):
    group = "Clients"
    examples = (
        "web",
        "web --rate-limit 60 --day-tokens 500000 --user-month-usd 2.50",
        "staging --expires-in-days 30",
        "grafana --can-read-metrics",
        "page --publishable --origin https://app.example.com --anonymous-day-usd 5",
    )
    help = "Create a client token and show it, this once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="who uses it: an app, a site, an environment")
        parser.add_argument("--rate-limit", type=int, help="requests per minute; 0: no limit (RATE_LIMIT_PER_MIN)")
        parser.add_argument(
            "--publishable", action="store_true", help="a key that may be shipped: it only starts sessions of people"
        )
        parser.add_argument(
            "--origin",
            action="append",
            metavar="URL",
            help="from where browsers may use it; may be given more than once (none: servers and apps only)",
        )
        for name in (*ClientToken.SPENDING, *ClientToken.POOL):
            field = ClientToken._meta.get_field(name)
            parser.add_argument(f"--{name.replace('_', '-')}", metavar="MOST", help=f"{field.verbose_name} (no limit)")  # type: ignore[union-attr]
        parser.add_argument("--expires-in-days", type=int, help="days until it stops working (never)")
        parser.add_argument("--can-read-metrics", action="store_true", help="let it read /metrics")

    def handle(self, *args: Any, **options: Any) -> None:
        days, limit = options["expires_in_days"], options["rate_limit"]
        if (days is not None and not 1 <= days <= MAX_DAYS) or (limit is not None and limit < 0):
            raise CommandError(f"--expires-in-days takes 1 to {MAX_DAYS}, --rate-limit 0 or more.")
        name = options["name"].strip()
        if not name or not name.isprintable():
            raise CommandError("NAME takes readable characters: letters, digits, signs and spaces.")
        is_publishable, origins = options["publishable"], options["origin"] or []
        if not is_publishable and (origins or any(options[column] is not None for column in ClientToken.POOL)):
            raise CommandError("--origin and --anonymous-… are for a key with --publishable.")
        if is_publishable and options["can_read_metrics"]:
            raise CommandError("--can-read-metrics: A publishable key reads nothing; make another token for it.")
        client = ClientToken(
            name=name,
            is_publishable=is_publishable,
            is_restricted=is_publishable,
            origins="\n".join(origins),
            rate_limit_per_min=limit,
            expires_at=timezone.now() + timedelta(days=days) if days else None,
            can_read_metrics=options["can_read_metrics"],
            **{column: options[column] for column in (*ClientToken.SPENDING, *ClientToken.POOL)},
        )
        token = client.renew()
        try:
            client.clean_fields()
        except ValidationError as exc:
            column, problems = next(iter(exc.message_dict.items()))
            option = OPTIONS.get(column, f"--{column.replace('_', '-')}")
            raise CommandError(f"{option}: {problems[0]}") from exc
        client.save()
        self.stdout.write(token)
        self.stderr.write("The token is shown only now: llmapi keeps nothing but its digest.")
