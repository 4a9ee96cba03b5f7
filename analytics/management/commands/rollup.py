import sys
from argparse import ArgumentTypeError
from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from rich.console import Console
from rich.progress import track

from analytics import rollups


def iso_day(value: str) -> date:
    try:
        return date.fromisoformat(value)
    except ValueError as exc:
        raise ArgumentTypeError("takes a day as YYYY-MM-DD.") from exc


class Command(BaseCommand):
    help = "Build the rollups of closed UTC days that are missing or stale; the server does so every minute."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--from", dest="first", type=iso_day, help="the first day to rebuild, YYYY-MM-DD")
        parser.add_argument("--to", dest="last", type=iso_day, help="the last day to build (the last that is closed)")
        parser.add_argument("--rebuild", action="store_true", help="build again what is not stale, too")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["first"] and not options["rebuild"]:
            raise CommandError("--from says where to begin with --rebuild; without it, all that is missing is built.")
        days = rollups.to_build(timezone.now(), options["first"], options["last"], rebuild=options["rebuild"])
        console = Console(stderr=True)
        shown = track(days, "Days", console=console, disable=not sys.stderr.isatty(), transient=True)
        built = sum(rollups.build_day(day) for day in shown)
        self.stdout.write(f"{built} days built.")
