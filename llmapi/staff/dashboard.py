"""The dashboard at the top of the admin, for staff who may read metrics."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from django.conf import settings

from analytics import replica
from analytics.query import DEFAULT_DAYS, MAX_DASHBOARD_DAYS, Filters, InvalidQuery, Query
from analytics.reports.summary import summarize
from analytics.rollups.coverage import bring_up_to_date
from chat.models import ClientToken

PERIODS = {7: "7 days", 30: "30 days", 90: "90 days", 365: "A year"}
MAX_CLIENTS = 200


@replica.reading()
def dashboard_context(params: Mapping[str, str]) -> dict[str, Any]:
    """Build what the template shows. If the query cannot be read, show the default period and say what is wrong."""
    # The form sends its empty fields too.
    params = {name: value for name, value in params.items() if value}
    try:
        (query, days), error = parse_query(params), ""
    except InvalidQuery as exc:
        error, params = f"{exc.param}: {exc}", {}
        query, days = parse_query(params)
    summary = summarize(query, bring_up_to_date())
    filters = query.filters.as_params()
    return {
        "summary": summary,
        "error": error,
        "query": params,
        "days": days,
        "periods": [(days, label, urlencode({"days": days, **filters})) for days, label in PERIODS.items()],
        "csv_query": urlencode(query.as_params()),
        "clients": client_choices(query.filters),
        # The models of the period, those that clients may use now, and the chosen one.
        "models": sorted({*summary.models, *settings.OPENAI_MODELS, query.filters.model} - {""}),
    }


def parse_query(params: Mapping[str, str]) -> tuple[Query, int | None]:
    """Read dates, or else a number of days in `days`, and return that number too. Raises InvalidQuery."""
    query = Query.from_params(params, max_days=MAX_DASHBOARD_DAYS)
    if "from" in params or "to" in params:
        return query, None
    days = params.get("days", str(DEFAULT_DAYS))
    if days not in map(str, PERIODS):
        raise InvalidQuery("days", f"takes {', '.join(map(str, PERIODS))}.")
    return Query.last_days(int(days), query.filters), int(days)


def client_choices(filters: Filters) -> list[tuple[int, str]]:
    """Return the client tokens to choose from, and the chosen one even if it was deleted."""
    names = dict(ClientToken.objects.order_by("name", "pk").values_list("pk", "name")[:MAX_CLIENTS])
    if filters.client_token_id is not None:
        names.setdefault(filters.client_token_id, f"client {filters.client_token_id}")
    return list(names.items())
