"""Links from a row to what it belongs to: the same on all lists and pages."""

from datetime import UTC
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from chat.models import ClientToken


def link(url: str, text: Any) -> SafeString:
    return format_html('<a href="{}">{}</a>', url, text)


def list_url(name: str, **filters: Any) -> str:
    """Return the URL of the list `name` with these filters. Empty ones are left out."""
    filter_values = {key: value for key, value in filters.items() if value not in (None, "")}
    return f"{reverse(f'admin:{name}_changelist')}?{urlencode(filter_values)}"


def conversation_link(conversation_id: str) -> SafeString:
    return link(reverse("admin:chat_conversation_change", args=[quote(conversation_id)]), conversation_id)


class RowLinks:
    """Columns that link a row to its client token, user, conversation, turn and events.

    The rows hold plain ids, without foreign keys.
    """

    def prepare(self, rows: list[Any]) -> None:
        names = dict(ClientToken.objects.filter(pk__in={row.client_token_id for row in rows}).values_list("pk", "name"))
        for row in rows:
            row.client_name = names.get(row.client_token_id)

    @admin.display(description="client")
    def client(self, row: Any) -> SafeString:
        if not hasattr(row, "client_name"):
            self.prepare([row])
        url = reverse("admin:chat_clienttoken_change", args=[row.client_token_id])
        return link(url, row.client_name or row.client_token_id)

    @admin.display(description="user")
    def user(self, row: Any) -> SafeString | str:
        url = f"{reverse('admin:analytics_usageevent_user')}?{urlencode({'user': row.user_id})}"
        return link(url, row.user_id) if row.user_id else ""

    @admin.display(description="conversation")
    def conversation(self, row: Any) -> SafeString | str:
        return conversation_link(row.conversation_id) if row.conversation_id else ""

    @admin.display(description="user, client")
    def user_and_client(self, row: Any) -> SafeString:
        """Both in one column, for lists with many columns."""
        return format_html('<span class="line">{}</span><span class="line">{}</span>', self.user(row), self.client(row))

    @admin.display(description="turn")
    def turn(self, row: Any) -> SafeString | str:
        return link(list_url("analytics_usageevent", q=row.request_id), row.request_id) if row.request_id else ""

    @admin.display(description="events")
    def events(self, row: Any) -> SafeString:
        day = row.created_at.astimezone(UTC).date()
        url = list_url("analytics_analyticsevent", user=row.user_id, request=row.request_id, **{"from": day})
        return link(url, "Events of this turn")
