"""Filters of lists: the value of one column, and a range of UTC days."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from django.contrib.admin import ListFilter, SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models import Model
from django.http import HttpRequest

from analytics.query import DAY, today
from chat.models import ClientToken
from llmapi.staff.lists.keyset import own_value

MOST_CHOICES = 50
EARLIEST = date(2000, 1, 1)
Params = dict[str, list[str]]

# PostgreSQL would read the whole index for a DISTINCT; this looks once for each value.
DISTINCT = """
    WITH RECURSIVE found(value) AS (
        SELECT min({column}) FROM {table}
        UNION ALL
        SELECT (SELECT min({column}) FROM {table} WHERE {column} > found.value) FROM found WHERE found.value IS NOT NULL
    )
    SELECT value FROM found WHERE value IS NOT NULL LIMIT %s
"""


def distinct(model: type[Model], column: str) -> list[str]:
    """The first values of an indexed column."""
    sql = DISTINCT.format(table=model._meta.db_table, column=column)
    with connection.cursor() as cursor:
        cursor.execute(sql, [MOST_CHOICES])
        return [value for (value,) in cursor.fetchall()]


class ColumnFilter(SimpleListFilter):
    """The rows of one value; what a link has asked for is shown and can be taken back, though no choice names it."""

    template = "llmapi/filter.html"
    column: str

    def __init__(self, request: HttpRequest, params: Params, model: type[Model], model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        # The list has its own way to apply it.
        self.asked: dict[str, Any] = {}
        if (text := self.value()) is not None:
            try:
                self.asked = {self.column: own_value(model, self.column, text)}
            except ValidationError as exc:
                raise IncorrectLookupParameters from exc

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return []

    def has_output(self) -> bool:
        return bool(self.lookup_choices) or self.value() is not None

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        yield from super().choices(changelist)
        text = self.value()
        if text is not None and text not in {str(value) for value, _ in self.lookup_choices}:
            yield {"selected": True, "query_string": changelist.get_query_string(), "display": text}

    def queryset(self, request: HttpRequest, queryset: Any) -> None:
        return None


def by(column: str, parameter: str, title: str = "") -> type[ColumnFilter]:
    """A filter that only links ask for."""
    title = title or parameter
    return type("Filter", (ColumnFilter,), {"column": column, "parameter_name": parameter, "title": title})


class ClientFilter(ColumnFilter):
    title = parameter_name = "client"
    column = "client_token_id"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        newest = ClientToken.objects.order_by("-pk").values_list("pk", "name")
        return [(str(pk), name) for pk, name in newest[:MOST_CHOICES]]


class StatusFilter(ColumnFilter):
    """Of a column with choices."""

    title = parameter_name = column = "status"

    def __init__(self, request: HttpRequest, params: Params, model: type[Model], model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        if self.asked and self.value() not in dict(self.lookup_choices):
            raise IncorrectLookupParameters

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(value), str(label)) for value, label in model_admin.model._meta.get_field(self.column).flatchoices]


class YesNoFilter(ColumnFilter):
    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("True", "Yes"), ("False", "No")]


class DayFilter(ListFilter):
    """Rows of whole UTC days, under the names that /metrics has for them."""

    title = "day (UTC)"
    template = "llmapi/day_filter.html"

    def __init__(self, request: HttpRequest, params: Params, model: type[Model], model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        self.since, self.to = (read_day(params.pop(name, [""])[-1]) for name in ("from", "to"))
        if self.since and self.to and self.since > self.to:
            raise IncorrectLookupParameters

    @property
    def shown(self) -> str:
        if not (self.since or self.to):
            return "All"
        return f"{self.since or '…'} – {self.to or 'today'}"

    def has_output(self) -> bool:
        return True

    def expected_parameters(self) -> list[str | None]:
        return ["from", "to"]

    def queryset(self, request: HttpRequest, queryset: Any) -> None:
        return None

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        for title, days in (("All", None), ("Today", 1), ("Last 7 days", 7), ("Last 30 days", 30)):
            since = today() - (days - 1) * DAY if days else None
            yield {
                "selected": (self.since, self.to) == (since, None),
                "query_string": changelist.get_query_string({"from": since and since.isoformat(), "to": None}),
                "display": title,
            }

    def kept(self) -> list[tuple[str, str]]:
        """What the form sends along."""
        ours = {"from", "to", "before", "after"}
        return [(name, value) for name, values in self.request.GET.lists() if name not in ours for value in values]


def read_day(text: str) -> date | None:
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError as exc:
        raise IncorrectLookupParameters from exc
    if not EARLIEST <= day <= today() + timedelta(days=366):
        raise IncorrectLookupParameters
    return day
