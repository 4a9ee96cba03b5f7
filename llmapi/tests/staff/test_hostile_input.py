"""What strangers and clumsy hands do to the admin's pages."""

import re
from collections.abc import Callable

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from analytics.tests.sample_week import ANN, TODAY, roll_up, turn, write_week
from bench.openai_double import OpenAIDouble
from chat.models import Budget, ClientToken
from conftest import ApiClient
from llmapi.staff.base import KeysetAdmin

USAGE = "/admin/analytics/usageevent/"


def test_enter_saves_a_token_and_does_not_rotate_it(staff: Client, alice: ApiClient) -> None:
    """A browser presses the first button of the form; that of another form is none of it."""
    client = ClientToken.objects.create(name="web", digest="x", prefix="llm_x")

    page = staff.get(reverse("admin:chat_clienttoken_change", args=[client.pk])).content.decode()

    form = page[page.index('id="clienttoken_form"') : page.index("</form>", page.index('id="clienttoken_form"'))]
    buttons = re.findall(r'<(?:button|input)[^>]*type="submit"[^>]*>', form)
    own = [button for button in buttons if 'form="' not in button]
    assert 'name="_save"' in own[0]
    assert len(own) < len(buttons)
    assert f'id="rotate" method="post" action="/admin/chat/clienttoken/{client.pk}/rotate/"' in page


def test_a_revoked_token_is_in_the_log(staff: Client) -> None:
    client = ClientToken.objects.create(name="web", digest="x", prefix="llm_x")

    staff.post("/admin/chat/clienttoken/", {"action": "revoke", "_selected_action": [client.pk]})

    assert LogEntry.objects.get().object_id == str(client.pk)


@pytest.mark.parametrize("chosen", ["abc", "1\0", "99999999999999999999"])
def test_a_choice_of_rows_that_are_none(staff: Client, chosen: str) -> None:
    answer = staff.post("/admin/chat/clienttoken/", {"action": "revoke", "_selected_action": [chosen]})

    assert (answer.status_code, answer.json()["error"]["message"]) == (
        400,
        "The selected rows cannot be read; open the list again and select them.",
    )


@pytest.mark.parametrize(
    "path", ["/admin/r/7/%00/", "/admin/auth/group/?name__icontains=%00", "/admin/auth/user/?q=%00"]
)
def test_pages_of_django_itself(staff: Client, path: str) -> None:
    """PostgreSQL holds no such text, and says so; SQLite finds nothing."""
    assert staff.get(path).status_code in (200, 302, 400, 404)


def test_a_link_to_no_field(staff: Client) -> None:
    client = ClientToken.objects.create(name="web", digest="x", prefix="llm_x")

    assert staff.get(f"/admin/chat/clienttoken/{client.pk}/change/?_to_field=").status_code == 200


def test_a_breakdown_that_cannot_be_read_says_so(staff: Client) -> None:
    page = staff.get(f"{USAGE}breakdown/", {"from": "zz", "model": "gpt"}, follow=True)

    assert "cannot be read" in page.content.decode()


def test_the_hash_of_a_request_is_hidden_as_its_text_is(
    clerk: Callable[..., Client], alice: ApiClient, upstream: OpenAIDouble
) -> None:
    alice.say(alice.conversation(), "yes", key="k1")

    page = clerk("view_idempotencykey").get("/admin/chat/idempotencykey/1/change/", follow=True).content.decode()

    assert not re.search("[0-9a-f]{64}", page)


@pytest.mark.parametrize("value", ["foo", "latency_ms", "cost_nanos", " "])
def test_a_status_that_is_none(staff: Client, value: str) -> None:
    write_week()
    roll_up()

    assert staff.get(USAGE, {"status": value}).status_code == 302
    assert staff.get(f"{USAGE}export/", {"status": value}).status_code == 302


def test_days_in_the_wrong_order(staff: Client) -> None:
    assert staff.get(USAGE, {"from": "2026-11-24", "to": "2026-11-21"}).status_code == 302


def test_nothing_is_completed_for_a_form(staff: Client) -> None:
    query = {"app_label": "chat", "model_name": "message", "field_name": "conversation", "term": "x"}

    assert staff.get("/admin/autocomplete/", query).status_code == 403


@pytest.mark.parametrize("page", ["change", "history"])
def test_a_key_that_no_row_can_have(staff: Client, page: str) -> None:
    for name in ("conversation", "budget"):
        assert staff.get(f"/admin/chat/{name}/%00/{page}/").status_code in (302, 404)


def test_a_list_goes_on_past_a_user_with_a_line_break(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_breakdown_is_offered_for_what_it_can_filter(staff: Client) -> None:
    turn(ANN, TODAY)

    assert "breakdown/" in staff.get(f"{USAGE}?client=1&model=gpt").content.decode()
    for query in ("user=ann", "status=completed", "q=ann"):
        assert "breakdown/" not in staff.get(f"{USAGE}?{query}").content.decode()
