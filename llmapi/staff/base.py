"""What the admin pages of every app share: history is for reading, by key, and prompts only for those who may."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import label_for_field, unquote
from django.core.exceptions import BadRequest, ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path
from django.utils.text import capfirst

from chat import audit
from llmapi.staff.lists import export as exports
from llmapi.staff.lists.changelist import KeysetChangeList
from llmapi.staff.lists.keyset import Key, own_value

admin.site.site_title = admin.site.site_header = "llmapi"
admin.site.index_title = "Conversations, usage and access"
admin.site.site_url = "/"


class KeysetAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """A list that may be as long as it likes, and can be exported as it is filtered."""

    change_list_template = "llmapi/list.html"
    list_per_page = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    # The indexes that lists are read along, the most selective first; the last is of all rows.
    list_keys: Sequence[Key] = (Key(by_time=False),)
    # Columns of the export, and those of them that only some of the staff may read.
    export_columns: Sequence[str] = ()
    private: Sequence[str] = ()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(
            request, {"title": capfirst(self.opts.verbose_name_plural), **(extra_context or {})}
        )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[KeysetChangeList]:
        return KeysetChangeList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Filters alone: any other lookup would scan the table, or answer questions about a text that is hidden."""
        return lookup in {"from", "to", *(getattr(spec, "parameter_name", "") for spec in self.list_filter)}

    def search(self, term: str) -> dict[str, Any]:
        """The column, and what it must hold, that a search for `term` means."""
        return {}

    def prepare(self, rows: list[Any]) -> None:
        """Put on the rows of one page what they show beyond their columns, in a bounded number of queries."""

    def get_urls(self) -> list[URLPattern]:
        export = path("export/", self.admin_site.admin_view(self.export), name=f"{self.url_name}_export")
        return [export, *super().get_urls()]

    @property
    def url_name(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}"

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """None of what no key can be; PostgreSQL would fail at it."""
        try:
            own_value(self.model, "pk", unquote(object_id))
        except ValidationError:
            return None
        # `?_to_field=` names no field.
        return super().get_object(request, object_id, from_field or None)

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any) -> Any:
        try:
            for text in request.POST.getlist(ACTION_CHECKBOX_NAME):
                own_value(self.model, "pk", text)
        except ValidationError as exc:
            raise BadRequest("Rows are chosen by their keys.") from exc
        return super().response_action(request, queryset, *args, **kwargs)

    def export(self, request: HttpRequest) -> HttpResponseBase:
        """What the list shows with these filters, as CSV."""
        return exports.export(self, request)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_fields(request, obj)
        return fields if audit.may_read(request.user) else [name for name in fields if name not in self.private]

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        obj: Model | None = kwargs.get("obj")
        if obj is not None and self.private:
            self.account_for(request, context, obj)
        return super().render_change_form(request, context, **kwargs)

    def account_for(self, request: HttpRequest, context: dict[str, Any], obj: Model) -> None:
        """Record that somebody reads, before anything is shown: where it cannot be written, nothing is."""
        if audit.may_read(request.user):
            audit.record(request.user, audit.Action.READ, *self.read(obj), request.GET.urlencode())
        else:
            context["hidden"] = [label_for_field(name, self.opts.model) for name in self.private]

    def read(self, obj: Any) -> tuple[str, str]:
        """The table and the row that somebody reads who sees this one."""
        return self.opts.db_table, str(obj.pk)


class ReadOnlyAdmin(KeysetAdmin):
    change_form_template = "llmapi/row.html"
    actions = None

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
