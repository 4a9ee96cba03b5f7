"""Usage by client, model and user, for any days and filters."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
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
from llmapi.staff.lists.filters import read_day
from llmapi.staff.lists.keyset import own_value
from llmapi.staff.lists.links import listed
from llmapi.staff.totals import is_summed, money

if TYPE_CHECKING:
    from llmapi.staff.base import KeysetAdmin

DEFAULT_DAYS = 7
MOST_DAYS = 366
# Users are many: so many days of theirs can be added up while somebody waits.
MOST_USER_DAYS = 7
PARAMETERS = {"client": "client_token_id", "model": "model", "app_version": "app_version"}


@dataclass(frozen=True)
class Line:
    name: str
    url: str
    turns: int
    tokens: int
    cost: str


def page(model_admin: "KeysetAdmin", request: HttpRequest) -> HttpResponse:
    if not model_admin.has_view_or_change_permission(request):
        raise PermissionDenied
    try:
        window, filters = asked(request.GET)
    except (IncorrectLookupParameters, ValidationError):
        messages.warning(request, "These days or filters cannot be read; this is everything of the last days.")
        return redirect(request.path)
    known = is_summed(window)
    kept = {name: value for name, column in PARAMETERS.items() if (value := getattr(filters, column))}
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": "Usage by client, model and user",
        "window": window,
        "as_of": window.as_of,
        "filters": kept,
        "periods": [(days, urlencode({**kept, "from": today() - (days - 1) * DAY})) for days in (1, 7, 30, 365)],
        "tables": [(title, list(lines)) for title, lines in tables(window, filters)] if known else None,
        "most_user_days": MOST_USER_DAYS,
    }
    return TemplateResponse(request, "admin/analytics/usageevent/breakdown.html", context)


def asked(query: QueryDict) -> tuple[Window, Filters]:
    first, last = (read_day(query.get(name, "")) for name in ("from", "to"))
    last = last or max(today(), first or today())
    first = first or last - (DEFAULT_DAYS - 1) * DAY
    if not 0 <= (last - first).days < MOST_DAYS:
        raise IncorrectLookupParameters
    given = {column: query.get(name, "") for name, column in PARAMETERS.items()}
    values = {column: own_value(UsageEvent, column, text) for column, text in given.items() if text}
    return Window(first, last), Filters(**values)


def tables(window: Window, filters: Filters) -> Iterator[tuple[str, Iterator[Line]]]:
    yield "Client", by_client(window, filters)
    yield "Model", by_model(window, filters)
    if (window.last - window.first).days < MOST_USER_DAYS:
        yield "User", by_user(window, filters)


def by_client(window: Window, filters: Filters) -> Iterator[Line]:
    burnt = usage.token_burn_by_client(window, filters)
    names = dict(ClientToken.objects.filter(pk__in=[row["client_token_id"] for row in burnt]).values_list("pk", "name"))
    for row in burnt:
        pk = row["client_token_id"]
        yield line(names.get(pk, str(pk)), row, window, filters, client=pk)


def by_model(window: Window, filters: Filters) -> Iterator[Line]:
    found = reading.usage(window, filters, "model", names=[*TOKENS, *COST])
    for (model,), figures in usage.most(found):
        if figures["sold"]:
            yield line(model, usage.burnt(figures), window, filters, model=model)


def by_user(window: Window, filters: Filters) -> Iterator[Line]:
    for row in usage.token_burn_by_user(window, filters):
        yield line(row["user_id"], row, window, filters, user=row["user_id"])


def line(name: str, row: dict[str, Any], window: Window, filters: Filters, **own: Any) -> Line:
    named = {parameter: getattr(filters, column) for parameter, column in PARAMETERS.items()}
    days = {"from": window.first, "to": window.last}
    url = listed("analytics_usageevent", **{**named, **days, **own})
    return Line(name, url, row["turns"], row["total_tokens"], money(row["cost_usd"]))
