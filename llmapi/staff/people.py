"""People of apps: who they are, since when, on which plan; their sessions, and whether they are blocked."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from analytics.formatting import format_exact
from analytics.metrics.sources import Usage, bought_by
from analytics.models import UserDay
from analytics.query import Period, Query, today
from analytics.rollups.coverage import bring_up_to_date
from chat.models import ClientSession, Person, Plan
from llmapi.staff.base import KeysetAdmin
from llmapi.staff.lists.filters import ClientFilter, DayFilter, YesNoFilter
from llmapi.staff.lists.keyset import Key
from llmapi.staff.lists.links import RowLinks, link

# Sessions that the page of a person shows.
NEWEST = 20


@admin.register(Plan)
class PlanAdmin(KeysetAdmin):
    list_display = ["name", "requests_per_min", "day_tokens", "day_usd", "month_usd", "allowed_models"]
    list_filter = ()
    search_columns = {"": "name"}
    search_help_text = "Search for a plan, by its exact name."
    export_columns = [field.attname for field in Plan._meta.concrete_fields]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never delete a plan: people and apps name it."""
        return False


@admin.register(Person)
class PersonAdmin(RowLinks, KeysetAdmin):
    list_display = [
        "person_id",
        "kind",
        "client",
        "plan",
        "is_blocked",
        "cost",
        "created_at",
        "last_seen_at",
        "activity",
    ]
    list_filter = [DayFilter, ClientFilter, YesNoFilter.of("is_blocked", title="blocked")]
    list_select_related = ["plan"]
    list_keys = [Key("person_id", by_time=False), Key("client_token_id"), Key()]
    search_columns = {"": "person_id"}
    search_help_text = "Search for a person (u_…), by the exact id."
    fields = [
        *("person_id", "kind", "client", "activity", "plan", "claimed_plan", "is_blocked"),
        *("created_at", "signed_up_at", "last_seen_at", "issuer", "subject", "merged_into", "sessions"),
    ]
    readonly_fields = [
        *("person_id", "kind", "client", "activity", "claimed_plan"),
        *("created_at", "signed_up_at", "last_seen_at", "issuer", "subject", "merged_into", "sessions"),
    ]
    actions = ["block", "unblock", "sign_out"]
    export_columns = [
        *("person_id", "client_token_id", "plan_id", "is_blocked", "created_at", "signed_up_at", "last_seen_at"),
    ]

    def prepare(self, rows: list[Any]) -> None:
        """Add what each has cost this month, in one statement for all of them."""
        super().prepare(rows)
        bring_up_to_date()
        month = Query(Period(today().replace(day=1), today()))
        days = UserDay.objects.filter(month.rows, user_id__in=[row.pk for row in rows])
        spent = {user: usage for (user,), usage in bought_by(days, "user_id")}
        for row in rows:
            row.spent = spent.get(row.pk, Usage())

    @admin.display(description="this month (UTC)")
    def cost(self, person: Any) -> str:
        cost = person.spent.cost_usd
        return "cost unknown" if cost is None else format_exact(cost, "usd")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_delete_permission = has_add_permission

    @admin.display(description="kind")
    def kind(self, person: Person) -> str:
        if person.merged_into_id:
            return "became another"
        return "anonymous" if person.is_anonymous else "signed in"

    @admin.display(description="activity")
    def activity(self, person: Person) -> SafeString:
        return link(f"{reverse('admin:analytics_usageevent_user')}?{urlencode({'user': person.pk})}", "Usage")

    @admin.display(description="newest sessions")
    def sessions(self, person: Person) -> SafeString | str:
        newest = ClientSession.objects.filter(person=person).order_by("-created_at")[:NEWEST]
        rows = (
            (
                row.pk,
                f"{row.created_at:%Y-%m-%d %H:%M}",
                row.origin or "no browser",
                "revoked" if row.revoked_at else "open",
            )
            for row in newest
        )
        return format_html_join("", "<div>{} of {} UTC, {}: {}</div>", rows) or "None."

    @admin.action(description="Block selected people", permissions=["change"])
    def block(self, request: HttpRequest, queryset: QuerySet[Person]) -> None:
        self.set_blocked(request, queryset, is_blocked=True)

    @admin.action(description="Unblock selected people", permissions=["change"])
    def unblock(self, request: HttpRequest, queryset: QuerySet[Person]) -> None:
        self.set_blocked(request, queryset, is_blocked=False)

    def set_blocked(self, request: HttpRequest, people: QuerySet[Person], *, is_blocked: bool) -> None:
        verb = "Blocked" if is_blocked else "Unblocked"
        for person in people:
            self.log_change(request, person, f"{verb} the person.")
        changed = people.update(is_blocked=is_blocked)
        messages.success(request, f"{verb} {changed} people; it holds from their next request on.")

    @admin.action(description="Sign selected people out of all sessions", permissions=["change"])
    def sign_out(self, request: HttpRequest, queryset: QuerySet[Person]) -> None:
        for person in queryset:
            self.log_change(request, person, "Revoked all sessions.")
        revoked = ClientSession.objects.filter(person__in=queryset, revoked_at=None).update(revoked_at=Now())
        messages.success(request, f"{revoked} sessions are revoked; their next requests are refused.")
