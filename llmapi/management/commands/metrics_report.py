import csv
import io
import json
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from analytics import replica
from analytics.management.base import OperatorCommand
from analytics.metrics.registry import report
from analytics.query import DAY, DEFAULT_DAYS, MAX_DAYS, Filters, InvalidQuery, Query, today
from analytics.reports.csv import report_rows
from analytics.reports.mail import html
from analytics.reports.summary import summarize
from analytics.reports.terminal import console_for, print_summary
from analytics.rollups.coverage import bring_up_to_date
from llmapi.management.arguments import find_client, open_output

WEEK = 7


class Command(OperatorCommand):
    group = "Figures"
    examples = (
        "--days 7",
        "--from 2026-11-01 --to 2026-11-30 --client web",
        "--format csv --output november.csv",
        "--format html --output week.html",
    )
    help = "Report users, success, latency, tokens and cost, compared with the period before."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--format", choices=["table", "json", "csv", "html"], default="table")
        parser.add_argument(
            "--days", type=int, help=f"number of days, the last one being --to (default {DEFAULT_DAYS}; html: {WEEK})"
        )
        parser.add_argument("--from", metavar="DAY", help="the first UTC day, YYYY-MM-DD")
        parser.add_argument("--to", metavar="DAY", help="the last UTC day (default today; html: yesterday)")
        parser.add_argument("--client", metavar="NAME", help="only this client token, by its name or id")
        parser.add_argument("--model", help="only this model")
        parser.add_argument("--app-version", metavar="VERSION", help="only this version of the client's app")
        parser.add_argument("--output", metavar="FILE", type=Path, help="write to this file, and overwrite it")

    @replica.reading()
    def handle(self, *args: Any, **options: Any) -> None:
        format_name, path = options["format"], options["output"]
        client = None if options["client"] is None else find_client(options["client"])
        query = parse_options(options | {"client": client and client[0]})
        is_terminal = path is None and self.stdout.isatty()
        text = render(format_name, query, describe_filters(query.filters, client), is_terminal=is_terminal)
        if path is None:
            self.stdout.write(text, ending="")
            return
        with open_output(path) as file:
            file.write(text)


def parse_options(options: dict[str, Any]) -> Query:
    """Read days and filters by the rules of /metrics."""
    days, is_mailed = options["days"], options["format"] == "html"
    if days is not None and options["from"]:
        raise CommandError("Give --days or --from, not both.")
    if days is not None and not 1 <= days <= MAX_DAYS:
        raise CommandError(f"--days must be from 1 to {MAX_DAYS}.")
    names = ("from", "to", "client", "model", "app_version")
    params = {name: str(options[name]) for name in names if options[name] is not None}
    if is_mailed:
        # Only whole days can be compared with the period before.
        params.setdefault("to", (today() - DAY).isoformat())
    try:
        return Query.from_params(params, default_days=days or (WEEK if is_mailed else DEFAULT_DAYS))
    except InvalidQuery as exc:
        raise CommandError(f"--{exc.param.replace('_', '-')}: {exc}") from exc


def describe_filters(filters: Filters, client: tuple[int, str] | None) -> str:
    parts = [f"client {client[1]} ({client[0]})" if client[1] else f"client {client[0]}"] if client else []
    parts += [f"model {filters.model}"] if filters.model else []
    parts += [f"version {filters.app_version}"] if filters.app_version else []
    return ", ".join(parts)


def render(format_name: str, query: Query, description: str, *, is_terminal: bool) -> str:
    coverage = bring_up_to_date()
    if format_name == "json":
        return json.dumps(report(query, coverage.computed_at), indent=2) + "\n"
    if format_name == "html":
        return html(summarize(query, coverage), description)
    out = io.StringIO()
    if format_name == "csv":
        csv.writer(out).writerows(report_rows(report(query, coverage.computed_at)))
    else:
        print_summary(console_for(out, is_terminal=is_terminal), summarize(query, coverage), description)
    return out.getvalue()
