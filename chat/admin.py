from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.cache import add_never_cache_headers
from django.views.decorators.http import require_POST

from chat.models import Budget, ClientToken, Conversation, IdempotencyKey, Message
from llmapi.admin import BoundedAdmin, ReadOnlyAdmin

THREAD_MESSAGES = 200


@admin.register(ClientToken)
class ClientTokenAdmin(BoundedAdmin):
    list_display = [
        "name",
        "prefix",
        "is_active",
        "requests_per_minute",
        "can_read_metrics",
        "expires_at",
        "created_at",
    ]
    list_filter = ["is_active", "can_read_metrics"]
    search_fields = ["name", "=prefix"]
    ordering = ["-id"]
    fieldsets = [
        (None, {"fields": ["name", "prefix", "is_active", "can_read_metrics", "expires_at", "created_at"]}),
        (
            "Limits",
            {
                "fields": ["rate_limit_per_min", *ClientToken.SPENDING],
                "description": "Days and months are UTC. A turn is refused where the most that it can use is not left.",
            },
        ),
    ]
    readonly_fields = ["prefix", "created_at"]
    actions = ["revoke"]

    def get_urls(self) -> list[URLPattern]:
        rotate = self.admin_site.admin_view(require_POST(self.rotate))
        return [path("<int:pk>/rotate/", rotate, name="chat_clienttoken_rotate"), *super().get_urls()]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Conversations and costs name their token; it is revoked, not deleted."""
        return False

    def save_model(self, request: HttpRequest, obj: ClientToken, form: Any, change: bool) -> None:
        if not change:
            request.new_token = obj.renew()  # type: ignore[attr-defined]
        super().save_model(request, obj, form, change)

    def response_add(
        self, request: HttpRequest, obj: ClientToken, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self.show_token(request, obj, request.new_token)  # type: ignore[attr-defined]

    def rotate(self, request: HttpRequest, pk: int) -> HttpResponse:
        client = get_object_or_404(ClientToken, pk=pk)
        if not self.has_change_permission(request, client):
            raise PermissionDenied
        if client.is_setting:
            messages.error(request, "This token is what the setting CLIENT_API_TOKEN says; change it there.")
            return redirect(reverse("admin:chat_clienttoken_change", args=[pk]))
        token = client.renew()
        client.save(update_fields=["digest", "prefix"])
        self.log_change(request, client, "Rotated the token.")
        return self.show_token(request, client, token)

    def show_token(self, request: HttpRequest, client: ClientToken, token: str) -> HttpResponse:
        """In the page itself, which no cache keeps: a message would store the token in a session or a cookie."""
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "client": client,
            "token": token,
            "title": f"The token of {client.name}",
        }
        response = TemplateResponse(request, "admin/chat/clienttoken/token.html", context)
        add_never_cache_headers(response)
        return response

    @admin.action(description="Revoke selected client tokens", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ClientToken]) -> None:
        revoked = queryset.update(is_active=False)
        messages.success(request, f"{revoked} client tokens revoked; their next request is refused.")


@admin.register(Budget)
class BudgetAdmin(ReadOnlyAdmin):
    list_display = ["client_token", "user_id", "unit", "period", "used", "most", "resets_at"]
    list_select_related = ["client_token"]
    list_filter = ["unit"]
    search_fields = ["=user_id", "=period"]
    ordering = ["-resets_at"]


@admin.register(Conversation)
class ConversationAdmin(ReadOnlyAdmin):
    list_display = ["conversation_id", "client_token", "user_id", "created_at", "updated_at"]
    list_select_related = ["client_token"]
    list_filter = ["created_at"]
    search_fields = ["=conversation_id", "=user_id"]
    ordering = ["-created_at"]
    fields = ["conversation_id", "client_token", "user_id", "metadata", "created_at", "updated_at"]

    class Media:
        css = {"all": ["chat/thread.css"]}

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        newest = Message.objects.filter(conversation_id=object_id).order_by("-id")
        thread = list(newest[: THREAD_MESSAGES + 1])
        context = {"thread": thread[:THREAD_MESSAGES][::-1], "is_cut": len(thread) > THREAD_MESSAGES}
        return super().change_view(request, object_id, form_url, context)


@admin.register(IdempotencyKey)
class IdempotencyKeyAdmin(ReadOnlyAdmin):
    list_display = ["idempotency_key", "client_token", "is_answered", "request_id", "locked_until", "created_at"]
    list_select_related = ["client_token"]
    list_filter = ["created_at"]
    search_fields = ["=idempotency_key", "=request_id"]
    ordering = ["-created_at"]

    @admin.display(boolean=True, description="answered")
    def is_answered(self, row: IdempotencyKey) -> bool:
        return row.response_json is not None
