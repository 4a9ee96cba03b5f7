"""Client tokens: making, rotating and revoking them; and what all read-only pages refuse."""

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from analytics.models import AnalyticsEvent, UsageEvent
from bench.openai_double import OpenAIDouble
from chat.models import ClientToken, IdempotencyKey
from conftest import ApiClient
from llmapi.tests.staff.forms import form_of

LISTS = [
    "chat_conversation",
    "chat_idempotencykey",
    "chat_clienttoken",
    "chat_budget",
    "analytics_usageevent",
    "analytics_analyticsevent",
    "chat_auditrecord",
]


def talk(alice: ApiClient, turns: int) -> str:
    cid = alice.conversation()
    for n in range(turns):
        alice.say(cid, f"<script>alert({n})</script>", key=f"{cid}-{n}")
    return cid


@pytest.mark.parametrize("name", LISTS)
def test_lists_search_and_filter(staff: Client, alice: ApiClient, upstream: OpenAIDouble, name: str) -> None:
    cid = talk(alice, 1)
    url = reverse(f"admin:{name}_changelist")

    assert staff.get(url, {"q": cid}).status_code == 200
    assert staff.get(url, {"from": "2020-01-01"}).status_code in {200, 302}
    assert staff.get(url, {"created_at__gte": "2020-01-01 00:00:00+00:00"}).status_code in {200, 302}


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("chat_idempotencykey", IdempotencyKey),
        ("analytics_usageevent", UsageEvent),
        ("analytics_analyticsevent", AnalyticsEvent),
    ],
)
def test_history_is_read_only(staff: Client, alice: ApiClient, upstream: OpenAIDouble, name: str, model: Any) -> None:
    talk(alice, 1)
    pk = model.objects.get().pk

    assert staff.get(reverse(f"admin:{name}_change", args=[pk])).status_code == 200
    assert staff.post(reverse(f"admin:{name}_change", args=[pk]), {"user_id": "x"}).status_code == 403
    assert staff.post(reverse(f"admin:{name}_delete", args=[pk])).status_code == 403
    assert staff.get(reverse(f"admin:{name}_add")).status_code == 403


def token_in(page: Any) -> str:
    assert page.status_code == 200
    assert "no-store" in page["Cache-Control"]
    token: str = page.context["token"]
    assert token in page.content.decode()
    return token


def works(token: str) -> bool:
    return Client().get("/v1/models", headers={"authorization": f"Bearer {token}"}).status_code == 200


def test_a_token_is_shown_once_rotated_and_revoked(staff: Client) -> None:
    add = reverse("admin:chat_clienttoken_add")
    first = token_in(staff.post(add, form_of(staff.get(add)) | {"name": "web"}))
    row = ClientToken.objects.get()
    change = reverse("admin:chat_clienttoken_change", args=[row.pk])
    assert works(first)
    assert first not in staff.get(change).content.decode()

    second = token_in(staff.post(reverse("admin:chat_clienttoken_rotate", args=[row.pk])))
    assert works(second)
    assert not works(first)

    action = {"action": "revoke", "_selected_action": [row.pk]}
    staff.post(reverse("admin:chat_clienttoken_changelist"), action)
    assert not works(second)
    assert staff.post(reverse("admin:chat_clienttoken_delete", args=[row.pk])).status_code == 403


def test_rotating_needs_a_post_and_the_permission(staff: Client, alice: ApiClient) -> None:
    url = reverse("admin:chat_clienttoken_rotate", args=[alice.token_row.pk])
    assert staff.get(url).status_code == 405

    reader = Client()
    reader.force_login(get_user_model().objects.create_user("reader", is_staff=True))
    assert reader.post(url).status_code == 403
    assert works(alice.token)


def test_pages_have_a_strict_content_security_policy(staff: Client) -> None:
    for path in ("/admin/", "/docs"):
        policy = staff.get(path)["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
