"""Fill an empty database with a year of made-up history, to time what reads the ledger.

    python -m bench.history --turns 10000000 --database-url postgres://127.0.0.1:5432/llmapi_history
    python -m bench.history --turns 1000000 --database-url sqlite:////tmp/history.sqlite3

It writes the tables of both apps, which neither app may do, so it lives here and is no management command.
The same seed and last day make the same history. The database is migrated first, and must hold no history.
"""

import argparse
import os
import sys
import time
from datetime import UTC, date, datetime, timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.stack import TOKEN


def configure(database_url: str) -> None:
    os.environ.update(
        ENV_FILE=os.devnull,
        DJANGO_SETTINGS_MODULE="llmapi.settings",
        SECRET_KEY="of-a-benchmark-and-of-nothing-else-0123456789",  # noqa: S106
        DATABASE_URL=database_url,
        OPENAI_API_KEY="none",
        CLIENT_API_TOKEN=TOKEN,
    )
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)


def whole(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("takes 1 or more.")
    return number


def arguments() -> argparse.Namespace:
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", required=True, help="of an empty database, PostgreSQL or SQLite")
    parser.add_argument("--turns", type=whole, default=1_000_000)
    parser.add_argument("--days", type=whole, default=365)
    parser.add_argument("--until", type=date.fromisoformat, default=yesterday, help="the last day (yesterday, UTC)")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    configure(args.database_url)
    from bench.loading import NotEmpty, load

    columns = (TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn())
    began = time.monotonic()
    console = Console(stderr=True)
    shown = (*columns, TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*shown, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("turns", total=args.turns)
        try:
            load(
                turns=args.turns,
                days=args.days,
                until=args.until,
                seed=args.seed,
                progress=lambda what, written: bar.update(task, description=what, completed=written),
            )
        except NotEmpty as exc:
            sys.exit(str(exc))
    print(f"{args.turns} turns of {args.days} days in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
