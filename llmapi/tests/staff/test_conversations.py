"""The page of a conversation: its messages and its turns."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from analytics.models import UsageEvent
from analytics.tests.sample_week import ANN, TODAY, at, row
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import Conversation, Message
from conftest import ApiClient
from llmapi.staff import conversations
from llmapi.staff.conversations import Place, Thread


def url(conversation_id: str) -> str:
    return reverse("admin:chat_conversation_change", args=[quote(conversation_id)])


def talk(alice: ApiClient, turns: int) -> str:
    cid = alice.conversation()
    for n in range(turns):
        alice.say(cid, f"<script>alert({n})</script>", key=f"{cid}-{n}")
    return cid


@pytest.fixture
def conversation(alice: ApiClient) -> Conversation:
    return Conversation.objects.create(pk="c_1", client_token=alice.token_row, user_id="ann")


def write_turn(when: datetime, request_id: str, reply: str = "Yes.", question: str = "Well?") -> None:
    """Write a completed turn: its row at `when`, and both messages a second later."""
    UsageEvent.objects.create(
        request_id=request_id,
        client_token_id=1,
        user_id="ann",
        conversation_id="c_1",
        model="gpt",
        status="completed",
        total_tokens=7,
        locked_until=when,
        created_at=when,
        finished_at=when + timedelta(seconds=1),
    )
    for role, text in (("user", question), ("assistant", reply)):
        later = when + timedelta(seconds=1)
        Message.objects.create(conversation_id="c_1", role=role, content=text, request_id=request_id, created_at=later)


def write_failure(when: datetime, status: str = "failed") -> None:
    row(ANN, when, status, conversation_id="c_1", error_code="upstream_error" if status == "failed" else "")


def shape(thread: Thread) -> list[str]:
    """Return `u` and `a` for messages, `a+` for a reply with its turn, and the status of turns without a reply."""
    return [
        f"{entry.message.role[0]}{'+' if entry.turn else ''}"
        if entry.message
        else str(entry.turn and entry.turn.status)
        for entry in thread.entries
    ]


def page(client: Client, query: str = "", conversation_id: str = "c_1") -> Thread:
    answer = client.get(url(conversation_id) + query)
    assert answer.status_code == 200
    thread: Thread = answer.context["thread"]
    return thread


def test_shows_messages_and_the_turns_of_replies(
    staff: Client, alice: ApiClient, upstream: OpenAIDouble, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    cid = talk(alice, 3)

    staff.get(url(cid))  # Django reads the content type once per process
    # Session, user, conversation, client, the record; messages, turns, those of the replies, and their totals.
    with django_assert_num_queries(9):
        answer = staff.get(url(cid)).content.decode()

    assert answer.count('class="thread-message') == 6
    assert answer.index("alert(0)") < answer.index("echo: &lt;script&gt;alert(0)") < answer.index("alert(1)")
    assert "<script>alert" not in answer
    turn = UsageEvent.objects.order_by("pk")[0]
    assert reverse("admin:analytics_usageevent_change", args=[turn.pk]) in answer
    assert f"{turn.prompt_tokens} in, {turn.completion_tokens} out" in answer
    assert f"{turn.latency_ms} ms" in answer
    assert "gpt-4o-mini" in answer
    assert "$0.00" in answer
    assert f"usageevent/?conversation={cid}" in answer


def test_a_turn_shows_what_its_price_is_of(staff: Client, conversation: Conversation) -> None:
    write_turn(at(TODAY, 1), "r_a")
    UsageEvent.objects.update(cached_tokens=1, cache_write_tokens=1_234, service_tier="priority")

    answer = staff.get(url("c_1")).content.decode()

    assert "(1 cached, 1,234 written to the cache)" in answer
    assert "<dt>Tier</dt><dd>priority</dd>" in answer


def test_turns_without_a_reply_are_shown_in_order(staff: Client, conversation: Conversation) -> None:
    write_turn(at(TODAY, 1), "r_a")
    write_failure(at(TODAY, 2))
    write_failure(at(TODAY, 3), "abandoned")
    write_turn(at(TODAY, 4), "r_b")
    write_failure(at(TODAY, 5), "pending")

    answer = staff.get(url("c_1"))

    assert shape(answer.context["thread"]) == ["u", "a+", "failed", "abandoned", "u", "a+", "pending"]
    assert "Failed: upstream_error" in answer.content.decode()


def test_a_cancelled_reply_is_marked(staff: Client, alice: ApiClient, conversation: Conversation) -> None:
    write_turn(at(TODAY, 1), "r_a")
    UsageEvent.objects.update(error_code="cancelled")

    assert b"<dt>Ended</dt><dd>cancelled</dd>" in staff.get(url("c_1")).content


def test_a_failed_turn_of_the_api_is_shown(staff: Client, alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = talk(alice, 1)
    upstream.plan(Behaviour(status=500))
    alice.say(cid, "Hello?")

    assert shape(page(staff, "", cid)) == ["u", "a+", "failed"]


def test_every_entry_is_on_exactly_one_page(
    staff: Client, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "PAGE_SIZE", 4)
    for hour in range(6):
        write_turn(at(TODAY, hour), f"r_{hour}x")
        for minute in range(hour):
            write_failure(at(TODAY, hour, 10 + minute))
    in_order = [name for hour in range(6) for name in ("u", "a+", *["failed"] * hour)]

    back, query = [], ""
    while True:
        thread = page(staff, query)
        back.append(thread)
        if not thread.older:
            break
        query = f"?before={thread.older}"
    assert [name for thread in reversed(back) for name in shape(thread)] == in_order
    assert max(len(thread.entries) for thread in back) == 4
    assert all(thread.entries for thread in back)

    forth, query = [], "?after=0.0"
    while True:
        thread = page(staff, query)
        forth.append(thread)
        if not thread.newer:
            break
        query = f"?after={thread.newer}"
    assert [name for thread in forth for name in shape(thread)] == in_order
    assert forth[0].older is None
    assert shape(page(staff, f"?before={forth[1].older}")) == shape(forth[0])


def test_no_empty_page_follows_a_full_one(
    staff: Client, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "PAGE_SIZE", 2)
    for hour in range(2):
        write_turn(at(TODAY, hour), f"r_{hour}x")

    first = page(staff)
    second = page(staff, f"?before={first.older}")

    assert [shape(thread) for thread in (first, second)] == [["u", "a+"], ["u", "a+"]]
    assert second.older is None


def test_different_clocks_lose_no_entry(
    staff: Client, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "PAGE_SIZE", 2)
    for hour in (5, 1, 9, 3, 4):
        write_turn(at(TODAY, hour), f"r_{hour}x")
        write_failure(at(TODAY, 10 - hour))

    entries: list[Any] = []
    query = ""
    while True:
        thread = page(staff, query)
        entries += [(entry.message or entry.turn) for entry in thread.entries]
        if not thread.older:
            break
        query = f"?before={thread.older}"

    assert len(entries) == 15
    assert len({(type(entry), entry.pk) for entry in entries}) == 15


def test_a_thread_of_failures_only_has_pages(
    staff: Client, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "PAGE_SIZE", 3)
    for minute in range(8):
        write_failure(at(TODAY, 1, minute))

    first = page(staff)
    second = page(staff, f"?before={first.older}")
    third = page(staff, f"?before={second.older}")

    assert [len(thread.entries) for thread in (first, second, third)] == [3, 3, 2]
    assert third.older is None
    assert [entry.at.minute for entry in page(staff, f"?after={second.newer}").entries] == [5, 6, 7]


def test_deleted_messages_leave_no_empty_pages(
    staff: Client, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "PAGE_SIZE", 2)
    for hour in range(12):
        write_turn(at(TODAY, hour), f"r_{hour}x")
    Message.objects.exclude(request_id="r_0x").delete()

    thread = page(staff)

    # More turns than a page reads lie in between. So a page may be short and still link on.
    assert len(thread.entries) < 2
    found = []
    while thread.older:
        thread = page(staff, f"?before={thread.older}")
        found += shape(thread)
    assert found == ["u", "a+"]


@pytest.mark.parametrize(
    "query", ["before=x", "before=1", "before=1.x", "after=-1.1", "after=", "before=" + "9" * 40 + ".1", "whole=x"]
)
def test_a_bad_place_shows_the_newest_page(staff: Client, conversation: Conversation, query: str) -> None:
    write_turn(at(TODAY, 1), "r_a")

    assert shape(page(staff, f"?{query}")) == ["u", "a+"]


def test_a_long_message_is_cut_and_linked_in_full(
    staff: Client, alice: ApiClient, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "MAX_CHARACTERS", 10)
    write_turn(at(TODAY, 1), "r_a", reply="0123456789 and the end")
    reply = Message.objects.get(role="assistant")

    answer = staff.get(url("c_1")).content.decode()
    assert "0123456789" in answer
    assert "and the end" not in answer
    assert f"?whole={reply.pk}" in answer

    whole = staff.get(f"{url('c_1')}?whole={reply.pk}").content.decode()
    assert "and the end" in whole
    assert "Well?" not in whole


def test_shows_what_a_message_has_beside_its_text(staff: Client, conversation: Conversation) -> None:
    write_turn(at(TODAY, 1), "r_a")
    Message.objects.filter(role="assistant").update(extra={"tool_calls": [{"name": "<b>look</b>"}]})

    answer = staff.get(url("c_1")).content.decode()

    assert "tool_calls" in answer
    assert "&lt;b&gt;look" in answer
    assert "<b>look" not in answer


def test_totals_of_the_newest_turns(staff: Client, conversation: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    for hour in range(3):
        write_turn(at(TODAY, hour), f"r_{hour}x")

    totals = page(staff).totals
    assert totals is not None
    assert ("total tokens", "21") in totals.labelled
    assert totals.note == ""
    monkeypatch.setattr(conversations, "MAX_TURNS", 2)
    totals = page(staff).totals
    assert totals is not None
    assert ("total tokens", "14") in totals.labelled
    assert totals.note == "Totals of the newest 2 turns only."


def test_places_are_parsed_back() -> None:
    assert Place.parse(str(conversations.NEWEST)) == conversations.NEWEST
    assert Place.parse("3.4") == Place(3, 4)
    assert Place.parse("3.4 ") is None
