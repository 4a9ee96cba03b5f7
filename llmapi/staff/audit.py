"""The audit log: which member of the staff has read texts of users, or exported a table."""

from typing import Any

from django.contrib import admin
from django.utils.safestring import SafeString

from chat.models import AuditRecord, Conversation
from llmapi.staff.base import ReadOnlyAdmin
from llmapi.staff.lists.filters import ChoicesFilter, DayFilter, link_filter
from llmapi.staff.lists.keyset import Key
from llmapi.staff.lists.links import conversation_link


class ActionFilter(ChoicesFilter):
    title = parameter_name = column = "action"


@admin.register(AuditRecord)
class AuditRecordAdmin(ReadOnlyAdmin):
    list_display = ["time", "staff_user", "action", "table", "row", "detail"]
    list_filter = [DayFilter, ActionFilter, link_filter("staff_name", "staff", "user")]
    list_keys = [Key("subject_id", by_time=False), Key(by_time=False)]
    search_fields = ["subject_id"]
    search_help_text = "Search for a conversation (c_…) or the key of another row, by the exact text."
    fields = ["time", "staff_user", "staff_id", "action", "table", "row", "detail"]
    export_columns = ["created_at", "staff_id", "staff_name", "action", "subject", "subject_id", "detail"]

    def search_terms(self, text: str) -> dict[str, Any]:
        return {"subject_id": text}

    # Methods, because the fields have other titles, which are part of the migrations.
    @admin.display(description="time")
    def time(self, record: AuditRecord) -> Any:
        return record.created_at

    @admin.display(description="user")
    def staff_user(self, record: AuditRecord) -> str:
        return record.staff_name

    @admin.display(description="table")
    def table(self, record: AuditRecord) -> str:
        return record.subject

    @admin.display(description="row")
    def row(self, record: AuditRecord) -> SafeString | str:
        is_conversation = record.subject == Conversation._meta.db_table and record.subject_id
        return conversation_link(record.subject_id) if is_conversation else record.subject_id
