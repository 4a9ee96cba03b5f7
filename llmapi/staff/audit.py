"""The audit log: which member of the staff has read texts of users, or exported a table."""

from django.contrib import admin
from django.utils.safestring import SafeString

from chat.models import AuditRecord, Conversation
from llmapi.staff.base import ReadOnlyAdmin, column
from llmapi.staff.lists.filters import ChoicesFilter, ColumnFilter, DayFilter
from llmapi.staff.lists.keyset import Key
from llmapi.staff.lists.links import conversation_link


@admin.register(AuditRecord)
class AuditRecordAdmin(ReadOnlyAdmin):
    list_display = ["time", "staff_user", "action", "table", "row", "detail"]
    list_filter = [DayFilter, ChoicesFilter.of("action"), ColumnFilter.of("staff_name", "staff", "user")]
    list_keys = [Key("subject_id", by_time=False), Key(by_time=False)]
    search_columns = {"": "subject_id"}
    search_help_text = "Search for a conversation (c_…) or the key of another row, by the exact text."
    fields = ["time", "staff_user", "staff_id", "action", "table", "row", "detail"]
    export_columns = ["created_at", "staff_id", "staff_name", "action", "subject", "subject_id", "detail"]

    time, staff_user, table = column("created_at", "time"), column("staff_name", "user"), column("subject", "table")

    @admin.display(description="row")
    def row(self, record: AuditRecord) -> SafeString | str:
        is_conversation = record.subject == Conversation._meta.db_table and record.subject_id
        return conversation_link(record.subject_id) if is_conversation else record.subject_id
