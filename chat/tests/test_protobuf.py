"""POST /v1/chat/completions.pb and Protobuf media types."""

from typing import Any

import pytest
from pytest_django import Settings

from bench.openai_double import Behaviour, OpenAIDouble
from conftest import ApiClient
from protos.chat_pb2 import ChatMessage, ChatRequest, ChatResponse, Error

URL = "/v1/chat/completions"
TYPES = ["application/x-protobuf", "application/protobuf"]


def send(
    client: ApiClient, message: ChatRequest, url: str = f"{URL}.pb", media_type: str = TYPES[0], **headers: str
) -> Any:
    return client.post(url, message.SerializeToString(), content_type=media_type, headers=headers)


@pytest.mark.parametrize("media_type", TYPES)
@pytest.mark.parametrize("url", [URL, f"{URL}.pb"])
def test_it_works(alice: ApiClient, upstream: OpenAIDouble, url: str, media_type: str) -> None:
    cid = alice.conversation()

    answer = send(alice, ChatRequest(conversation_id=cid, message="Hi", user="u"), url, media_type)

    assert answer.status_code == 200
    assert answer["Content-Type"] == media_type
    reply = ChatResponse.FromString(answer.content)
    assert (reply.reply, reply.conversation_id, reply.model) == ("echo: Hi", cid, "gpt-4o-mini")
    assert (reply.finish_reason, reply.request_id) == ("stop", answer["x-request-id"])
    assert reply.usage.total_tokens == upstream.sold[0]["total_tokens"]


def test_messages_and_parameters(alice: ApiClient, upstream: OpenAIDouble) -> None:
    asked = ChatRequest(messages=[ChatMessage(role="user", content="Hi")], temperature=0, seed=5, stop=["x"])

    assert send(alice, asked).status_code == 200
    assert upstream.requests[0]["body"] == {
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0.0,
        "seed": 5,
        "stop": ["x"],
        "model": "gpt-4o-mini",
    }


def test_accept_decides_between_the_formats(alice: ApiClient, upstream: OpenAIDouble) -> None:
    asked = ChatRequest(messages=[ChatMessage(role="user", content="Hi")])

    as_json = send(alice, asked, URL, accept="application/json")
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    as_protobuf = alice.send(URL, body, accept=TYPES[1])

    assert as_json.json()["reply"] == ChatResponse.FromString(as_protobuf.content).reply == "echo: Hi"
    assert send(alice, asked, URL, accept="*/*;q=0.5")["Content-Type"] == TYPES[0]


def test_a_key_used_in_one_format_replays_in_the_other(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    first = alice.say(cid, "Hi", key="k", temperature=1)

    asked = ChatRequest(conversation_id=cid, message="Hi", temperature=1)
    again = send(alice, asked, **{"Idempotency-Key": "k"})

    assert again["Idempotent-Replayed"] == "true"
    assert ChatResponse.FromString(again.content).request_id == first.json()["id"]
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("message", "behaviour", "status", "code", "param"),
    [
        (ChatRequest(), Behaviour(), 400, "invalid_request", ""),
        (ChatRequest(message="Hi"), Behaviour(), 400, "invalid_request", "conversation_id"),
        (ChatRequest(message="Hi", conversation_id="c_x"), Behaviour(), 404, "conversation_not_found", ""),
        (
            ChatRequest(messages=[ChatMessage(role="user", content="Hi")]),
            Behaviour(status=500),
            502,
            "upstream_error",
            "",
        ),
    ],
)
def test_errors_are_protobuf(
    alice: ApiClient,
    upstream: OpenAIDouble,
    message: ChatRequest,
    behaviour: Behaviour,
    status: int,
    code: str,
    param: str,
) -> None:
    upstream.plan(behaviour)

    answer = send(alice, message)

    error = Error.FromString(answer.content)
    assert answer["Content-Type"] == TYPES[0]
    assert (answer.status_code, error.code, error.param) == (status, code, param)
    assert error.message


@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"\x12\x02\xff\xff", b'{"message": "Hi"}'])
def test_garbage_is_refused(alice: ApiClient, body: bytes) -> None:
    answer = alice.post(f"{URL}.pb", body, content_type=TYPES[0])

    assert (answer.status_code, Error.FromString(answer.content).code) == (400, "invalid_request")


def test_an_unknown_route_is_protobuf_too(alice: ApiClient) -> None:
    answer = send(alice, ChatRequest(message="Hi"), "/v1/embeddings")

    assert (answer.status_code, Error.FromString(answer.content).code) == (404, "not_found")


def test_our_own_bug_is_protobuf_too(alice: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat.turns.lifecycle.take_turn", lambda ask: 1 / 0)

    answer = send(alice, ChatRequest(messages=[ChatMessage(role="user", content="Hi")]))

    assert (answer.status_code, Error.FromString(answer.content).code) == (500, "internal_error")


def test_the_limit_and_the_length_are_protobuf_too(alice: ApiClient, settings: Settings) -> None:
    settings.MAX_REQUEST_BYTES = 10
    assert Error.FromString(send(alice, ChatRequest(message="x" * 20)).content).code == "request_too_large"
    settings.RATE_LIMIT_PER_MIN = 1

    answer = send(alice, ChatRequest(message="x"))

    assert (answer.status_code, Error.FromString(answer.content).code) == (429, "rate_limit_exceeded")


def test_no_token_is_protobuf_too(alice: ApiClient) -> None:
    answer = send(alice, ChatRequest(), authorization="")

    assert (answer.status_code, Error.FromString(answer.content).code) == (401, "invalid_token")
