"""The dashboard at the top of the admin, for staff who may read metrics: which days it is asked for, and of what."""

from collections.abc import Mapping
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.admin import AdminSite
from django.core.exceptions import BadRequest, PermissionDenied
from django.db import DataError
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from rest_framework.exceptions import ValidationError

from analytics.api import parameters as queries
from analytics.api.permissions import VIEW_USAGE
from analytics.query import Filters, Window
from analytics.reports.summary import Summary, summarize
from chat.models import ClientToken

PERIODS = {7: "7 days", 30: "30 days", 90: "90 days", 365: "A year"}
# Of each day a plot has some 200 bytes.
MOST_DAYS = 731
MOST_CLIENTS = 200


class DashboardSite(AdminSite):
    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        # Not only where /metrics is for everybody: it names the clients.
        shown = dashboard(request.GET) if request.user.has_perm(VIEW_USAGE) else {}
        return super().index(request, {**shown, **(extra_context or {})})

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Django's own pages ask PostgreSQL for whatever they are given."""

        @wraps(view)
        def asked(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                return view(request, *args, **kwargs)
            except DataError as exc:
                raise BadRequest("No row can hold what this asks for.") from exc

        return super().admin_view(asked, cacheable)

    def autocomplete_view(self, request: HttpRequest) -> HttpResponse:
        """No form of this admin asks for it, and it counts and scans what lists read by key."""
        raise PermissionDenied


def dashboard(query: Mapping[str, str]) -> dict[str, Any]:
    """What the template shows; of what cannot be read, the message beside the default period."""
    # A form sends its empty fields too.
    query = {name: value for name, value in query.items() if value}
    try:
        window, filters = asked(query)
    except ValidationError as exc:
        error, query = message(exc), {}
        window, filters = asked(query)
    else:
        error = ""
    summary = summarize(window, filters)
    kept = filter_query(filters)
    return {
        "summary": summary,
        "error": error,
        "query": query,
        "days": None if is_custom(query) else int(query.get("days", queries.DEFAULT_DAYS)),
        "periods": [(days, label, urlencode({"days": days, **kept})) for days, label in PERIODS.items()],
        "csv_query": urlencode({"from": window.first, "to": window.last, **kept}),
        "clients": clients(filters),
        "models": models(summary),
    }


def asked(query: Mapping[str, str]) -> tuple[Window, Filters]:
    window, filters = queries.asked(query)
    if (window.last - window.first).days >= MOST_DAYS:
        raise ValidationError({"from": "takes a day of the two years before `to`; /metrics tells of ten."})
    if is_custom(query) or "days" not in query:
        return window, filters
    if query["days"] not in map(str, PERIODS):
        raise ValidationError({"days": f"takes {', '.join(map(str, PERIODS))}."})
    return Window.last_days(int(query["days"])), filters


def is_custom(query: Mapping[str, str]) -> bool:
    """Days that are named count for more than a period."""
    return "from" in query or "to" in query


def message(exc: ValidationError) -> str:
    """`from: Date has wrong format…`, of the first field."""
    assert isinstance(exc.detail, dict)
    name, said = next(iter(exc.detail.items()))
    return f"{name}: {' '.join(map(str, said)) if isinstance(said, list) else said}"


def filter_query(filters: Filters) -> dict[str, Any]:
    """As the query string names them."""
    return {{"client_token_id": "client"}.get(name, name): value for name, value in filters.values.items()}


def clients(filters: Filters) -> list[tuple[int, str]]:
    """To choose from; also the one that is chosen, where its token has been deleted."""
    names = dict(ClientToken.objects.order_by("name", "pk").values_list("pk", "name")[:MOST_CLIENTS])
    if filters.client_token_id is not None:
        names.setdefault(filters.client_token_id, f"client {filters.client_token_id}")
    return list(names.items())


def models(summary: Summary) -> list[str]:
    """Those of the period, those that may be used now, and the one that is chosen."""
    return sorted({*summary.models, *settings.OPENAI_MODELS, summary.filters.model} - {""})
