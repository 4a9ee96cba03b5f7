from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from django.contrib import admin
from django.core.management.base import CommandError, CommandParser, OutputWrapper

from analytics import replica
from analytics.management.arguments import iso_day
from analytics.management.base import OperatorCommand
from analytics.management.progress import advancing
from analytics.models import AnalyticsEvent, UsageEvent
from analytics.query import DAY, midnight
from chat.models import Conversation
from llmapi.management.arguments import find_client, open_output
from llmapi.staff.base import KeysetAdmin
from llmapi.staff.lists.export import csv_chunks
from llmapi.staff.lists.keyset import KeysetQuery

MODELS = {model._meta.db_table: model for model in (UsageEvent, AnalyticsEvent, Conversation)}


class Command(OperatorCommand):
    group = "Data"
    examples = (
        "usage_events --output usage.csv",
        "analytics_events --from 2026-11-01 --to 2026-11-30",
        "conversations --client web",
    )
    help = "Write a table as CSV, the newest rows first. Use it to archive rows before RAW_RETENTION_DAYS deletes them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("table", choices=list(MODELS))
        parser.add_argument("--from", dest="first", type=iso_day, metavar="DAY", help="the first UTC day, YYYY-MM-DD")
        parser.add_argument("--to", dest="last", type=iso_day, metavar="DAY", help="the last UTC day (today)")
        parser.add_argument("--client", metavar="NAME", help="only rows of this client token, by its name or id")
        parser.add_argument("--output", metavar="FILE", type=Path, help="write to this file, and overwrite it")

    @replica.reading()
    def handle(self, *args: Any, **options: Any) -> None:
        first, last, path = options["first"], options["last"], options["output"]
        if first and last and first > last:
            raise CommandError("--from must not be after --to.")
        if replica.is_reading():
            self.stderr.write(f"Rows as of {replica.replayed_to():%Y-%m-%d %H:%M:%S} UTC, from the read replica.")
        model = MODELS[options["table"]]
        model_admin = admin.site.get_model_admin(model)
        assert isinstance(model_admin, KeysetAdmin)
        client = options["client"]
        filter_values = {} if client is None else {"client_token_id": find_client(client)[0]}
        query = KeysetQuery.for_filters(
            model._default_manager.all(),
            model_admin.list_keys,
            filter_values,
            since=midnight(first) if first else None,
            before=midnight(last) + DAY if last else None,
        )
        if path is None:
            write_rows(query, model_admin, self.stdout)
            return
        with open_output(path) as file:
            count = write_rows(query, model_admin, file)
        self.stdout.write(f"{count:,} rows written to {path}.")


def write_rows(query: KeysetQuery, model_admin: KeysetAdmin, out: IO[str] | OutputWrapper) -> int:
    """Write all rows, show progress by time, and return how many rows were written."""
    times = query.rows.order_by("created_at").values_list("created_at", flat=True)
    oldest, newest = times.first(), times.last()
    length = newest - oldest if newest and oldest else timedelta(0)
    rows = 0
    with advancing(model_admin.opts.db_table, length.total_seconds()) as advance:
        for text, page in csv_chunks(query, model_admin.export_columns, model_admin):
            if text:
                out.write(text)
            rows += len(page.rows)
            reached = page.older.time if page.older else oldest
            advance((newest - reached).total_seconds() if newest and reached else 0, rows)
    return rows
