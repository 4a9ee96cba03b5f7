"""One person is one user, however a client spells the id, and nobody is taken for the user of another client."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.ledger import normal_user_id
from analytics.models import AnalyticsEvent, UsageEvent
from bench.openai_double import OpenAIDouble
from chat.models import Budget, Conversation
from conftest import ApiClient
from protos import chat_pb2 as pb

URL = "/v1/chat/completions"
JOSE = "jos\u00e9"
SPELLINGS = ["jos\u00e9", "jose\u0301", "jo\u200bs\u00e9", "\ufeffjose\u0301", "jose\u034f\u0301\u202e"]


def ask(client: ApiClient, **fields: Any) -> Any:
    return client.send(URL, {"messages": [{"role": "user", "content": "Hi"}], **fields})


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_user_is_one_in_ledger_limits_and_usage(alice: ApiClient, upstream: OpenAIDouble, spelling: str) -> None:
    alice.token_row.user_day_tokens = 100_000
    alice.token_row.save()
    cid = alice.conversation()

    assert alice.say(cid, "hi", user=spelling).status_code == 200
    assert alice.send("/v1/events", {"events": [{"name": "opened", "user": spelling}]}).status_code == 201
    usage = alice.get("/v1/usage", {"user": spelling}).json()

    assert UsageEvent.objects.get().user_id == JOSE
    assert set(AnalyticsEvent.objects.values_list("user_id", flat=True)) == {JOSE}
    assert set(Budget.objects.exclude(user_id="").values_list("user_id", flat=True)) == {JOSE}
    assert Conversation.objects.get(pk=cid).user_id == JOSE
    (limit,) = (each for each in usage["limits"] if each["name"] == "user_day_tokens")
    assert limit["left"] < 100_000


def test_a_persons_identifier_for_the_provider_is_one(alice: ApiClient, upstream: OpenAIDouble) -> None:
    for spelling in SPELLINGS:
        assert ask(alice, safety_identifier=spelling).status_code == 200

    assert {request["body"]["safety_identifier"] for request in upstream.requests} == {JOSE}


@given(user_id=st.text(max_size=20))
def test_spelling_an_id_again_changes_nothing(user_id: str) -> None:
    normal = normal_user_id(user_id)

    assert normal_user_id(normal) == normal
    assert unicodedata.is_normalized("NFC", normal)


@pytest.mark.parametrize("user", ["ada\n", "\tada", "a\x7f", "a\x85", "a\u2028b", "\u200b", " ", "\ufeff\u2060"])
def test_ids_that_are_no_text(alice: ApiClient, upstream: OpenAIDouble, user: str) -> None:
    answer = ask(alice, user=user)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "user")
    assert "Send an id" in answer.json()["error"]["message"]
    event = alice.send("/v1/events", {"events": [{"name": "opened", "user": user}]})
    assert (event.status_code, event.json()["error"]["param"]) == (400, "events[0].user")


def test_an_id_is_as_long_as_its_column(alice: ApiClient, upstream: OpenAIDouble) -> None:
    # Composed, this letter is two: NFC excludes it.
    assert ask(alice, user="\u0958" * 127).status_code == 200
    for user in ("\u0958" * 128, "a" * 256, "a" + "\u0301\u0327" * 100_000):
        answer = ask(alice, user=user)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "user")


@pytest.mark.parametrize("spelling", ["token:{}", "to\u200bken:{}", "token:{}x", "token:"])
def test_nobody_names_the_user_of_another_client(
    alice: ApiClient, bob: ApiClient, upstream: OpenAIDouble, spelling: str
) -> None:
    user = spelling.format(bob.token_row.pk)
    message = pb.ChatRequest(messages=[pb.ChatMessage(role="user", content="Hi")], user=user)

    chat = ask(alice, user=user)
    streamed = ask(alice, user=user, stream=True)
    event = alice.send("/v1/events", {"events": [{"name": "opened"}, {"name": "opened", "user": user}]})
    usage = alice.get("/v1/usage", {"user": user})
    protobuf = alice.post(URL, message.SerializeToString(), content_type="application/x-protobuf")

    for answer, param in ((chat, "user"), (streamed, "user"), (event, "events[1].user"), (usage, "user")):
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert "Leave it out" in answer.json()["error"]["message"]
    assert (protobuf.status_code, pb.Error.FromString(protobuf.content).param) == (400, "user")
    assert not UsageEvent.objects.exists()
    assert not AnalyticsEvent.objects.exists()
    assert upstream.requests == []


def test_a_client_may_name_its_own_user(alice: ApiClient, upstream: OpenAIDouble) -> None:
    own = alice.token_row.default_user_id

    assert ask(alice, user=own).status_code == 200
    assert alice.send("/v1/events", {"events": [{"name": "opened", "user": own}]}).status_code == 201
    assert alice.get("/v1/usage", {"user": own}).status_code == 200
    assert set(AnalyticsEvent.objects.values_list("user_id", flat=True)) == {own}
