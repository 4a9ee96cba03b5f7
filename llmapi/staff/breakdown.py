"""The page of usage by client, model and user, for any days and filters."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.template.response import TemplateResponse

from analytics.metrics import sources as reading
from analytics.metrics import usage
from analytics.metrics.usage import COST, TOKENS
from analytics.models import UsageEvent
from analytics.query import DAY, Filters, Window, today
from chat.models import ClientToken
from llmapi.staff.base import KeysetAdmin
from llmapi.staff.lists.filters import parse_day
from llmapi.staff.lists.keyset import parse_value
from llmapi.staff.lists.links import list_url
from llmapi.staff.totals import is_summed, money

DEFAULT_DAYS = 7
MAX_DAYS = 366
# There are many users. Figures of more days would take too long to add up for a page.
MAX_USER_DAYS = 7
PARAMETERS = {"client": "client_token_id", "model": "model", "app_version": "app_version"}


@dataclass(frozen=True)
class Row:
    name: str
    url: str
    turns: int
    tokens: int
    cost: str


def page(model_admin: KeysetAdmin, request: HttpRequest) -> HttpResponse:
    if not model_admin.has_view_or_change_permission(request):
        raise PermissionDenied
    try:
        window, filters = parse_query(request.GET)
    except (IncorrectLookupParameters, ValidationError):
        messages.warning(
            request, f"The days or filters cannot be read; showing all usage of the last {DEFAULT_DAYS} days."
        )
        return redirect(request.path)
    known = is_summed(window)
    filter_values = {name: value for name, column in PARAMETERS.items() if (value := getattr(filters, column))}
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": "Usage by client, model and user",
        "window": window,
        "as_of": window.as_of,
        "filters": filter_values,
        "periods": [
            (days, urlencode({**filter_values, "from": today() - (days - 1) * DAY})) for days in (1, 7, 30, 365)
        ],
        "tables": [(title, list(rows)) for title, rows in tables(window, filters)] if known else None,
        "max_user_days": MAX_USER_DAYS,
    }
    return TemplateResponse(request, "admin/analytics/usageevent/breakdown.html", context)


def parse_query(query: QueryDict) -> tuple[Window, Filters]:
    first, last = (parse_day(query.get(name, "")) for name in ("from", "to"))
    last = last or max(today(), first or today())
    first = first or last - (DEFAULT_DAYS - 1) * DAY
    if not 0 <= (last - first).days < MAX_DAYS:
        raise IncorrectLookupParameters
    texts = {column: query.get(name, "") for name, column in PARAMETERS.items()}
    values = {column: parse_value(UsageEvent, column, text) for column, text in texts.items() if text}
    return Window(first, last), Filters(**values)


def tables(window: Window, filters: Filters) -> Iterator[tuple[str, Iterator[Row]]]:
    yield "Client", by_client(window, filters)
    yield "Model", by_model(window, filters)
    if (window.last - window.first).days < MAX_USER_DAYS:
        yield "User", by_user(window, filters)


def by_client(window: Window, filters: Filters) -> Iterator[Row]:
    rows = usage.token_burn_by_client(window, filters)
    names = dict(ClientToken.objects.filter(pk__in=[row["client_token_id"] for row in rows]).values_list("pk", "name"))
    for row in rows:
        pk = row["client_token_id"]
        yield usage_row(names.get(pk, str(pk)), row, window, filters, client=pk)


def by_model(window: Window, filters: Filters) -> Iterator[Row]:
    found = reading.usage(window, filters, "model", names=[*TOKENS, *COST])
    for (model,), figures in usage.most(found):
        if figures["sold"]:
            yield usage_row(model, usage.burnt(figures), window, filters, model=model)


def by_user(window: Window, filters: Filters) -> Iterator[Row]:
    for row in usage.token_burn_by_user(window, filters):
        yield usage_row(row["user_id"], row, window, filters, user=row["user_id"])


def usage_row(name: str, row: dict[str, Any], window: Window, filters: Filters, **subject: Any) -> Row:
    filter_values = {parameter: getattr(filters, column) for parameter, column in PARAMETERS.items()}
    days = {"from": window.first, "to": window.last}
    url = list_url("analytics_usageevent", **{**filter_values, **days, **subject})
    return Row(name, url, row["turns"], row["total_tokens"], money(row["cost_usd"]))
