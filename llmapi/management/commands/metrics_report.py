import csv
import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rest_framework.exceptions import ValidationError

from analytics.api import parameters as queries
from analytics.management.progress import working
from analytics.metrics import registry as metrics
from analytics.query import DAY, Filters, Window, today
from analytics.reports import mail as summary_report
from analytics.reports import terminal as report
from analytics.reports.summary import summarize
from llmapi.management.arguments import find_client, open_output
from llmapi.staff.dashboard import describe_error

WEEK = 7


class Command(BaseCommand):
    help = "Report product metrics: active users, success, latency, tokens and cost, compared with the period before."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--format", choices=["table", "json", "csv", "html"], default="table")
        parser.add_argument(
            "--days",
            type=int,
            help=f"number of days, the last one being --to (default {queries.DEFAULT_DAYS}; html: {WEEK})",
        )
        parser.add_argument("--from", metavar="DAY", help="the first UTC day, YYYY-MM-DD")
        parser.add_argument("--to", metavar="DAY", help="the last UTC day (default today; html: yesterday)")
        parser.add_argument("--client", metavar="NAME", help="only this client token, by its name or id")
        parser.add_argument("--model", help="only this model")
        parser.add_argument("--app-version", metavar="VERSION", help="only this version of the client's app")
        parser.add_argument("--output", metavar="FILE", type=Path, help="write to this file, and overwrite it")

    def handle(self, *args: Any, **options: Any) -> None:
        format_name, path = options["format"], options["output"]
        client = None if options["client"] is None else find_client(options["client"])
        window, filters = parse_options(options | {"client": client and client[0]})
        with working("Reading the metrics"):
            is_terminal = path is None and self.stdout.isatty()
            text = render(format_name, window, filters, describe_filters(filters, client), is_terminal=is_terminal)
        if path is None:
            self.stdout.write(text, ending="")
            return
        with open_output(path) as file:
            file.write(text)


def parse_options(options: dict[str, Any]) -> tuple[Window, Filters]:
    """Read days and filters by the rules of /metrics."""
    days, is_mailed = options["days"], options["format"] == "html"
    if days is not None and options["from"]:
        raise CommandError("Give --days or --from, not both.")
    if days is not None and not 1 <= days <= queries.MOST_DAYS:
        raise CommandError(f"--days must be from 1 to {queries.MOST_DAYS}.")
    query = {name: str(options[name]) for name in queries.FIELDS if options[name] is not None}
    if is_mailed:
        # Only whole days can be compared with the period before.
        query.setdefault("to", (today() - DAY).isoformat())
        days = days or (None if options["from"] else WEEK)
    try:
        window, filters = queries.asked(query)
    except ValidationError as exc:
        raise CommandError(f"--{describe_error(exc).replace('app_version', 'app-version', 1)}") from exc
    return (Window(window.last - timedelta(days=days - 1), window.last) if days else window), filters


def describe_filters(filters: Filters, client: tuple[int, str] | None) -> str:
    parts = [f"client {client[1]} ({client[0]})" if client[1] else f"client {client[0]}"] if client else []
    parts += [f"model {filters.model}"] if filters.model else []
    parts += [f"version {filters.app_version}"] if filters.app_version else []
    return ", ".join(parts)


def render(format_name: str, window: Window, filters: Filters, description: str, *, is_terminal: bool) -> str:
    out = io.StringIO()
    if format_name == "json":
        json.dump(metrics.report(window, filters), out, indent=2)
        out.write("\n")
    elif format_name == "csv":
        csv.writer(out).writerows(report.rows(metrics.report(window, filters)))
    elif format_name == "html":
        out.write(summary_report.html(summarize(window, filters), description))
    else:
        console = report.console_for(out, is_terminal=is_terminal)
        summary_report.print_summary(console, summarize(window, filters), description)
    return out.getvalue()
