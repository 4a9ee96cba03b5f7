"""The admin's list of a table that grows: read by key, counted by nobody."""

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG, ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest

from analytics.query import DAY, midnight
from llmapi.staff.breakdown import PARAMETERS
from llmapi.staff.lists.filters import ColumnFilter, DayFilter
from llmapi.staff.lists.keyset import Cursor, Page, Walk

if TYPE_CHECKING:
    from llmapi.staff.base import KeysetAdmin

BEFORE, AFTER = CURSORS = ("before", "after")


class KeysetChangeList(ChangeList):
    """One page towards the older rows (`?before=`) or the newer ones (`?after=`) of a place between two rows."""

    model_admin: "KeysetAdmin"
    walk: Walk
    page: Page
    asked: dict[str, Any]
    days: DayFilter | None
    result_list: list[Any]

    def get_filters(self, request: HttpRequest) -> Any:
        """Filters that are none show the whole list, as values do that cannot be read."""
        try:
            return super().get_filters(request)
        except DisallowedModelAdminLookup as exc:
            raise IncorrectLookupParameters from exc

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        # A place in the list is no filter, and no link but those of the pages keeps it.
        for name in CURSORS:
            self.params.pop(name, None)
            self.filter_params.pop(name, None)
        self.filter_specs, self.has_filters, _, _, self.has_active_filters = self.get_filters(request)
        self.clear_all_filters_qs = self.get_query_string(remove=list(self.get_filters_params()))
        columns = [spec for spec in self.filter_specs if isinstance(spec, ColumnFilter)]
        self.asked = {name: value for spec in columns for name, value in spec.asked.items()}
        sought = self.model_admin.search(self.query.strip()) if self.query.strip() else {}
        rows = self.apply_select_related(self.root_queryset).defer(*self.model_admin.private)
        if any(self.asked.get(name, value) != value for name, value in sought.items()):
            rows = rows.none()  # A filter asks for another value of the same column.
        self.asked |= sought
        self.days = next((spec for spec in self.filter_specs if isinstance(spec, DayFilter)), None)
        since, to = (self.days.since, self.days.to) if self.days else (None, None)
        self.walk = Walk.along(
            rows,
            self.model_admin.list_keys,
            self.asked,
            since=midnight(since) if since else None,
            before=midnight(to) + DAY if to else None,
        )
        return self.walk.everything

    def get_results(self, request: HttpRequest) -> None:
        if ERROR_FLAG in request.GET:
            messages.warning(request, "These filters cannot be read; this is the whole list.")
        newer = AFTER in request.GET
        cursor = self.cursor(request, request.GET.get(AFTER if newer else BEFORE, ""))
        self.page = self.walk.page(self.list_per_page, cursor=cursor, newer=newer and cursor is not None)
        self.is_first = cursor is None
        self.result_list = self.page.rows
        self.model_admin.prepare(self.result_list)
        self.result_count = self.full_result_count = len(self.result_list)
        self.show_full_result_count = self.can_show_all = self.multi_page = False
        self.show_admin_actions = True
        self.paginator = None

    def cursor(self, request: HttpRequest, text: str) -> Cursor | None:
        try:
            return Cursor.read(text, self.walk.key, self.model) if text else None
        except ValueError:
            messages.warning(request, "There is no such page of this list; this is the first.")
            return None

    @property
    def has_other_filters(self) -> bool:
        """Than those that the page of usage by client, model and user knows."""
        return not set(self.asked) <= set(PARAMETERS.values())

    @property
    def newest_link(self) -> str | None:
        return None if self.is_first else self.get_query_string()

    @property
    def newer_link(self) -> str | None:
        return self.get_query_string({AFTER: self.page.newer}) if self.page.newer else None

    @property
    def older_link(self) -> str | None:
        return self.get_query_string({BEFORE: self.page.older}) if self.page.older else None
