"""The query string of a metrics route."""

from collections.abc import Collection, Mapping
from datetime import date

from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import ValidationError

from analytics.query import DEFAULT_DAYS, InvalidQuery, Query

PARAMETERS = [
    OpenApiParameter("from", date, description=f"The first UTC day; {DEFAULT_DAYS - 1} days before `to` by default."),
    OpenApiParameter("to", date, description="The last UTC day; today by default."),
    OpenApiParameter("client", int, description="The id of one client token."),
    OpenApiParameter("model", str, description="One model."),
    OpenApiParameter("app_version", str, description="One version of the client's app."),
]
NAMES = [parameter.name for parameter in PARAMETERS]


def query_of(params: Mapping[str, str]) -> Query:
    """Read the parameters. Raises ValidationError for any other: a misspelt filter must not pass for none."""
    check_names(params, known=NAMES)
    try:
        return Query.from_params(params)
    except InvalidQuery as exc:
        raise ValidationError({exc.param: [str(exc)]}) from exc


def check_names(params: Mapping[str, str], *, known: Collection[str]) -> None:
    for name in params:
        if name not in known and name != "format":
            takes = ", ".join([*known, "format"])
            raise ValidationError({name: f"is not known here; this takes {takes}."})
