"""What the admin pages share: lists are read by key, history is read-only, and texts need a permission."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import label_for_field, unquote
from django.core.exceptions import BadRequest, ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.text import capfirst

from analytics import ledger
from chat import audit
from llmapi.staff.lists.changelist import KeysetChangeList
from llmapi.staff.lists.export import ExportMixin
from llmapi.staff.lists.keyset import Key, parse_value


def column(field: str, title: str, write: Callable[[Any], Any] = lambda value: value) -> Callable[[Any, Any], Any]:
    """Make a column of a field with another title than the field has: that one is part of the migrations."""
    return admin.display(description=title)(lambda model_admin, row: write(getattr(row, field)))


class KeysetAdmin(ExportMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """The page of a table of any length, with an export of its list."""

    change_list_template = "llmapi/list.html"
    list_per_page = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    # Indexes that the list may be read along, the most selective first. The last one is over all rows.
    list_keys: Sequence[Key] = (Key(by_time=False),)
    # Columns that a search looks in, by the first two characters of the text; "" is for any other text.
    search_columns: Mapping[str, str] = {}
    # Only makes Django show the search.
    search_fields = ("pk",)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        title = capfirst(self.opts.verbose_name_plural)
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[KeysetChangeList]:
        return KeysetChangeList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Allow the filters of the list only. Other lookups would scan the table, or let staff guess hidden texts."""
        return lookup in {"from", "to", *(getattr(spec, "parameter_name", "") for spec in self.list_filter)}

    def search_terms(self, text: str) -> dict[str, Any]:
        """Return the column that a search for `text` looks in, and the value that it must have."""
        column = self.search_columns.get(text[:2], self.search_columns[""])
        return {column: ledger.normal_user_id(text) if column == "user_id" else text}

    def prepare(self, rows: list[Any]) -> None:
        """Add to the rows of one page what their columns do not hold, in a fixed number of queries."""

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return None for a key that no row can have. PostgreSQL would raise an error for it."""
        try:
            parse_value(self.model, "pk", unquote(object_id))
        except ValidationError:
            return None
        # An empty `?_to_field=` names no field.
        return super().get_object(request, object_id, from_field or None)

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any) -> Any:
        try:
            for text in request.POST.getlist(ACTION_CHECKBOX_NAME):
                parse_value(self.model, "pk", text)
        except ValidationError as exc:
            raise BadRequest("The selected rows cannot be read; open the list again and select them.") from exc
        return super().response_action(request, queryset, *args, **kwargs)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_fields(request, obj)
        return fields if audit.may_read(request.user) else [name for name in fields if name not in self.private]

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        obj: Model | None = kwargs.get("obj")
        if obj is not None and self.private:
            if audit.may_read(request.user):
                # Recorded before anything is shown: if the record cannot be written, nothing is shown.
                audit.record(request.user, audit.Action.READ, *self.audit_subject(obj), request.GET.urlencode())
            else:
                context["hidden"] = [label_for_field(name, self.opts.model) for name in self.private]
        return super().render_change_form(request, context, **kwargs)

    def render_page(self, request: HttpRequest, template: str, title: str, **context: Any) -> TemplateResponse:
        """Render a page that belongs to this table, beside those of Django."""
        shared = {**self.admin_site.each_context(request), "opts": self.opts, "title": title}
        return TemplateResponse(request, template, shared | context)

    def audit_subject(self, obj: Any) -> tuple[str, str]:
        """Return the table and the key that the audit record of reading `obj` names."""
        return self.opts.db_table, str(obj.pk)


class ReadOnlyAdmin(KeysetAdmin):
    change_form_template = "llmapi/row.html"
    actions = None

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_change_permission = has_delete_permission = has_add_permission
