import csv
import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from analytics import metrics, report


class Command(BaseCommand):
    help = "Print product metrics: active users, success, latency, tokens and cost."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--days", type=int, default=30, help="days, today included (30)")
        parser.add_argument("--format", choices=["table", "json", "csv"], default="table")

    def handle(self, *args: Any, **options: Any) -> None:
        if not 1 <= options["days"] <= 3660:
            raise CommandError("--days takes 1 to 3660.")
        figures = metrics.report(options["days"])
        if options["format"] == "json":
            json.dump(figures, sys.stdout, indent=2)
            sys.stdout.write("\n")
        elif options["format"] == "csv":
            csv.writer(sys.stdout).writerows(report.rows(figures))
        else:
            report.print_tables(figures)
