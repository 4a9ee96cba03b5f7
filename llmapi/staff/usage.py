"""Usage events, one for each turn: the list, its totals, and the pages of figures that belong to it."""

from decimal import Decimal
from functools import partial
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path

from analytics.formatting import NANOS_PER_DOLLAR, format_value
from analytics.models import BROKEN, UsageEvent
from analytics.replica import ReplicaUnavailable
from llmapi.staff import breakdown, totals, users
from llmapi.staff.base import ReadOnlyAdmin, column
from llmapi.staff.lists import filters
from llmapi.staff.lists.keyset import Key
from llmapi.staff.lists.links import RowLinks

Status = UsageEvent.Status


@admin.register(UsageEvent)
class UsageEventAdmin(RowLinks, ReadOnlyAdmin):
    change_list_template = "admin/analytics/usageevent/list.html"
    list_display = [
        *("request_id", "created_at", "outcome", "user_and_client", "model", "tokens", "cost", "latency"),
        "conversation",
    ]
    list_filter = [
        *(filters.DayFilter, filters.ChoicesFilter.of("status"), filters.ClientFilter, filters.ModelFilter),
        *(filters.UserFilter, filters.ConversationFilter, filters.VersionFilter),
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
    search_columns = {"r_": "request_id", "c_": "conversation_id", "": "user_id"}
    search_help_text = "Search for a request (r_…), a conversation (c_…) or a user, by the exact id."
    fields = [
        *("request_id", "created_at", "finished_at", "status", "error_code"),
        *("client", "user", "conversation", "events", "model", "served_model", "service_tier", "app_version"),
        *("prompt_tokens", "cached_tokens", "cache_write_tokens", "completion_tokens", "reasoning_tokens"),
        *("total_tokens", "is_estimated"),
        *("cost", "latency_ms", "first_token_ms", "is_stream", "is_cancel_asked", "locked_until"),
    ]
    export_columns = [
        *("request_id", "created_at", "finished_at", "status", "error_code", "client_token_id", "user_id"),
        *("conversation_id", "model", "served_model", "service_tier", "app_version", "prompt_tokens", "cached_tokens"),
        *("cache_write_tokens", "completion_tokens"),
        *("reasoning_tokens", "total_tokens", "is_estimated", "cost_usd", "latency_ms", "first_token_ms", "is_stream"),
    ]

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("breakdown/", view(partial(breakdown.page, self)), name="analytics_usageevent_breakdown"),
            path("user/", view(partial(users.page, self)), name="analytics_usageevent_user"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        page: Any = super().changelist_view(request, extra_context)
        if changelist := getattr(page, "context_data", {}).get("cl"):
            try:
                page.context_data["totals"] = totals.list_totals(changelist)
            except ReplicaUnavailable as exc:
                page.context_data["totals"] = totals.Totals([], str(exc))
            page.context_data["has_breakdown"] = changelist.filter_values.keys() <= totals.ROLLED_UP
        return page  # type: ignore[no-any-return]

    @admin.display(description="status")
    def outcome(self, row: UsageEvent) -> str:
        return f"{row.status}: {row.error_code}" if row.error_code not in ("", row.status) else row.status

    tokens, latency = column("total_tokens", "tokens", format_value), column("latency_ms", "ms", format_value)

    @admin.display(description="cost (USD)")
    def cost(self, row: UsageEvent) -> str:
        return "–" if row.cost_nanos is None else f"{row.cost_nanos / NANOS_PER_DOLLAR:.6f}"

    def cost_usd(self, row: UsageEvent) -> Decimal | None:
        """Return the exact cost for the export. It is None if the price is unknown."""
        return None if row.cost_nanos is None else Decimal(row.cost_nanos) / NANOS_PER_DOLLAR
