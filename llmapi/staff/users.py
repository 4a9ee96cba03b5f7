"""The page of one user: usage, budgets, the newest turns, conversations and events, and links to the lists of all."""

from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse

from analytics import replica
from analytics.formatting import format_exact
from analytics.metrics import single_user
from analytics.metrics.sources import Key, Usage, total
from analytics.models import AnalyticsEvent, UsageEvent
from analytics.query import Query
from analytics.rollups.coverage import bring_up_to_date
from chat.identity.sessions import plan_of
from chat.models import ClientToken, Conversation, Person
from chat.models.people import PERSON
from llmapi.staff.base import KeysetAdmin
from llmapi.staff.breakdown import UsageRow, UsageTable
from llmapi.staff.client_tokens import budgets_of
from llmapi.staff.lists.keyset import parse_value
from llmapi.staff.lists.links import list_url

NEWEST = 10
MAX_ROWS = 100
PERIODS = (1, 7, 30, 90, 365)


def page(model_admin: KeysetAdmin, request: HttpRequest) -> HttpResponse:
    if not model_admin.has_view_or_change_permission(request):
        raise PermissionDenied
    user_id = user_id_of(request)
    days_text = request.GET.get("days", "")
    days = int(days_text) if days_text in map(str, PERIODS) else 30
    query = Query.last_days(days)
    with replica.reading():
        coverage = bring_up_to_date()
        found, first_day = single_user.bought(user_id, query), single_user.first_day(user_id)
    turns = list(UsageEvent.objects.filter(user_id=user_id).order_by("-created_at", "-pk")[:NEWEST])
    clients = ClientToken.objects.in_bulk({turn.client_token_id for turn in turns} | {pk for pk, _ in found})
    return model_admin.render_page(
        request,
        "admin/analytics/usageevent/user.html",
        f"User {user_id}",
        user_id=user_id,
        days=days,
        as_of=coverage.as_of,
        periods=PERIODS,
        first_day=first_day,
        table=usage_table(user_id, query, clients, found),
        turns=turns,
        **other_tables(user_id, request, clients),
    )


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
        people = Person.objects.filter(pk=user_id).select_related("client_token", "plan", "claimed_plan")
        person = people.first() if user_id.startswith(PERSON) else None
        own = [person.client_token.as_used_by(None, person, plan_of(person))] if person else [*clients.values()]
        clients |= {client.pk: client for client in own}
        spent = budgets_of(own, user_id)
        found["budgets"] = [(clients[pk], budget) for pk, budgets in spent.items() for budget in budgets]
    return found


def usage_table(user_id: str, query: Query, clients: dict[int, ClientToken], found: dict[Key, Usage]) -> UsageTable:
    largest = sorted(found.items(), key=lambda row: -row[1].total_tokens)[:MAX_ROWS]
    since = query.period.first
    rows = []
    for (pk, model), row in largest:
        url = list_url("analytics_usageevent", user=user_id, client=pk, model=model, **{"from": since})
        rows.append(usage_row([clients.get(pk, pk), model], row, url))
    return UsageTable("Usage", ["Client", "Model"], "Completed turns", rows, usage_row([], total(found.values())))


def usage_row(labels: list[Any], row: Usage, url: str = "") -> UsageRow:
    return UsageRow(labels, url, row.completed, row.total_tokens, format_exact(row.cost_usd, "usd"))
