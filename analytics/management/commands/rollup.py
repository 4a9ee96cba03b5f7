from datetime import date
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from analytics.management.arguments import iso_day
from analytics.management.base import OperatorCommand
from analytics.management.progress import track
from analytics.rollups import schedule, store


class Command(OperatorCommand):
    group = "Figures"
    examples = ("", "--rebuild --from 2026-11-01 --to 2026-11-07")
    help = "Build the rollups of UTC days that are over and have none, or stale ones. The server does so every minute."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--from", dest="first", type=iso_day, help="the first day to rebuild, YYYY-MM-DD")
        parser.add_argument(
            "--to", dest="last", type=iso_day, help="the last day to build (default: all that are over)"
        )
        parser.add_argument("--rebuild", action="store_true", help="also build days that are up to date")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["first"] and not options["rebuild"]:
            raise CommandError("--from needs --rebuild; without it, every day that is missing is built.")
        if options["first"] and options["last"] and options["first"] > options["last"]:
            raise CommandError("--from takes a day that is not after --to.")
        days = schedule.days_to_build(timezone.now(), options["first"], options["last"], rebuild=options["rebuild"])
        built = sum(store.build_day(day) for day in track(days, "Days"))
        self.stdout.write(f"{built} days built.")
        sealed_to = store.sealed_to()
        if options["rebuild"] and date.min < sealed_to >= (options["first"] or date.min):
            self.stdout.write(f"Days up to {sealed_to} are not built again: their raw rows are deleted.")
