"""Analytics events: what happened, and to whom."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from analytics.models import AnalyticsEvent
from llmapi.staff.base import ReadOnlyAdmin
from llmapi.staff.lists.filters import (
    ClientFilter,
    ColumnFilter,
    DayFilter,
    ModelFilter,
    distinct_choices,
    link_filter,
)
from llmapi.staff.lists.keyset import Key
from llmapi.staff.lists.links import RowLinks


class EventFilter(ColumnFilter):
    title = parameter_name = "event"
    column = "event_name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return distinct_choices(AnalyticsEvent, "event_name")


@admin.register(AnalyticsEvent)
class AnalyticsEventAdmin(RowLinks, ReadOnlyAdmin):
    list_display = ["event_name", "created_at", "user_and_client", "conversation", "turn", "model", "app_version"]
    list_filter = [
        *(DayFilter, EventFilter, ClientFilter, ModelFilter),
        link_filter("user_id", "user"),
        link_filter("request_id", "request"),
        link_filter("conversation_id", "conversation"),
        link_filter("app_version", "app_version", "app version"),
    ]
    list_keys = [Key("user_id"), Key("event_name"), Key()]
    search_fields = ["user_id"]
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

    def search_terms(self, text: str) -> dict[str, Any]:
        return {"user_id": text}
