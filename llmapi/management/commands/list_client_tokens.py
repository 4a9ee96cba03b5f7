import io
import json
from typing import Any

from django.core.management.base import CommandParser
from django.db.models import OuterRef, Subquery

from analytics.management.base import OperatorCommand
from analytics.models import UsageEvent
from analytics.reports.terminal import console_for, table_of
from chat.models import ClientToken


class Command(OperatorCommand):
    group = "Clients"
    examples = ("", "--json")
    help = "List the client tokens, their limits, and when each was last used. The tokens themselves are not kept."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="for machines")

    def handle(self, *args: Any, **options: Any) -> None:
        rows = [describe(client) for client in with_last_turn()]
        if options["json"]:
            self.stdout.write(json.dumps(rows, indent=2))
        elif rows:
            self.stdout.write(written(rows, is_terminal=self.stdout.isatty()))
        else:
            self.stdout.write("There is none yet; make one with manage.py create_client_token NAME.")


def with_last_turn() -> list[Any]:
    """Read all client tokens, with the time of the newest turn of each that the ledger still has: by an index."""
    turns = UsageEvent.objects.filter(client_token_id=OuterRef("pk")).order_by("-created_at")
    return list(ClientToken.objects.annotate(last_turn_at=Subquery(turns.values("created_at")[:1])).order_by("pk"))


def describe(client: Any) -> dict[str, Any]:
    limits = {"requests_per_min": client.requests_per_minute or None}
    limits |= {name: getattr(client, name) for name in ClientToken.SPENDING}
    return {
        "id": client.pk,
        "name": client.name,
        "prefix": client.prefix or None,
        "status": "active" if client.is_usable else "expired" if client.is_active else "revoked",
        "is_publishable": client.is_publishable,
        "can_read_metrics": client.can_read_metrics,
        "created_at": client.created_at.isoformat(timespec="seconds"),
        "last_turn_at": client.last_turn_at and client.last_turn_at.isoformat(timespec="seconds"),
        "expires_at": client.expires_at and client.expires_at.isoformat(timespec="seconds"),
        # Dollars are exact, as text.
        "limits": {name: most if isinstance(most, int) else str(most) for name, most in limits.items() if most},
    }


COLUMNS = ("name", "begins with", "status", "made on", "last turn", "expires on", "limits")


def written(rows: list[dict[str, Any]], *, is_terminal: bool) -> str:
    out = io.StringIO()
    header = [("id", True), *((name, False) for name in COLUMNS)]
    table = table_of("", header, map(cells, rows))
    console_for(out, is_terminal=is_terminal).print(table)
    return out.getvalue()


def cells(row: dict[str, Any]) -> list[str]:
    days = [(row[name] or "–")[:10] for name in ("created_at", "last_turn_at", "expires_at")]
    limits = ", ".join(f"{name} {most}" for name, most in row["limits"].items())
    return [str(row["id"]), row["name"], row["prefix"] or "–", row["status"], *days, limits or "–"]
