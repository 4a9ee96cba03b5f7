"""Django's changelist for tables that grow: pages are read by key, and rows are never counted."""

from collections.abc import Sequence
from typing import Any, Protocol, cast

from django.contrib import messages
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG, ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest

from analytics.query import DAY, midnight
from llmapi.staff.lists.filters import ColumnFilter, DayFilter
from llmapi.staff.lists.keyset import Cursor, Key, KeysetQuery

BEFORE, AFTER = CURSORS = ("before", "after")


class ListOptions(Protocol):
    """What a list needs of its ModelAdmin."""

    list_keys: Sequence[Key]
    private: Sequence[str]

    def search_terms(self, text: str) -> dict[str, Any]: ...

    def prepare(self, rows: list[Any]) -> None: ...


class KeysetChangeList(ChangeList):
    """One page of rows: those older than a cursor (`?before=`), those newer (`?after=`), or the newest of all."""

    @property
    def options(self) -> ListOptions:
        return cast(ListOptions, self.model_admin)

    def get_filters(self, request: HttpRequest) -> Any:
        """Show the whole list for an unknown filter, as Django does for a value that cannot be read."""
        try:
            return super().get_filters(request)
        except DisallowedModelAdminLookup as exc:
            raise IncorrectLookupParameters from exc

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        # A cursor is no filter, and only the links to other pages keep it.
        for name in CURSORS:
            self.params.pop(name, None)
            self.filter_params.pop(name, None)
        self.filter_specs, self.has_filters, _, _, self.has_active_filters = self.get_filters(request)
        self.clear_all_filters_qs = self.get_query_string(remove=list(self.get_filters_params()))
        columns = [spec for spec in self.filter_specs if isinstance(spec, ColumnFilter)]
        self.filter_values = {name: value for spec in columns for name, value in spec.filter_values.items()}
        search_terms = self.options.search_terms(self.query.strip()) if self.query.strip() else {}
        rows = self.apply_select_related(self.root_queryset).defer(*self.options.private)
        if any(self.filter_values.get(name, value) != value for name, value in search_terms.items()):
            rows = rows.none()  # The search and a filter ask for different values of one column.
        self.filter_values |= search_terms
        self.days = next((spec for spec in self.filter_specs if isinstance(spec, DayFilter)), None)
        since, to = (self.days.since, self.days.to) if self.days else (None, None)
        self.keyset_query = KeysetQuery.for_filters(
            rows,
            self.options.list_keys,
            self.filter_values,
            since=midnight(since) if since else None,
            before=midnight(to) + DAY if to else None,
        )
        return self.keyset_query.all_rows

    def get_results(self, request: HttpRequest) -> None:
        if ERROR_FLAG in request.GET:
            messages.warning(request, "The filters cannot be read; showing the whole list.")
        newer = AFTER in request.GET
        cursor = self.parse_cursor(request, request.GET.get(AFTER if newer else BEFORE, ""))
        self.page = self.keyset_query.page(self.list_per_page, cursor=cursor, newer=newer and cursor is not None)
        self.result_list = self.page.rows
        self.options.prepare(self.result_list)
        self.newest_link = self.get_query_string() if cursor else None
        self.newer_link = self.get_query_string({AFTER: self.page.newer}) if self.page.newer else None
        self.older_link = self.get_query_string({BEFORE: self.page.older}) if self.page.older else None
        self.result_count = self.full_result_count = len(self.result_list)
        self.show_full_result_count = self.can_show_all = self.multi_page = False
        self.show_admin_actions = True
        self.paginator = None

    def parse_cursor(self, request: HttpRequest, text: str) -> Cursor | None:
        try:
            return Cursor.parse(text, self.keyset_query.key, self.model) if text else None
        except ValueError:
            messages.warning(request, "Page not found; showing the newest rows.")
            return None
