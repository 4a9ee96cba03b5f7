"""Idempotency keys of clients, and whether their requests have been answered."""

from typing import Any

from django.contrib import admin
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.http import HttpRequest

from analytics.models import UsageEvent
from chat.models import ClientToken, Conversation, IdempotencyKey
from llmapi.staff.base import ReadOnlyAdmin
from llmapi.staff.lists.filters import ClientFilter, DayFilter
from llmapi.staff.lists.keyset import Key
from llmapi.staff.lists.links import RowLinks


@admin.register(IdempotencyKey)
class IdempotencyKeyAdmin(RowLinks, ReadOnlyAdmin):
    list_display = ["idempotency_key", "created_at", "client", "turn", "is_answered", "locked_until"]
    list_filter = [DayFilter, ClientFilter]
    list_keys = [
        # The index begins with the client token. There are few of them, so the query names them all.
        Key("idempotency_key", by_time=False, condition=Q(client_token__in=ClientToken.objects.all())),
        Key(),
    ]
    search_columns = {"r_": "request_id", "": "idempotency_key"}
    search_help_text = "Search for a key or a request (r_…), by the exact text."
    fields = ["idempotency_key", "created_at", "client", "turn", "request_hash", "locked_until", "response_json"]
    # The hash is private too: with it, staff could check a guess at a prompt.
    private = ["response_json", "request_hash"]
    # Without the stored responses: each may be as long as a reply.
    export_columns = ["idempotency_key", "client_token_id", "request_id", "created_at", "locked_until"]

    def audit_subject(self, obj: Any) -> tuple[str, str]:
        """Name the conversation: the stored response is a reply of it, and reading it is reading the conversation."""
        turn = UsageEvent.objects.filter(request_id=obj.request_id).only("conversation_id").first()
        if turn and turn.conversation_id:
            return Conversation._meta.db_table, turn.conversation_id
        return super().audit_subject(obj)

    def get_queryset(self, request: HttpRequest) -> QuerySet[IdempotencyKey]:
        is_answered = ExpressionWrapper(Q(response_json__isnull=False), BooleanField())
        rows: QuerySet[IdempotencyKey] = super().get_queryset(request)
        return rows.annotate(is_answered=is_answered)

    @admin.display(boolean=True, description="answered")
    def is_answered(self, row: Any) -> bool:
        return bool(row.is_answered)
