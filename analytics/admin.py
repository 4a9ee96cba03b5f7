from django.contrib import admin

from analytics.models import AnalyticsEvent, UsageEvent
from analytics.reading import NANOS_PER_DOLLAR
from llmapi.admin import ReadOnlyAdmin


@admin.register(UsageEvent)
class UsageEventAdmin(ReadOnlyAdmin):
    list_display = [
        "request_id",
        "created_at",
        "status",
        "user_id",
        "model",
        "total_tokens",
        "cost_usd",
        "latency_ms",
    ]
    list_filter = ["status", "created_at"]
    search_fields = ["=request_id", "=conversation_id"]
    ordering = ["-created_at"]

    @admin.display(description="cost (USD)")
    def cost_usd(self, row: UsageEvent) -> str:
        return "–" if row.cost_nanos is None else f"{row.cost_nanos / NANOS_PER_DOLLAR:.6f}"


@admin.register(AnalyticsEvent)
class AnalyticsEventAdmin(ReadOnlyAdmin):
    list_display = ["event_name", "created_at", "user_id", "conversation_id", "request_id"]
    list_filter = ["created_at"]
    search_fields = ["=user_id", "=event_name"]
    ordering = ["-created_at"]
