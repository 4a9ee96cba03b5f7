from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.cache import add_never_cache_headers
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from analytics.models import UsageEvent
from chat import audit
from chat.models import AuditRecord, Budget, ClientToken, Conversation, IdempotencyKey
from llmapi.staff import spending, threads
from llmapi.staff.base import KeysetAdmin, ReadOnlyAdmin
from llmapi.staff.lists.filters import ClientFilter, DayFilter, StatusFilter, YesNoFilter, by
from llmapi.staff.lists.keyset import Key
from llmapi.staff.lists.links import RowLinks, conversation_url, link


class ActiveFilter(YesNoFilter):
    title = "active"
    parameter_name = column = "is_active"


class MetricsFilter(YesNoFilter):
    title = "can read metrics"
    parameter_name = column = "can_read_metrics"


@admin.register(ClientToken)
class ClientTokenAdmin(KeysetAdmin):
    list_display = ["name", "prefix", "is_active", "this_month", "budgets", "requests_per_minute", "expires_at"]
    list_filter = [ActiveFilter, MetricsFilter]
    search_fields = ["name"]
    search_help_text = "A part of the name, or the token's first characters."
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
    export_columns = [
        *("id", "name", "prefix", "is_active", "can_read_metrics", "rate_limit_per_min", *ClientToken.SPENDING),
        *("expires_at", "created_at"),
    ]

    def search(self, term: str) -> dict[str, Any]:
        return {"prefix": term[:9]} if term.startswith("llm_") else {"name__icontains": term}

    def prepare(self, rows: list[Any]) -> None:
        spending.put_on(rows)

    @admin.display(description="this month (UTC)")
    def this_month(self, client: ClientToken) -> str:
        return spending.spent_text(client)

    @admin.display(description="of its budgets", empty_value="–")
    def budgets(self, client: ClientToken) -> SafeString | None:
        return spending.budgets_text(client)

    def get_urls(self) -> list[URLPattern]:
        rotate = self.admin_site.admin_view(require_POST(self.rotate))
        return [path("<int:pk>/rotate/", rotate, name="chat_clienttoken_rotate"), *super().get_urls()]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Conversations and costs name their token; it is revoked, not deleted."""
        return False

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        if client := kwargs.get("obj"):
            spending.put_on([client])
            context["spent"] = spending.spent_text(client)
        return super().render_change_form(request, context, **kwargs)

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
        for client in queryset:
            self.log_change(request, client, "Revoked the token.")
        revoked = queryset.update(is_active=False)
        messages.success(request, f"{revoked} client tokens revoked; their next request is refused.")


class UnitFilter(StatusFilter):
    title = parameter_name = column = "unit"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("turns", "Turns at once"), ("tokens", "Tokens"), ("nanos", "Dollars")]


@admin.register(Budget)
class BudgetAdmin(RowLinks, ReadOnlyAdmin):
    list_display = ["period", "client", "user", "used_of_most", "resets_at"]
    list_display_links = ["period"]
    list_filter = [ClientFilter, UnitFilter, by("user_id", "user")]
    search_fields = ["user_id"]
    search_help_text = "A user, exactly."
    fields = ["period", "client", "user", "used_of_most", "resets_at"]
    export_columns = ["client_token_id", "user_id", "unit", "period", "used", "most", "resets_at"]

    def search(self, term: str) -> dict[str, Any]:
        return {"user_id": term}

    @admin.display(description="used")
    def used_of_most(self, budget: Budget) -> str:
        return spending.of_most(budget.unit, budget.used, budget.most)


@admin.register(Conversation)
class ConversationAdmin(RowLinks, ReadOnlyAdmin):
    change_form_template = "admin/chat/conversation/change_form.html"
    list_display = ["conversation_id", "created_at", "client", "user", "updated_at"]
    list_filter = [DayFilter, ClientFilter, by("user_id", "user")]
    list_keys = [Key("conversation_id", by_time=False), Key("user_id"), Key("client_token_id"), Key()]
    search_fields = ["conversation_id"]
    search_help_text = "A conversation (c_…) or a user, exactly."
    fields = ["conversation_id", "client", "user", "metadata", "created_at", "updated_at"]
    private = ["metadata"]
    export_columns = ["conversation_id", "client_token_id", "user_id", "created_at", "updated_at", "metadata"]

    class Media:
        css = {"all": ["llmapi/conversation.css"]}

    def search(self, term: str) -> dict[str, Any]:
        return {"conversation_id" if term.startswith("c_") else "user_id": term}

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        response = super().render_change_form(request, context, **kwargs)
        # By now it is on record that the thread is read.
        response.context_data["thread"] = threads.thread(kwargs["obj"], request.GET, audit.may_read(request.user))
        return response


@admin.register(IdempotencyKey)
class IdempotencyKeyAdmin(RowLinks, ReadOnlyAdmin):
    list_display = ["idempotency_key", "created_at", "client", "turn", "is_answered", "locked_until"]
    list_filter = [DayFilter, ClientFilter]
    list_keys = [
        # Its index begins with the client, and clients are few.
        Key("idempotency_key", by_time=False, condition=Q(client_token__in=ClientToken.objects.all())),
        Key(),
    ]
    search_fields = ["idempotency_key"]
    search_help_text = "A key or a request (r_…), exactly."
    fields = ["idempotency_key", "created_at", "client", "turn", "request_hash", "locked_until", "response_json"]
    # A hash of the request tells whether a guess at a prompt is right.
    private = ["response_json", "request_hash"]
    # Not the answers: each may be as long as a reply.
    export_columns = ["idempotency_key", "client_token_id", "request_id", "created_at", "locked_until"]

    def search(self, term: str) -> dict[str, Any]:
        return {"request_id" if term.startswith("r_") else "idempotency_key": term}

    def read(self, obj: Any) -> tuple[str, str]:
        """A stored answer is the reply of a conversation: who asks who has read that finds it."""
        turn = UsageEvent.objects.filter(request_id=obj.request_id).only("conversation_id").first()
        if turn and turn.conversation_id:
            return Conversation._meta.db_table, turn.conversation_id
        return super().read(obj)

    def get_queryset(self, request: HttpRequest) -> QuerySet[IdempotencyKey]:
        is_answered = ExpressionWrapper(Q(response_json__isnull=False), BooleanField())
        rows: QuerySet[IdempotencyKey] = super().get_queryset(request)
        return rows.annotate(is_answered=is_answered)

    @admin.display(boolean=True, description="answered")
    def is_answered(self, row: Any) -> bool:
        return bool(row.is_answered)


class ActionFilter(StatusFilter):
    title = parameter_name = column = "action"


@admin.register(AuditRecord)
class AuditRecordAdmin(ReadOnlyAdmin):
    list_display = ["created_at", "staff_name", "action", "subject", "what", "detail"]
    list_filter = [DayFilter, ActionFilter, by("staff_name", "staff", "who")]
    list_keys = [Key("subject_id", by_time=False), Key(by_time=False)]
    search_fields = ["subject_id"]
    search_help_text = "A conversation (c_…) or the key of another row, exactly."
    fields = ["created_at", "staff_name", "staff_id", "action", "subject", "what", "detail"]
    export_columns = ["created_at", "staff_id", "staff_name", "action", "subject", "subject_id", "detail"]

    def search(self, term: str) -> dict[str, Any]:
        return {"subject_id": term}

    @admin.display(description="which")
    def what(self, row: AuditRecord) -> SafeString | str:
        is_conversation = row.subject == Conversation._meta.db_table and row.subject_id
        return link(conversation_url(row.subject_id), row.subject_id) if is_conversation else row.subject_id
