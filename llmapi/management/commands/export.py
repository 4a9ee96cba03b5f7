from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from django.contrib import admin
from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper

from analytics.management.arguments import iso_day
from analytics.management.progress import advancing
from analytics.models import AnalyticsEvent, UsageEvent
from analytics.query import DAY, midnight
from chat.models import Conversation
from llmapi.management.arguments import client_of, output
from llmapi.staff.base import KeysetAdmin
from llmapi.staff.lists.export import csv_chunks
from llmapi.staff.lists.keyset import KeysetQuery

MODELS = {model._meta.db_table: model for model in (UsageEvent, AnalyticsEvent, Conversation)}


class Command(BaseCommand):
    help = "Write the rows of a table as CSV, the newest first: an archive of what RAW_RETENTION_DAYS deletes."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("table", choices=list(MODELS))
        parser.add_argument("--from", dest="first", type=iso_day, metavar="DAY", help="the first UTC day, YYYY-MM-DD")
        parser.add_argument("--to", dest="last", type=iso_day, metavar="DAY", help="the last UTC day (today)")
        parser.add_argument("--client", metavar="NAME", help="only of one client token, by its name or id")
        parser.add_argument("--output", metavar="FILE", type=Path, help="write there, whole or not at all")

    def handle(self, *args: Any, **options: Any) -> None:
        first, last, path = options["first"], options["last"], options["output"]
        if first and last and first > last:
            raise CommandError("--from takes a day that is not after --to.")
        model = MODELS[options["table"]]
        model_admin = admin.site.get_model_admin(model)
        assert isinstance(model_admin, KeysetAdmin)
        client = options["client"]
        asked = {} if client is None else {"client_token_id": client_of(client)[0]}
        query = KeysetQuery.for_filters(
            model._default_manager.all(),
            model_admin.list_keys,
            asked,
            since=midnight(first) if first else None,
            before=midnight(last) + DAY if last else None,
        )
        if path is None:
            write(query, model_admin, self.stdout)
            return
        with output(path) as file:
            written = write(query, model_admin, file)
        self.stdout.write(f"{written:,} rows written to {path}.")


def write(query: KeysetQuery, model_admin: KeysetAdmin, out: IO[str] | OutputWrapper) -> int:
    """How many rows were written."""
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
