"""Filters of lists: the value of one column, and a range of UTC days."""

from collections.abc import Iterator
from datetime import date
from typing import Any

from django.contrib.admin import ListFilter, SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models import Model
from django.http import HttpRequest

from analytics import query
from analytics.models import UsageEvent
from analytics.query import DAY, today
from chat.models import ClientToken
from llmapi.staff.lists.keyset import parse_value

MAX_CHOICES = 50
Params = dict[str, list[str]]
Choices = list[tuple[str, str]]

# Reads one row for each value. For a DISTINCT, PostgreSQL would read the whole index.
DISTINCT = """
    WITH RECURSIVE found(value) AS (
        SELECT min({column}) FROM {table}
        UNION ALL
        SELECT (SELECT min({column}) FROM {table} WHERE {column} > found.value) FROM found WHERE found.value IS NOT NULL
    )
    SELECT value FROM found WHERE value IS NOT NULL LIMIT %s
"""


class ColumnFilter(SimpleListFilter):
    """Rows with one value of a column. This class offers no choices: only links set it.

    A link may ask for a value that is not among the choices. The filter then shows that value, and staff can clear it.
    """

    template = "llmapi/filter.html"
    column: str

    @classmethod
    def of(cls, column: str, parameter: str = "", title: str = "", **attributes: Any) -> type["ColumnFilter"]:
        """Make a filter of `column`. Without a parameter and a title of its own, it is named after the column."""
        parameter = parameter or column
        title = title or parameter.replace("_", " ")
        return type(cls.__name__, (cls,), {"column": column, "parameter_name": parameter, "title": title, **attributes})

    def __init__(self, request: HttpRequest, params: Params, model: type[Model], model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        # KeysetChangeList applies it; queryset() below does nothing.
        self.filter_values: dict[str, Any] = {}
        if (text := self.value()) is not None:
            try:
                self.filter_values = {self.column: parse_value(model, self.column, text)}
            except ValidationError as exc:
                raise IncorrectLookupParameters from exc

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
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


UserFilter = ColumnFilter.of("user_id", "user")
ConversationFilter = ColumnFilter.of("conversation_id", "conversation")
VersionFilter = ColumnFilter.of("app_version")


class ClientFilter(ColumnFilter):
    title = parameter_name = "client"
    column = "client_token_id"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        newest = ClientToken.objects.order_by("-pk").values_list("pk", "name")
        return [(str(pk), name) for pk, name in newest[:MAX_CHOICES]]


class DistinctFilter(ColumnFilter):
    """Offers the first values of the column in the table of `source`, where it is indexed."""

    source: type[Model]

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        with connection.cursor() as cursor:
            cursor.execute(DISTINCT.format(table=self.source._meta.db_table, column=self.column), [MAX_CHOICES])
            return [(value, value) for (value,) in cursor.fetchall()]


ModelFilter = DistinctFilter.of("model", source=UsageEvent)


class ChoicesFilter(ColumnFilter):
    """Offers `options`, or else the choices of the field, and takes no other value."""

    options: Choices = []

    def __init__(self, request: HttpRequest, params: Params, model: type[Model], model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        if self.filter_values and self.value() not in dict(self.lookup_choices):
            raise IncorrectLookupParameters

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        found = self.options or model_admin.model._meta.get_field(self.column).flatchoices
        return [(str(value), str(label)) for value, label in found]


class YesNoFilter(ColumnFilter):
    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        return [("True", "Yes"), ("False", "No")]


class DayFilter(ListFilter):
    """Rows of whole UTC days. Its parameters have the same names as those of /metrics."""

    title = "day (UTC)"
    template = "llmapi/day_filter.html"

    def __init__(self, request: HttpRequest, params: Params, model: type[Model], model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        self.since, self.to = (parse_day(params.pop(name, [""])[-1]) for name in ("from", "to"))
        if self.since and self.to and self.since > self.to:
            raise IncorrectLookupParameters

    @property
    def description(self) -> str:
        return f"{self.since or '…'} – {self.to or 'today'}" if self.since or self.to else "All"

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

    def other_parameters(self) -> list[tuple[str, str]]:
        """Parameters of the page that the form of this filter must keep."""
        replaced = {"from", "to", "before", "after"}
        return [(name, value) for name, values in self.request.GET.lists() if name not in replaced for value in values]


def parse_day(text: str) -> date | None:
    """Read a day of the query string. Raises IncorrectLookupParameters if it is no day, or far from today."""
    try:
        return query.parse_day(text, "from") if text else None
    except query.InvalidQuery as exc:
        raise IncorrectLookupParameters from exc
