"""Analytics events: what happened, and to whom."""

from django.contrib import admin

from analytics.models import AnalyticsEvent
from llmapi.staff.base import ReadOnlyAdmin
from llmapi.staff.lists import filters
from llmapi.staff.lists.keyset import Key
from llmapi.staff.lists.links import RowLinks


@admin.register(AnalyticsEvent)
class AnalyticsEventAdmin(RowLinks, ReadOnlyAdmin):
    list_display = ["event_name", "created_at", "user_and_client", "conversation", "turn", "model", "app_version"]
    list_filter = [
        *(filters.DayFilter, filters.DistinctFilter.of("event_name", "event", source=AnalyticsEvent)),
        *(filters.ClientFilter, filters.ModelFilter, filters.UserFilter),
        *(filters.ColumnFilter.of("request_id", "request"), filters.ConversationFilter, filters.VersionFilter),
    ]
    list_keys = [Key("user_id"), Key("event_name"), Key()]
    search_columns = {"": "user_id"}
    search_help_text = "Search for a user, by the exact id."
    fields = [
        *("event_name", "created_at", "client", "user", "conversation", "turn", "model", "app_version"),
        "metadata_json",
    ]
    private = ["metadata_json"]
    export_columns = [
        *("event_name", "created_at", "client_token_id", "user_id", "conversation_id", "request_id", "model"),
        *("app_version", "metadata_json"),
    ]
