from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path

from analytics.metrics.sources import NANOS_PER_DOLLAR
from analytics.models import BROKEN, AnalyticsEvent, UsageEvent
from llmapi.staff import breakdown, totals
from llmapi.staff import users as people
from llmapi.staff.base import ReadOnlyAdmin
from llmapi.staff.lists.filters import ClientFilter, ColumnFilter, DayFilter, StatusFilter, by, distinct
from llmapi.staff.lists.keyset import Key
from llmapi.staff.lists.links import RowLinks
from llmapi.templatetags.thousands import figure

Status = UsageEvent.Status


class ModelFilter(ColumnFilter):
    title = parameter_name = column = "model"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in distinct(UsageEvent, "model")]


class EventFilter(ColumnFilter):
    title = parameter_name = "event"
    column = "event_name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in distinct(AnalyticsEvent, "event_name")]


@admin.register(UsageEvent)
class UsageEventAdmin(RowLinks, ReadOnlyAdmin):
    change_list_template = "admin/analytics/usageevent/list.html"
    list_display = [
        *("request_id", "created_at", "outcome", "whose", "model", "tokens", "cost", "took", "conversation"),
    ]
    list_filter = [
        *(DayFilter, StatusFilter, ClientFilter, ModelFilter),
        *(
            by("user_id", "user"),
            by("conversation_id", "conversation"),
            by("app_version", "app_version", "app version"),
        ),
    ]
    list_keys = [
        Key("request_id", by_time=False),
        Key("conversation_id", by_time=False),
        Key("user_id"),
        Key("status", only=frozenset({Status.FAILED, Status.ABANDONED}), condition=BROKEN),
        Key("client_token_id"),
        Key("model"),
        Key(),
    ]
    search_fields = ["request_id"]
    search_help_text = "A request (r_…), a conversation (c_…) or a user, exactly."
    fields = [
        *("request_id", "created_at", "finished_at", "status", "error_code"),
        *("client", "user", "conversation", "events", "model", "app_version"),
        *("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "total_tokens", "is_estimated"),
        *("cost", "latency_ms", "first_token_ms", "is_stream", "is_cancel_asked", "locked_until"),
    ]
    export_columns = [
        *("request_id", "created_at", "finished_at", "status", "error_code", "client_token_id", "user_id"),
        *("conversation_id", "model", "app_version", "prompt_tokens", "cached_tokens", "completion_tokens"),
        *("reasoning_tokens", "total_tokens", "is_estimated", "cost_usd", "latency_ms", "first_token_ms", "is_stream"),
    ]

    def search(self, term: str) -> dict[str, Any]:
        column = {"r_": "request_id", "c_": "conversation_id"}.get(term[:2], "user_id")
        return {column: term}

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("breakdown/", view(self.breakdown), name="analytics_usageevent_breakdown"),
            path("user/", view(self.user_page), name="analytics_usageevent_user"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        page = super().changelist_view(request, extra_context)
        if changelist := getattr(page, "context_data", {}).get("cl"):
            page.context_data["totals"] = totals.of_list(changelist)  # type: ignore[attr-defined]
        return page

    def breakdown(self, request: HttpRequest) -> HttpResponse:
        return breakdown.page(self, request)

    def user_page(self, request: HttpRequest) -> HttpResponse:
        return people.page(self, request)

    @admin.display(description="status")
    def outcome(self, row: UsageEvent) -> str:
        return f"{row.status}: {row.error_code}" if row.error_code not in ("", row.status) else row.status

    @admin.display(description="tokens")
    def tokens(self, row: UsageEvent) -> str:
        return figure(row.total_tokens)

    @admin.display(description="ms")
    def took(self, row: UsageEvent) -> str:
        return figure(row.latency_ms)

    @admin.display(description="cost (USD)")
    def cost(self, row: UsageEvent) -> str:
        return "–" if row.cost_nanos is None else f"{row.cost_nanos / NANOS_PER_DOLLAR:.6f}"

    def cost_usd(self, row: UsageEvent) -> Decimal | None:
        """The same, exactly; null where the price is unknown."""
        return None if row.cost_nanos is None else Decimal(row.cost_nanos) / NANOS_PER_DOLLAR


@admin.register(AnalyticsEvent)
class AnalyticsEventAdmin(RowLinks, ReadOnlyAdmin):
    list_display = ["event_name", "created_at", "whose", "conversation", "turn", "model", "app_version"]
    list_filter = [
        *(DayFilter, EventFilter, ClientFilter, ModelFilter),
        *(by("user_id", "user"), by("request_id", "request"), by("conversation_id", "conversation")),
        by("app_version", "app_version", "app version"),
    ]
    list_keys = [Key("user_id"), Key("event_name"), Key()]
    search_fields = ["user_id"]
    search_help_text = "A user, exactly."
    fields = [
        *(
            "event_name",
            "created_at",
            "client",
            "user",
            "conversation",
            "turn",
            "model",
            "app_version",
            "metadata_json",
        ),
    ]
    private = ["metadata_json"]
    export_columns = [
        *("event_name", "created_at", "client_token_id", "user_id", "conversation_id", "request_id", "model"),
        *("app_version", "metadata_json"),
    ]

    def search(self, term: str) -> dict[str, Any]:
        return {"user_id": term}
