"""Hostile and mistaken input to the pages of the admin."""

import re
from collections.abc import Callable

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from analytics.tests.sample_week import ANN, TODAY, turn, write_built_week, write_week
from bench.openai_double import OpenAIDouble
from chat.models import Budget, ClientToken
from conftest import ApiClient
from llmapi.staff.base import KeysetAdmin

USAGE = "/admin/analytics/usageevent/"


def test_enter_saves_a_token_without_rotating_it(staff: Client, alice: ApiClient) -> None:
    """Enter presses the first button of its form. A button with `form="rotate"` belongs to another form."""
    client = ClientToken.objects.create(name="web", digest="x", prefix="llm_x")

    page = staff.get(reverse("admin:chat_clienttoken_change", args=[client.pk])).content.decode()

    form = page[page.index('id="clienttoken_form"') : page.index("</form>", page.index('id="clienttoken_form"'))]
    buttons = re.findall(r'<(?:button|input)[^>]*type="submit"[^>]*>', form)
    own = [button for button in buttons if 'form="' not in button]
    assert 'name="_save"' in own[0]
    assert len(own) < len(buttons)
    assert f'id="rotate" method="post" action="/admin/chat/clienttoken/{client.pk}/rotate/"' in page


def test_revoking_a_token_is_logged(staff: Client) -> None:
    client = ClientToken.objects.create(name="web", digest="x", prefix="llm_x")

    staff.post("/admin/chat/clienttoken/", {"action": "revoke", "_selected_action": [client.pk]})

    assert LogEntry.objects.get().object_id == str(client.pk)


@pytest.mark.parametrize("chosen", ["abc", "1\0", "99999999999999999999"])
def test_selected_rows_must_have_valid_keys(staff: Client, chosen: str) -> None:
    answer = staff.post("/admin/chat/clienttoken/", {"action": "revoke", "_selected_action": [chosen]})

    assert (answer.status_code, answer.json()["error"]["message"]) == (
        400,
        "The selected rows cannot be read; open the list again and select them.",
    )


@pytest.mark.parametrize(
    "path", ["/admin/r/7/%00/", "/admin/auth/group/?name__icontains=%00", "/admin/auth/user/?q=%00"]
)
def test_null_characters_are_no_server_error(staff: Client, path: str) -> None:
    """PostgreSQL raises an error for a null character. SQLite finds nothing."""
    assert staff.get(path).status_code in (200, 302, 400, 404)


def test_an_empty_to_field_is_ignored(staff: Client) -> None:
    client = ClientToken.objects.create(name="web", digest="x", prefix="llm_x")

    assert staff.get(f"/admin/chat/clienttoken/{client.pk}/change/?_to_field=").status_code == 200


def test_a_bad_breakdown_is_reported(staff: Client) -> None:
    page = staff.get(f"{USAGE}breakdown/", {"from": "zz", "model": "gpt"}, follow=True)

    assert "cannot be read" in page.content.decode()


def test_the_hash_of_a_request_is_hidden(
    clerk: Callable[..., Client], alice: ApiClient, upstream: OpenAIDouble
) -> None:
    alice.say(alice.conversation(), "yes", key="k1")

    page = clerk("view_idempotencykey").get("/admin/chat/idempotencykey/1/change/", follow=True).content.decode()

    assert not re.search("[0-9a-f]{64}", page)


@pytest.mark.parametrize("value", ["foo", "latency_ms", "cost_nanos", " "])
def test_an_unknown_status_is_refused(staff: Client, value: str) -> None:
    write_built_week()

    assert staff.get(USAGE, {"status": value}).status_code == 302
    assert staff.get(f"{USAGE}export/", {"status": value}).status_code == 302


def test_days_in_the_wrong_order_are_refused(staff: Client) -> None:
    assert staff.get(USAGE, {"from": "2026-11-24", "to": "2026-11-21"}).status_code == 302


def test_autocomplete_is_refused(staff: Client) -> None:
    query = {"app_label": "chat", "model_name": "message", "field_name": "conversation", "term": "x"}

    assert staff.get("/admin/autocomplete/", query).status_code == 403


@pytest.mark.parametrize("page", ["change", "history"])
def test_an_impossible_key_is_not_found(staff: Client, page: str) -> None:
    for name in ("conversation", "budget"):
        assert staff.get(f"/admin/chat/{name}/%00/{page}/").status_code in (302, 404)


def test_cursors_may_hold_line_breaks(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeysetAdmin, "list_per_page", 1)
    client = ClientToken.objects.create(name="web", digest="x", prefix="llm_x")
    for user in ("a\nb", "a\nc", "a\nd"):
        budget = {"client_token": client, "user_id": user, "unit": "tokens", "period": "2026-11", "used": 1, "most": 2}
        Budget.objects.create(key=f"{client.pk}:tokens:2026-11:{user}", **budget)
    seen: list[str] = []
    link: str | None = ""
    while link is not None:
        changelist = staff.get(f"/admin/chat/budget/{link}").context["cl"]
        seen += [row.user_id for row in changelist.result_list]
        link = changelist.older_link

    assert sorted(seen) == ["a\nb", "a\nc", "a\nd"]


def test_a_breakdown_keeps_its_filters(staff: Client) -> None:
    write_week()

    page = staff.get(f"{USAGE}breakdown/?client=2").content.decode()

    assert '<input type="hidden" name="client" value="2">' in page
    assert re.findall(r'href="\?(client=2&amp;from=[0-9-]+)"', page)


def test_lists_link_to_a_breakdown_with_the_same_filters(staff: Client) -> None:
    turn(ANN, TODAY)

    assert "breakdown/" in staff.get(f"{USAGE}?client=1&model=gpt").content.decode()
    for query in ("user=ann", "status=completed", "q=ann"):
        assert "breakdown/" not in staff.get(f"{USAGE}?{query}").content.decode()
