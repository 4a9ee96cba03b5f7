"""What the admin pages of every app share: history is for reading, and nothing counts a whole table."""

from functools import cached_property
from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.http import HttpRequest

admin.site.site_title = admin.site.site_header = "llmapi"
admin.site.index_title = "Conversations, usage and access"
admin.site.site_url = "/"


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts at most so many rows: pages further back are found by a filter or a search."""

    most = 10_000

    @cached_property
    def count(self) -> int:
        bounded: int = self.object_list.order_by()[: self.most].count()  # type: ignore[attr-defined]
        return bounded


class BoundedAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    paginator = BoundedPaginator
    show_full_result_count = False
    list_per_page = 50
    list_max_show_all = 0
    show_facets = admin.ShowFacets.NEVER


class ReadOnlyAdmin(BoundedAdmin):
    actions = None

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
