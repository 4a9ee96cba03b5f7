import csv
import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from analytics.management.arguments import iso_day
from analytics.management.base import OperatorCommand
from analytics.reconcile.comparison import reconcile
from analytics.reconcile.export_file import BadExport
from analytics.reconcile.output import causes, comparison_rows, print_comparison


class Command(OperatorCommand):
    group = "Figures"
    examples = ("usage.json --day 2026-11-26", "usage.csv --format json", "- --day 2026-11-26")
    help = "Compare one day of the ledger with OpenAI's usage export. Exits with 1 if they differ, with 2 on bad input."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", help="pages of the usage API grouped by model, or the dashboard's CSV; - for stdin")
        parser.add_argument("--day", type=iso_day, help="the UTC day, YYYY-MM-DD (the only one in FILE)")
        parser.add_argument("--format", choices=["table", "json", "csv"], default="table")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            figures = reconcile(read(options["file"]), options["day"])
        except (OSError, UnicodeDecodeError) as exc:
            raise CommandError(f"{options['file']} cannot be read as text: {exc}", returncode=2) from exc
        except BadExport as exc:
            raise CommandError(str(exc), returncode=2) from exc
        if options["format"] == "json":
            json.dump(figures, sys.stdout, indent=2)
            sys.stdout.write("\n")
        elif options["format"] == "csv":
            csv.writer(sys.stdout).writerows(comparison_rows(figures))
            self.stderr.write("\n".join(causes(figures)))
        else:
            print_comparison(figures)
        if not figures["is_equal"]:
            sys.exit(1)


def read(file: str) -> str:
    content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    # Spreadsheets put a byte order mark before a CSV.
    return content.decode("utf-8-sig")
