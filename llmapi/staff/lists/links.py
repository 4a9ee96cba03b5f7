"""From a row to what it belongs to: the same in all lists and pages."""

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


def listed(name: str, **filters: Any) -> str:
    """The list `name`, filtered."""
    asked = {key: value for key, value in filters.items() if value not in (None, "")}
    return f"{reverse(f'admin:{name}_changelist')}?{urlencode(asked)}"


def conversation_url(conversation_id: str) -> str:
    return reverse("admin:chat_conversation_change", args=[quote(conversation_id)])


def user_url(user_id: str) -> str:
    return f"{reverse('admin:analytics_usageevent_user')}?{urlencode({'user': user_id})}"


class RowLinks:
    """Columns and fields of rows that name a client token, a user, a conversation or a turn by plain ids."""

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
        return link(user_url(row.user_id), row.user_id) if row.user_id else ""

    @admin.display(description="conversation")
    def conversation(self, row: Any) -> SafeString | str:
        return link(conversation_url(row.conversation_id), row.conversation_id) if row.conversation_id else ""

    @admin.display(description="user, client")
    def whose(self, row: Any) -> SafeString:
        """Both in one column, where there are many."""
        return format_html('<span class="line">{}</span><span class="line">{}</span>', self.user(row), self.client(row))

    @admin.display(description="turn")
    def turn(self, row: Any) -> SafeString | str:
        return link(listed("analytics_usageevent", q=row.request_id), row.request_id) if row.request_id else ""

    @admin.display(description="events")
    def events(self, row: Any) -> SafeString:
        day = row.created_at.astimezone(UTC).date()
        url = listed("analytics_analyticsevent", user=row.user_id, request=row.request_id, **{"from": day})
        return link(url, "Events of this turn")
