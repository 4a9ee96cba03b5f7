"""Client tokens: making, rotating and revoking them, and what they have used of their budgets."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.cache import add_never_cache_headers
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from analytics.formatting import format_exact
from analytics.metrics.sources import Usage, usage_by
from analytics.models import Refusals
from analytics.query import Period, Query, midnight, today
from analytics.rollups.coverage import bring_up_to_date
from chat.identity.presets import PRESETS, settings_of
from chat.limits import budgets
from chat.limits.status import LimitStatus, describe_used
from chat.models import Attestation, Budget, ClientToken, IdentityProvider, Person
from chat.models.clients import PUBLISHABLE, SECRET
from llmapi.staff.base import KeysetAdmin, ReadOnlyAdmin
from llmapi.staff.lists.filters import ChoicesFilter, ClientFilter, UserFilter, YesNoFilter
from llmapi.staff.lists.links import RowLinks

LIMITS_HELP = "Days and months are UTC. A turn is refused if it could use more than is left of a budget."
PEOPLE_HELP = (
    "A publishable key can be shipped in an app or a page. It only starts sessions, and each session stands for one "
    "person. Whoever has the key can make people, so what all anonymous ones spend together needs a limit. "
    "Its requests and tokens per minute are of each person; a plan goes before them."
)
POLICY_HELP = "Publishable keys are always restricted. For secret tokens it is a choice."
# People that are counted: a page must not take longer the more there are.
MAX_COUNTED = 10_000
UNITS = [("turns", "Concurrent turns"), ("tokens", "Tokens"), ("nanos", "Dollars")]


def budgets_of(clients: list[ClientToken], user_id: str = "") -> dict[int, list[LimitStatus]]:
    """Return the budgets of each client token over all its users. With `user_id`, return those of that user."""
    now = timezone.now()
    rows = [
        row
        for client in clients
        for row in budgets.budgets_of(client, user_id or client.default_user_id, now)
        if row.most is not None and row.user_id == user_id
    ]
    statuses: dict[int, list[LimitStatus]] = {}
    for row, status in zip(rows, budgets.read_statuses(rows, now), strict=True):
        statuses.setdefault(row.client_token_id, []).append(status)
    return statuses


def add_spending(clients: list[Any]) -> None:
    """Set `spent` and `budgets_used` of client tokens, in a fixed number of queries for all of them."""
    bring_up_to_date()
    found = usage_by(Query(Period(today().replace(day=1), today())), "client_token_id")
    spent = budgets_of(clients)
    for client in clients:
        client.spent = found.get((client.pk,), Usage())
        client.budgets_used = spent.get(client.pk, [])


def minting_of(client: ClientToken) -> dict[str, Any]:
    """Return how many people an app has got lately, and what was refused to it, by reason."""
    week = Period.last_days(7)
    people = [
        (title, Person.objects.filter(client_token=client, created_at__gte=midnight(since))[:MAX_COUNTED].count())
        for title, since in (("Today", week.last), ("In 7 days", week.first))
    ]
    days = Refusals.objects.filter(client_token_id=client.pk, day__gte=week.first)
    refused = days.values_list("code").annotate(total=Sum("count")).order_by("-total")
    return {"people": people, "most_counted": MAX_COUNTED, "refused": list(refused)}


class ClientTokenForm(forms.ModelForm):  # type: ignore[type-arg]
    def clean(self) -> dict[str, Any]:
        """Keep a publishable key restricted, and refuse one that could do more."""
        asked: dict[str, Any] = super().clean() or self.cleaned_data
        if asked.get("is_publishable"):
            asked["is_restricted"] = True
            self.instance.is_restricted = True
            if asked.get("can_read_metrics"):
                raise ValidationError(
                    {"can_read_metrics": "A publishable key reads nothing; make another token for it."}
                )
        return asked


class SecretForm(forms.ModelForm):  # type: ignore[type-arg]
    """A form with a secret that is written and never shown: left empty, it stays as it is."""

    secret_field = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if field := self.fields.get(self.secret_field):
            self.kept = getattr(self.instance, self.secret_field)
            field.widget = forms.PasswordInput(attrs={"autocomplete": "off"})
            if self.kept:
                field.help_text = f"{field.help_text} One is set; leave it empty to keep that."

    def clean(self) -> dict[str, Any]:
        asked: dict[str, Any] = super().clean() or self.cleaned_data
        asked[self.secret_field] = asked.get(self.secret_field) or getattr(self, "kept", "")
        return asked


class IdentityProviderForm(SecretForm):
    secret_field = "shared_secret"  # noqa: S105 a column's name

    preset = forms.ChoiceField(
        choices=[("", "none"), *((name, name.capitalize()) for name in PRESETS)],
        required=False,
        help_text="Fills in what is known of a provider, in place of what stands below.",
    )
    preset_of = forms.CharField(
        required=False,
        label="Whose",
        help_text="; ".join(f"{name.capitalize()}: {asked}" for name, (asked, _) in PRESETS.items()),
    )
    issuer = forms.CharField(required=False, max_length=255, help_text="The claim iss, to the letter.")

    def clean(self) -> dict[str, Any]:
        asked = super().clean()
        if asked.get("preset"):
            try:
                asked |= settings_of(asked["preset"], asked.get("preset_of", ""))
            except ValueError as exc:
                raise ValidationError({"preset_of": str(exc)}) from exc
        if not asked.get("issuer"):
            raise ValidationError({"issuer": "Say who signs the tokens, or choose a preset."})
        return asked


class IdentityProviderInline(admin.StackedInline):  # type: ignore[type-arg]
    model = IdentityProvider
    form = IdentityProviderForm
    classes = ["collapse"]
    verbose_name_plural = "Sign-in"


class AttestationForm(SecretForm):
    secret_field = "secret"  # noqa: S105 a column's name


class AttestationInline(admin.StackedInline):  # type: ignore[type-arg]
    model = Attestation
    form = AttestationForm
    classes = ["collapse"]
    verbose_name_plural = "Proof of a person or of the app"


@admin.register(ClientToken)
class ClientTokenAdmin(KeysetAdmin):
    list_display = ["name", "prefix", "is_active", "this_month", "budgets", "requests_per_minute", "expires_at"]
    list_filter = [
        YesNoFilter.of("is_active", title="active"),
        YesNoFilter.of("is_publishable", title="publishable"),
        YesNoFilter.of("can_read_metrics"),
    ]
    form = ClientTokenForm
    inlines = [IdentityProviderInline, AttestationInline]
    search_help_text = "Search for a part of the name, or for the first characters of the token."
    fieldsets = [
        (None, {"fields": ["name", "prefix", "is_active", "can_read_metrics", "expires_at", "created_at"]}),
        (
            "People",
            {
                "fields": [
                    *("is_publishable", "origins", "anonymous_plan", "default_plan", "sessions_per_min"),
                    "address_sessions_per_hour",
                    *ClientToken.POOL,
                ],
                "description": PEOPLE_HELP,
            },
        ),
        (
            "What may be sent",
            {
                "fields": ["is_restricted", *ClientToken.POLICY],
                "description": POLICY_HELP,
                "classes": ["collapse"],
            },
        ),
        ("Limits", {"fields": ["rate_limit_per_min", *ClientToken.SPENDING], "description": LIMITS_HELP}),
    ]
    readonly_fields = ["prefix", "created_at"]
    actions = ["revoke"]
    export_columns = [
        *("id", "name", "prefix", "is_active", "can_read_metrics", "rate_limit_per_min", *ClientToken.SPENDING),
        *("expires_at", "created_at"),
    ]

    def search_terms(self, text: str) -> dict[str, Any]:
        return {"prefix": text[:9]} if text.startswith((SECRET, PUBLISHABLE)) else {"name__icontains": text}

    def prepare(self, rows: list[Any]) -> None:
        add_spending(rows)

    @admin.display(description="this month (UTC)")
    def this_month(self, client: Any) -> str:
        cost = client.spent.cost_usd
        return f"{client.spent.total_tokens:,} tokens, {'cost unknown' if cost is None else format_exact(cost, 'usd')}"

    @admin.display(description="used of its budgets", empty_value="–")
    def budgets(self, client: Any) -> SafeString | None:
        rows = ((budget.title, budget.describe_used()) for budget in client.budgets_used)
        return format_html_join("\n", '<span class="budget">{}: {}</span>', rows) or None

    def get_urls(self) -> list[URLPattern]:
        rotate = self.admin_site.admin_view(require_POST(self.rotate))
        return [path("<int:pk>/rotate/", rotate, name="chat_clienttoken_rotate"), *super().get_urls()]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never delete a token: conversations and costs name it. Staff revoke it instead."""
        return False

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        if client := kwargs.get("obj"):
            add_spending([client])
            context["spent"] = self.this_month(client)
            if client.is_publishable:
                context |= minting_of(client)
        return super().render_change_form(request, context, **kwargs)

    def get_readonly_fields(self, request: HttpRequest, obj: ClientToken | None = None) -> Any:
        """A token shows by its first characters what it is, so it stays that."""
        return [*self.readonly_fields, *(["is_publishable"] if obj else [])]

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
            messages.error(request, "This token comes from the setting CLIENT_API_TOKEN; change it there.")
            return redirect(reverse("admin:chat_clienttoken_change", args=[pk]))
        token = client.renew()
        client.save(update_fields=["digest", "prefix"])
        self.log_change(request, client, "Rotated the token.")
        return self.show_token(request, client, token)

    def show_token(self, request: HttpRequest, client: ClientToken, token: str) -> HttpResponse:
        """Show the token in a page that no cache keeps. A message would store it in a session or a cookie."""
        template, title = "admin/chat/clienttoken/token.html", f"The token of {client.name}"
        response = self.render_page(request, template, title, client=client, token=token)
        add_never_cache_headers(response)
        return response

    @admin.action(description="Revoke selected client tokens", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ClientToken]) -> None:
        for client in queryset:
            self.log_change(request, client, "Revoked the token.")
        revoked = queryset.update(is_active=False)
        messages.success(request, f"{revoked} client tokens revoked. Their next requests will be refused.")


@admin.register(Budget)
class BudgetAdmin(RowLinks, ReadOnlyAdmin):
    list_display = ["period", "client", "user", "used_of_most", "resets_at"]
    list_display_links = ["period"]
    list_filter = [ClientFilter, ChoicesFilter.of("unit", options=UNITS), UserFilter]
    search_columns = {"": "user_id"}
    search_help_text = "Search for a user, by the exact id."
    fields = ["period", "client", "user", "used_of_most", "resets_at"]
    export_columns = ["client_token_id", "user_id", "unit", "period", "used", "most", "resets_at"]

    @admin.display(description="used")
    def used_of_most(self, budget: Budget) -> str:
        return describe_used(budget.unit, budget.used, budget.most)
