"""The page of a conversation: what was said and what it took, for those who may read it, and on record."""

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


def said(when: datetime, request_id: str, reply: str = "Yes.", question: str = "Well?") -> None:
    """A completed turn as it is left: its row opened at `when`, and both messages a second later."""
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


def broken(when: datetime, status: str = "failed") -> None:
    row(ANN, when, status, conversation_id="c_1", error_code="upstream_error" if status == "failed" else "")


def shape(thread: Thread) -> list[str]:
    """`u` and `a` for messages, `a+` for a reply with its figures, and the status of turns without one."""
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


def test_it_works(
    staff: Client, alice: ApiClient, upstream: OpenAIDouble, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    cid = talk(alice, 3)

    staff.get(url(cid))  # Django looks up the content type once a process
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


def test_turns_without_a_reply_are_in_their_place(staff: Client, conversation: Conversation) -> None:
    said(at(TODAY, 1), "r_a")
    broken(at(TODAY, 2))
    broken(at(TODAY, 3), "abandoned")
    said(at(TODAY, 4), "r_b")
    broken(at(TODAY, 5), "pending")

    answer = staff.get(url("c_1"))

    assert shape(answer.context["thread"]) == ["u", "a+", "failed", "abandoned", "u", "a+", "pending"]
    assert "Failed: upstream_error" in answer.content.decode()


def test_a_cancelled_reply_says_so(staff: Client, alice: ApiClient, conversation: Conversation) -> None:
    said(at(TODAY, 1), "r_a")
    UsageEvent.objects.update(error_code="cancelled")

    assert b"<dt>Ended</dt><dd>cancelled</dd>" in staff.get(url("c_1")).content


def test_a_failed_turn_of_the_api(staff: Client, alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = talk(alice, 1)
    upstream.plan(Behaviour(status=500))
    alice.say(cid, "Hello?")

    assert shape(page(staff, "", cid)) == ["u", "a+", "failed"]


def test_pages_have_every_entry_once(
    staff: Client, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "PAGE_SIZE", 4)
    for hour in range(6):
        said(at(TODAY, hour), f"r_{hour}x")
        for minute in range(hour):
            broken(at(TODAY, hour, 10 + minute))
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


def test_a_page_that_is_just_full_has_no_empty_one_behind(
    staff: Client, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "PAGE_SIZE", 2)
    for hour in range(2):
        said(at(TODAY, hour), f"r_{hour}x")

    first = page(staff)
    second = page(staff, f"?before={first.older}")

    assert [shape(thread) for thread in (first, second)] == [["u", "a+"], ["u", "a+"]]
    assert second.older is None


def test_clocks_that_differ_lose_nothing(
    staff: Client, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "PAGE_SIZE", 2)
    for hour in (5, 1, 9, 3, 4):
        said(at(TODAY, hour), f"r_{hour}x")
        broken(at(TODAY, 10 - hour))

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


def test_a_thread_of_failures_alone_is_paged(
    staff: Client, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "PAGE_SIZE", 3)
    for minute in range(8):
        broken(at(TODAY, 1, minute))

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
        said(at(TODAY, hour), f"r_{hour}x")
    Message.objects.exclude(request_id="r_0x").delete()

    thread = page(staff)

    # More turns than a page reads lie between, so it goes on from there.
    assert len(thread.entries) < 2
    found = []
    while thread.older:
        thread = page(staff, f"?before={thread.older}")
        found += shape(thread)
    assert found == ["u", "a+"]


@pytest.mark.parametrize(
    "query", ["before=x", "before=1", "before=1.x", "after=-1.1", "after=", "before=" + "9" * 40 + ".1", "whole=x"]
)
def test_a_place_that_is_none_is_the_newest(staff: Client, conversation: Conversation, query: str) -> None:
    said(at(TODAY, 1), "r_a")

    assert shape(page(staff, f"?{query}")) == ["u", "a+"]


def test_a_long_message_is_cut_and_can_be_read_whole(
    staff: Client, alice: ApiClient, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "MAX_CHARACTERS", 10)
    said(at(TODAY, 1), "r_a", reply="0123456789 and the end")
    reply = Message.objects.get(role="assistant")

    answer = staff.get(url("c_1")).content.decode()
    assert "0123456789" in answer
    assert "and the end" not in answer
    assert f"?whole={reply.pk}" in answer

    whole = staff.get(f"{url('c_1')}?whole={reply.pk}").content.decode()
    assert "and the end" in whole
    assert "Well?" not in whole


def test_what_is_beside_the_text_is_shown(staff: Client, conversation: Conversation) -> None:
    said(at(TODAY, 1), "r_a")
    Message.objects.filter(role="assistant").update(extra={"tool_calls": [{"name": "<b>look</b>"}]})

    answer = staff.get(url("c_1")).content.decode()

    assert "tool_calls" in answer
    assert "&lt;b&gt;look" in answer
    assert "<b>look" not in answer


def test_totals_of_the_newest_turns(staff: Client, conversation: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    for hour in range(3):
        said(at(TODAY, hour), f"r_{hour}x")

    totals = page(staff).totals
    assert totals is not None
    assert ("total tokens", "21") in totals.labelled
    assert totals.note == ""
    monkeypatch.setattr(conversations, "MAX_TURNS", 2)
    totals = page(staff).totals
    assert totals is not None
    assert ("total tokens", "14") in totals.labelled
    assert totals.note == "Totals of the newest 2 turns only."


def test_places_are_read_back() -> None:
    assert Place.parse(str(conversations.NEWEST)) == conversations.NEWEST
    assert Place.parse("3.4") == Place(3, 4)
    assert Place.parse("3.4 ") is None
