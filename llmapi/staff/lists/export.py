"""Export of a list as CSV: read by key and sent while it is read, so a list of any length needs little memory."""

import csv
import io
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse

from analytics.fairness import Busy, Share, close_connection
from analytics.query import today
from analytics.reports.csv import escape_cell
from chat import audit
from chat.api.sharing import Held
from llmapi.staff.lists.changelist import KeysetChangeList
from llmapi.staff.lists.keyset import Key, KeysetQuery, Page

CHUNK_ROWS = 200
# Days of which an export may compare every row.
MAX_SCAN_DAYS = 31
# Exports that a process sends at once: in all, and to one member of the staff. One takes as long as its client reads.
EXPORTS = Share(lambda: 4)
# Pause after each chunk, for the replies that this process streams. Sleeping for 0 would let no socket be read.
PAUSE_SECONDS = 0.002


class ExportMixin(admin.ModelAdmin):  # type: ignore[type-arg]
    """A link on the list that exports it as CSV, with its filters."""

    export_columns: Sequence[str] = ()
    # Columns that only staff with the permission to read prompts and replies may see.
    private: Sequence[str] = ()

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_export"
        return [path("export/", self.admin_site.admin_view(self.export), name=name), *super().get_urls()]

    def export(self, request: HttpRequest) -> HttpResponseBase:
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        list_url = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
        try:
            changelist = self.get_changelist_instance(request)
        except IncorrectLookupParameters:
            # The list tells what is wrong.
            return redirect(f"{list_url}?{ERROR_FLAG}=1")
        assert isinstance(changelist, KeysetChangeList)
        query = changelist.keyset_query
        days = changelist.days
        has_few_days = days and days.since and ((days.to or today()) - days.since).days < MAX_SCAN_DAYS
        if query.conditions and query.key == Key() and not has_few_days:
            # Minutes may pass between two rows. A client that goes away would not be noticed.
            messages.warning(request, f"Too many rows to search; choose at most {MAX_SCAN_DAYS} days as well.")
            return redirect(f"{list_url}?{request.GET.urlencode()}")
        hidden = [] if audit.may_read(request.user) else self.private
        columns = [name for name in self.export_columns if name not in hidden]
        unread = [name for name in self.private if name not in columns]
        query = replace(query, rows=query.rows.defer(None).defer(*unread))
        table = self.opts.db_table
        held: Held = request.held  # type: ignore[attr-defined]
        try:
            held.hold(EXPORTS, owner=request.user.pk)
        except Busy:
            messages.warning(request, "Too many exports run at once; wait for one to end, then try again.")
            return redirect(f"{list_url}?{request.GET.urlencode()}")
        # Recorded before anything is sent: if the record cannot be written, nothing is sent.
        audit.record(request.user, audit.Action.EXPORTED, table, detail=request.GET.urlencode())
        return StreamingHttpResponse(
            stream(query, columns, self),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{table}-{today().isoformat()}.csv"'},
        )


def stream(query: KeysetQuery, columns: Sequence[str], model_admin: ExportMixin) -> Iterator[str]:
    """Yield chunks of CSV. No database connection is held while the client takes a chunk."""
    for text, _ in csv_chunks(query, columns, model_admin):
        close_connection()
        if text:
            yield text
        time.sleep(PAUSE_SECONDS)


def csv_chunks(query: KeysetQuery, columns: Sequence[str], model_admin: ExportMixin) -> Iterator[tuple[str, Page]]:
    """Yield CHUNK_ROWS rows at a time, as CSV and as the page that was read. The first chunk begins with a header."""
    fields = {field.attname for field in model_admin.opts.concrete_fields}
    # A column is a field of the model, or a method of its ModelAdmin.
    readers = [attrgetter(name) if name in fields else getattr(model_admin, name) for name in columns]
    cursor = None
    while True:
        page = query.page(CHUNK_ROWS, cursor=cursor)
        out = io.StringIO()
        if cursor is None:
            csv.writer(out).writerow(columns)
        csv.writer(out).writerows([format_cell(read(row)) for read in readers] for row in page.rows)
        yield out.getvalue(), page
        cursor = page.older
        if cursor is None:
            return


def format_cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return escape_cell(value)
