"""What the query string of a metrics route says."""

from collections.abc import Collection, Mapping
from datetime import date, timedelta
from typing import Any

from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers

from analytics.query import Filters, Window, today

DEFAULT_DAYS = 30
MOST_DAYS = 3660

FIELDS: dict[str, tuple[serializers.Field[Any, Any, Any, Any], str]] = {
    "from": (serializers.DateField(), f"The first UTC day; {DEFAULT_DAYS - 1} days before `to` by default."),
    "to": (serializers.DateField(), "The last UTC day; today by default."),
    "client": (serializers.IntegerField(min_value=1, max_value=2**63 - 1), "The id of one client token."),
    "model": (serializers.CharField(max_length=100, trim_whitespace=False), "One model."),
    "app_version": (serializers.CharField(max_length=64, trim_whitespace=False), "One version of the client's app."),
}
TYPES = {"from": date, "to": date, "client": int}
PARAMETERS = [OpenApiParameter(name, TYPES.get(name, str), description=said) for name, (_, said) in FIELDS.items()]


def asked(query: Mapping[str, str]) -> tuple[Window, Filters]:
    values = {name: value_of(query, name) for name in FIELDS if name in query}
    last = values.get("to", today())
    if last.year < 2000 or last > today() + timedelta(days=1):
        raise serializers.ValidationError({"to": "lies outside of the time that metrics know of."})
    first = values.get("from", last - timedelta(days=DEFAULT_DAYS - 1))
    if not 0 <= (last - first).days < MOST_DAYS:
        raise serializers.ValidationError({"from": f"takes a day that is 0 to {MOST_DAYS - 1} days before `to`."})
    return Window(first, last), Filters(values.get("client"), values.get("model", ""), values.get("app_version", ""))


def asked_alone(query: Mapping[str, str]) -> tuple[Window, Filters]:
    """Nothing else may be asked: who misspells a filter would take the figures of everything for those of a part."""
    check_names(query, known=FIELDS)
    return asked(query)


def check_names(query: Mapping[str, str], *, known: Collection[str]) -> None:
    for name in query:
        if name not in known and name != "format":
            takes = ", ".join([*known, "format"])
            raise serializers.ValidationError({name: f"is not known here; this takes {takes}."})


def value_of(query: Mapping[str, str], name: str) -> Any:
    try:
        return FIELDS[name][0].run_validation(query[name])
    except serializers.ValidationError as exc:
        raise serializers.ValidationError({name: exc.detail}) from exc
