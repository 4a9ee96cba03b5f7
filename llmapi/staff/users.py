"""One user, and all that is theirs: what it adds up to, the newest of each kind, and the way to the rest."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from analytics.metrics import single_user as person
from analytics.metrics import sources as reading
from analytics.models import AnalyticsEvent, UsageEvent
from analytics.query import Window
from chat.models import ClientToken, Conversation
from llmapi.staff import spending
from llmapi.staff.lists.keyset import own_value
from llmapi.staff.lists.links import listed
from llmapi.staff.totals import is_summed, money

if TYPE_CHECKING:
    from llmapi.staff.base import KeysetAdmin

NEWEST = 10
MOST_LINES = 100
PERIODS = (1, 7, 30, 90, 365)


@dataclass(frozen=True)
class Line:
    client: Any
    model: str
    turns: int
    tokens: int
    cost: str
    url: str = ""


def page(model_admin: "KeysetAdmin", request: HttpRequest) -> HttpResponse:
    if not model_admin.has_view_or_change_permission(request):
        raise PermissionDenied
    user_id = user_of(request)
    asked = request.GET.get("days", "")
    days = int(asked) if asked in map(str, PERIODS) else 30
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
        "lines": None if found is None else lines(user_id, window, found, clients),
        "total": None if found is None else line("", "", sum(found.values(), Counter())),
        "turns": turns,
        **others(user_id, request, clients),
    }
    return TemplateResponse(request, "admin/analytics/usageevent/user.html", context)


def user_of(request: HttpRequest) -> str:
    try:
        user_id: str = own_value(UsageEvent, "user_id", request.GET.get("user", ""))
    except ValidationError as exc:
        raise Http404 from exc
    if not user_id:
        raise Http404
    return user_id


def others(user_id: str, request: HttpRequest, clients: dict[int, ClientToken]) -> dict[str, Any]:
    """What is in lists of their own, for those who may see them."""
    may = request.user.has_perm
    found: dict[str, Any] = {}
    if may("chat.view_conversation"):
        theirs = Conversation.objects.filter(user_id=user_id).select_related("client_token").defer("metadata")
        found["conversations"] = list(theirs.order_by("-created_at", "-pk")[:NEWEST])
    if may("analytics.view_analyticsevent"):
        events = AnalyticsEvent.objects.filter(user_id=user_id).defer("metadata_json")
        found["events"] = list(events.order_by("-created_at", "-pk")[:NEWEST])
    if may("chat.view_clienttoken"):
        spent = spending.of_clients(list(clients.values()), user_id)
        found["budgets"] = [(clients[pk], budget) for pk, budgets in spent.items() for budget in budgets]
    return found


def lines(
    user_id: str, window: Window, found: dict[reading.Key, Counter[str]], clients: dict[int, ClientToken]
) -> list[Line]:
    most = sorted(found.items(), key=lambda row: -row[1]["total_tokens"])[:MOST_LINES]
    return [
        line(
            clients.get(pk, pk),
            model,
            figures,
            listed("analytics_usageevent", user=user_id, client=pk, model=model, **{"from": window.first}),
        )
        for (pk, model), figures in most
    ]


def line(client: Any, model: str, figures: Counter[str], url: str = "") -> Line:
    return Line(client, model, figures["completed"], figures["total_tokens"], money(reading.dollars(figures)), url)
