"""What a list shows, as CSV: read by key and written as it is read, whatever its length."""

import csv
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

from django.contrib import messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse

from analytics.api.renderers import safe
from analytics.query import today
from chat import audit
from chat.turns.lifecycle import release_connection
from llmapi.staff.lists.filters import DayFilter
from llmapi.staff.lists.keyset import Key, Page, Walk

if TYPE_CHECKING:
    from llmapi.staff.base import KeysetAdmin
    from llmapi.staff.lists.changelist import KeysetChangeList

CHUNK = 200
# Of which all rows can be looked at.
MOST_DAYS = 31
# After each chunk, for those who stream replies in this process: a greenlet that sleeps for 0 lets no sockets be read.
PAUSE_SECONDS = 0.002


class Line:
    """What csv.writer writes to: it hands each line back."""

    def write(self, line: str) -> str:
        return line


def export(model_admin: "KeysetAdmin", request: HttpRequest) -> HttpResponseBase:
    if not model_admin.has_view_or_change_permission(request):
        raise PermissionDenied
    try:
        changelist = cast("KeysetChangeList", model_admin.get_changelist_instance(request))
    except IncorrectLookupParameters:
        # The list says so, too.
        return redirect(f"{reverse(f'admin:{model_admin.url_name}_changelist')}?{ERROR_FLAG}=1")
    walk = changelist.walk
    if walk.others and walk.key == Key() and not is_short(changelist.days):
        # There may be minutes between two rows, in which nobody would notice that the client has gone.
        messages.warning(request, f"Too much to search through; choose at most {MOST_DAYS} days as well.")
        return redirect(f"{reverse(f'admin:{model_admin.url_name}_changelist')}?{request.GET.urlencode()}")
    columns = exported(model_admin, request)
    hidden = [name for name in model_admin.private if name not in columns]
    walk = replace(walk, rows=walk.rows.defer(None).defer(*hidden))
    table = model_admin.opts.db_table
    # Before anything is sent: where it cannot be written, nothing is.
    audit.record(request.user, audit.Action.EXPORTED, table, detail=request.GET.urlencode())
    return StreamingHttpResponse(
        lines(walk, columns, model_admin),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{table}-{today().isoformat()}.csv"'},
    )


def is_short(days: DayFilter | None) -> bool:
    return bool(days and days.since and ((days.to or today()) - days.since).days < MOST_DAYS)


def exported(model_admin: "KeysetAdmin", request: HttpRequest) -> list[str]:
    """Columns, without those that this member of the staff may not read."""
    is_allowed = audit.may_read(request.user)
    return [name for name in model_admin.export_columns if is_allowed or name not in model_admin.private]


def lines(walk: Walk, columns: Sequence[str], model_admin: "KeysetAdmin") -> Iterator[str]:
    """What is streamed to a client: nothing is held while it takes a chunk."""
    for text, _ in chunks(walk, columns, model_admin):
        release_connection()
        if text:
            yield text
        time.sleep(PAUSE_SECONDS)


def chunks(walk: Walk, columns: Sequence[str], model_admin: "KeysetAdmin") -> Iterator[tuple[str, Page]]:
    """So many rows at a time, as lines of CSV under a header, and as the page that was read."""
    writer = csv.writer(Line())
    cells = [reader(model_admin, name) for name in columns]
    text, cursor = [writer.writerow(columns)], None
    while True:
        page = walk.page(CHUNK, cursor=cursor)
        text += [writer.writerow([written(read(row)) for read in cells]) for row in page.rows]
        yield "".join(text), page
        text, cursor = [], page.older
        if cursor is None:
            return


def reader(model_admin: "KeysetAdmin", name: str) -> Callable[[Any], Any]:
    """How a column's value is read off a row."""
    if name in {field.attname for field in model_admin.opts.concrete_fields}:
        return attrgetter(name)
    found: Callable[[Any], Any] = getattr(model_admin, name)
    return found


def written(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return safe(value)
