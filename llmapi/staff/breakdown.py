"""The page of usage by client, model and user, for any days and filters."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.http import urlencode

from analytics import replica
from analytics.formatting import format_exact
from analytics.metrics.sources import Table, usage_by
from analytics.metrics.usage import burn, token_burn_by_client, token_burn_by_user, top
from analytics.query import MAX_USAGE_DAYS, InvalidQuery, Period, Query
from analytics.rollups.coverage import bring_up_to_date
from chat.models import ClientToken
from llmapi.staff.base import KeysetAdmin
from llmapi.staff.lists.links import list_url

DEFAULT_DAYS = 7
# There are many users. Figures of more days would take too long to add up for a page.
MAX_USER_DAYS = 7


@dataclass(frozen=True)
class UsageRow:
    """One row of a table of usage: what it is of, a link to its turns, and its figures."""

    labels: list[Any]
    url: str
    turns: int
    tokens: int
    cost: str


@dataclass(frozen=True)
class UsageTable:
    """Usage by one or more dimensions."""

    title: str
    dimensions: list[str]
    turns: str
    rows: list[UsageRow]
    total: UsageRow | None = None


def page(model_admin: KeysetAdmin, request: HttpRequest) -> HttpResponse:
    if not model_admin.has_view_or_change_permission(request):
        raise PermissionDenied
    params = {name: str(value) for name, value in request.GET.items() if value}
    try:
        query = Query.from_params(params, default_days=DEFAULT_DAYS, max_days=MAX_USAGE_DAYS)
    except InvalidQuery as exc:
        problem = f"The days or filters cannot be read: {exc.param} {exc}"
        messages.warning(request, f"{problem} Showing all usage of the last {DEFAULT_DAYS} days.")
        return redirect(request.path)
    with replica.reading():
        coverage, found = bring_up_to_date(), list(tables(query))
    filters = query.filters.as_params()
    links = [
        (days, urlencode({**filters, "from": Period.last_days(days).first.isoformat()})) for days in (1, 7, 30, 365)
    ]
    return model_admin.render_page(
        request,
        "admin/analytics/usageevent/breakdown.html",
        "Usage by client, model and user",
        period=query.period,
        as_of=coverage.as_of,
        filters=filters,
        periods=links,
        tables=found,
        max_user_days=MAX_USER_DAYS,
    )


def tables(query: Query) -> Iterator[UsageTable]:
    clients = {row["client_token_id"]: row for row in token_burn_by_client(Table(query))}
    names = dict(ClientToken.objects.filter(pk__in=clients).values_list("pk", "name"))
    yield usage_table(query, "client", clients, names)
    models = top(usage_by(query, "model").items())
    yield usage_table(query, "model", {model: burn(row) for (model,), row in models if row.sold})
    if query.period.length <= MAX_USER_DAYS:
        yield usage_table(query, "user", {row["user_id"]: row for row in token_burn_by_user(Table(query))})


def usage_table(
    query: Query, dimension: str, found: dict[Any, dict[str, Any]], names: Mapping[Any, str] | None = None
) -> UsageTable:
    """Make a table with a row for each value of a dimension. `names` are what values are shown as."""
    rows = []
    for value, row in found.items():
        url = list_url("analytics_usageevent", **{**query.as_params(), dimension: value})
        label = (names or {}).get(value, str(value))
        rows.append(UsageRow([label], url, row["turns"], row["total_tokens"], format_exact(row["cost_usd"], "usd")))
    return UsageTable(f"By {dimension}", [dimension.capitalize()], "Settled turns", rows)
