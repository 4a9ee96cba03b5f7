"""The page of one user: usage, budgets, the newest turns, conversations and events, and links to the lists of all."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from analytics.metrics import single_user as person
from analytics.metrics import sources as reading
from analytics.models import AnalyticsEvent, UsageEvent
from analytics.query import Window
from chat.models import ClientToken, Conversation
from llmapi.staff.base import KeysetAdmin
from llmapi.staff.client_tokens import budgets_of
from llmapi.staff.lists.keyset import parse_value
from llmapi.staff.lists.links import list_url
from llmapi.staff.totals import is_summed, money

NEWEST = 10
MAX_ROWS = 100
PERIODS = (1, 7, 30, 90, 365)


@dataclass(frozen=True)
class Row:
    client: Any
    model: str
    turns: int
    tokens: int
    cost: str
    url: str = ""


def page(model_admin: KeysetAdmin, request: HttpRequest) -> HttpResponse:
    if not model_admin.has_view_or_change_permission(request):
        raise PermissionDenied
    user_id = user_id_of(request)
    days_text = request.GET.get("days", "")
    days = int(days_text) if days_text in map(str, PERIODS) else 30
    window = Window.last_days(days)
    found = person.bought(user_id, window) if is_summed(window) else None
    turns = list(UsageEvent.objects.filter(user_id=user_id).order_by("-created_at", "-pk")[:NEWEST])
    clients = ClientToken.objects.in_bulk({turn.client_token_id for turn in turns} | {pk for pk, _ in found or ()})
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": f"User {user_id}",
        "user_id": user_id,
        "days": days,
        "as_of": window.as_of,
        "periods": PERIODS,
        "first_day": person.first_day(user_id),
        "rows": None if found is None else usage_rows(user_id, window, found, clients),
        "total": None if found is None else usage_row("", "", sum(found.values(), Counter())),
        "turns": turns,
        **other_tables(user_id, request, clients),
    }
    return TemplateResponse(request, "admin/analytics/usageevent/user.html", context)


def user_id_of(request: HttpRequest) -> str:
    try:
        user_id: str = parse_value(UsageEvent, "user_id", request.GET.get("user", ""))
    except ValidationError as exc:
        raise Http404 from exc
    if not user_id:
        raise Http404
    return user_id


def other_tables(user_id: str, request: HttpRequest, clients: dict[int, ClientToken]) -> dict[str, Any]:
    """Return the newest conversations and events, and the budgets: each only for staff who may see it."""
    has_perm = request.user.has_perm
    found: dict[str, Any] = {}
    if has_perm("chat.view_conversation"):
        rows = Conversation.objects.filter(user_id=user_id).select_related("client_token").defer("metadata")
        found["conversations"] = list(rows.order_by("-created_at", "-pk")[:NEWEST])
    if has_perm("analytics.view_analyticsevent"):
        events = AnalyticsEvent.objects.filter(user_id=user_id).defer("metadata_json")
        found["events"] = list(events.order_by("-created_at", "-pk")[:NEWEST])
    if has_perm("chat.view_clienttoken"):
        spent = budgets_of(list(clients.values()), user_id)
        found["budgets"] = [(clients[pk], budget) for pk, budgets in spent.items() for budget in budgets]
    return found


def usage_rows(
    user_id: str, window: Window, found: dict[reading.Key, Counter[str]], clients: dict[int, ClientToken]
) -> list[Row]:
    largest = sorted(found.items(), key=lambda row: -row[1]["total_tokens"])[:MAX_ROWS]
    return [
        usage_row(
            clients.get(pk, pk),
            model,
            figures,
            list_url("analytics_usageevent", user=user_id, client=pk, model=model, **{"from": window.first}),
        )
        for (pk, model), figures in largest
    ]


def usage_row(client: Any, model: str, figures: Counter[str], url: str = "") -> Row:
    return Row(client, model, figures["completed"], figures["total_tokens"], money(reading.dollars(figures)), url)
