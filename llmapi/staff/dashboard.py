"""The dashboard at the top of the admin, for staff who may read metrics."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from rest_framework.exceptions import ValidationError

from analytics.api import parameters as queries
from analytics.query import Filters, Window
from analytics.reports.summary import Summary, summarize
from chat.models import ClientToken

PERIODS = {7: "7 days", 30: "30 days", 90: "90 days", 365: "A year"}
# A plot takes some 200 bytes of HTML for each day.
MAX_DAYS = 731
MAX_CLIENTS = 200


def dashboard_context(query: Mapping[str, str]) -> dict[str, Any]:
    """Build what the template shows. If the query cannot be read, show the default period and say what is wrong."""
    # The form sends its empty fields too.
    query = {name: value for name, value in query.items() if value}
    try:
        window, filters = parse_query(query)
    except ValidationError as exc:
        error, query = describe_error(exc), {}
        window, filters = parse_query(query)
    else:
        error = ""
    summary = summarize(window, filters)
    filter_parameters = {
        "client" if name == "client_token_id" else name: value for name, value in filters.values.items()
    }
    return {
        "summary": summary,
        "error": error,
        "query": query,
        "days": None if has_dates(query) else int(query.get("days", queries.DEFAULT_DAYS)),
        "periods": [(days, label, urlencode({"days": days, **filter_parameters})) for days, label in PERIODS.items()],
        "csv_query": urlencode({"from": window.first, "to": window.last, **filter_parameters}),
        "clients": client_choices(filters),
        "models": model_choices(summary),
    }


def parse_query(query: Mapping[str, str]) -> tuple[Window, Filters]:
    window, filters = queries.asked(query)
    if (window.last - window.first).days >= MAX_DAYS:
        raise ValidationError({"from": "takes a day of the two years before `to`. For up to ten years, use /metrics."})
    if has_dates(query) or "days" not in query:
        return window, filters
    if query["days"] not in map(str, PERIODS):
        raise ValidationError({"days": f"takes {', '.join(map(str, PERIODS))}."})
    return Window.last_days(int(query["days"])), filters


def has_dates(query: Mapping[str, str]) -> bool:
    """Return whether the query names dates. Then `days` is ignored."""
    return "from" in query or "to" in query


def describe_error(exc: ValidationError) -> str:
    """Return the error of the first field, such as `from: Date has wrong format…`."""
    assert isinstance(exc.detail, dict)
    name, errors = next(iter(exc.detail.items()))
    return f"{name}: {' '.join(map(str, errors)) if isinstance(errors, list) else errors}"


def client_choices(filters: Filters) -> list[tuple[int, str]]:
    """Return the client tokens to choose from, and the chosen one even if it was deleted."""
    names = dict(ClientToken.objects.order_by("name", "pk").values_list("pk", "name")[:MAX_CLIENTS])
    if filters.client_token_id is not None:
        names.setdefault(filters.client_token_id, f"client {filters.client_token_id}")
    return list(names.items())


def model_choices(summary: Summary) -> list[str]:
    """Return the models of the period, those that clients may use now, and the chosen one."""
    return sorted({*summary.models, *settings.OPENAI_MODELS, summary.filters.model} - {""})
