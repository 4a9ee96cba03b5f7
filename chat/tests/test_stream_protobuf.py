"""Streams as Protobuf frames."""

import io
import json
from typing import Any

import pytest
from google.protobuf import proto

from bench.openai_double import Behaviour, OpenAIDouble
from chat.tests.streaming import URL
from conftest import ApiClient
from protos.chat_pb2 import ChatChunk, ChatMessage, ChatRequest, Error

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_turn_is_left")]
every_dialect = pytest.mark.usefixtures("dialect")


def frames(answer: Any) -> list[ChatChunk]:
    return parsed(b"".join(answer.streaming_content))


def parsed(stream: bytes) -> list[ChatChunk]:
    body = io.BytesIO(stream)
    chunks: list[ChatChunk] = []
    while body.tell() < len(body.getbuffer()):
        chunks.append(proto.parse_length_prefixed(ChatChunk, body))
    return chunks


def send_pb(client: ApiClient, **fields: Any) -> Any:
    return client.post(
        f"{URL}.pb", ChatRequest(stream=True, **fields).SerializeToString(), content_type="application/protobuf"
    )


@every_dialect
def test_protobuf(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()

    answer = send_pb(alice, conversation_id=cid, message="Hello there")

    chunks = frames(answer)
    assert answer["Content-Type"] == "application/protobuf"
    assert "".join(chunk.delta for chunk in chunks) == "echo: Hello there"
    assert (chunks[0].conversation_id, chunks[0].request_id) == (cid, answer["x-request-id"])
    assert chunks[-1].usage.total_tokens > 0
    assert chunks[-2].finish_reason == "stop"


@every_dialect
def test_protobuf_errors(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    upstream.plan(Behaviour(status=500), Behaviour(text="one two three", stop_after=2))

    plain = send_pb(alice, conversation_id=cid, message="Hi")
    broken = send_pb(alice, conversation_id=cid, message="Hi")

    assert (plain.status_code, Error.FromString(plain.content).code) == (502, "upstream_error")
    assert frames(broken)[-1].error.code == "upstream_error"


def sse(*chunks: dict[str, Any]) -> Behaviour:
    """A stream of the upstream, as it stands here."""
    head = {"id": "u1", "object": "chat.completion.chunk", "created": 1_772_443_800, "model": "gpt-4o-mini"}
    events = [f"data: {json.dumps({**head, **chunk})}\n\n" for chunk in chunks]
    return Behaviour(raw="".join([*events, "data: [DONE]\n\n"]).encode(), headers={"Content-Type": "text/event-stream"})


def choice(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **more}


HI = [ChatMessage(role="user", content="Hi")]


def test_tool_calls_come_in_pieces(alice: ApiClient, upstream: OpenAIDouble) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    pieces = [
        {"index": 0, **call},
        {"index": 0, "function": {"arguments": '{"a":'}},
        {"index": 1, **call, "id": "call_2"},
        {"index": 0, "function": {"arguments": "}"}},
    ]
    deltas = [choice({"tool_calls": [piece]}) for piece in pieces]
    upstream.plan(sse(*deltas, choice({}, "tool_calls")))

    chunks = frames(send_pb(alice, messages=HI))

    calls = [call for chunk in chunks for call in chunk.tool_calls]
    # A call is told of with its first arguments, or at the end: until then its name may go on.
    assert [(call.index, call.id, call.function.name, call.function.arguments) for call in calls] == [
        (0, "call_1", "weather", '{"a":'),
        (0, "", "", "}"),
        (1, "call_2", "weather", "{}"),  # no arguments are an empty object of them
    ]
    assert all(call.HasField("index") for call in calls)


def test_a_refusal_and_details_arrive(alice: ApiClient, upstream: OpenAIDouble) -> None:
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    first = choice({"role": "assistant", "refusal": "I "}, service_tier="flex", system_fingerprint="fp_1")
    upstream.plan(sse(first, choice({"refusal": "will not."}), choice({}, "stop"), {"choices": [], "usage": usage}))

    chunks = frames(send_pb(alice, messages=HI))

    assert "".join(chunk.refusal for chunk in chunks) == "I will not."
    assert (chunks[0].service_tier, chunks[0].system_fingerprint) == ("flex", "fp_1")
    assert chunks[0].created == 1_772_443_800
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 3
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens == 1


def test_a_reply_that_thinking_has_eaten_says_so(alice: ApiClient, upstream: OpenAIDouble) -> None:
    upstream.plan(sse(choice({"role": "assistant", "content": ""}), choice({}, "length")))

    chunks = frames(send_pb(alice, messages=HI))

    assert [chunk.incomplete_details.reason for chunk in chunks if chunk.finish_reason] == ["max_output_tokens"]


def test_what_a_provider_adds_arrives(alice: ApiClient, upstream: OpenAIDouble) -> None:
    beside = {
        "extra_content": {"google": {"thought_signature": "é"}},
        "reasoning_details": [{"type": "reasoning.text", "text": "hm"}],
        "images": [{"image_url": {"url": "data:image/png;base64,AA=="}}],
    }
    whole = {"citations": ["https://example.com"], "search_results": [{"title": "t"}], "moderation": {"b": 1, "a": 2}}
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"a": 1}'}}
    signed = {"index": 0, **call, "extra_content": {"google": {}}}
    upstream.plan(sse(choice({"content": "Hi", "tool_calls": [signed], **beside}), choice({}, "tool_calls", **whole)))

    chunks = frames(send_pb(alice, messages=HI))

    for name, value in {**beside, **whole}.items():
        (text,) = [text for chunk in chunks if (text := getattr(chunk, f"{name}_json"))]
        assert json.loads(text) == value
    (piece,) = [call for chunk in chunks for call in chunk.tool_calls]
    assert json.loads(piece.extra_content_json) == {"google": {}}
    (last,) = [chunk for chunk in chunks if chunk.finish_reason]
    assert last.citations_json


def test_an_odd_figure_loses_no_reply(alice: ApiClient, upstream: OpenAIDouble) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": -1}}
    first = choice({"role": "assistant", "content": "Hi"}, created=-5, service_tier=5)
    upstream.plan(sse(first, choice({}, "stop", created=2**50), {"choices": [], "usage": usage}))

    chunks = frames(send_pb(alice, messages=HI))

    assert "".join(chunk.delta for chunk in chunks) == "Hi"
    assert chunks[-1].usage.total_tokens == 7


def test_a_cancelled_stream_says_so(alice: ApiClient, upstream: OpenAIDouble) -> None:
    upstream.plan(Behaviour(text="one two three", stop_after=1, ending="hang"))
    answer = send_pb(alice, messages=HI)
    body = iter(answer.streaming_content)
    start = next(body)
    request_id = answer["x-request-id"]

    alice.post(f"/v1/chat/completions/{request_id}/cancel")
    chunks = parsed(start + b"".join(body))

    (last,) = [chunk for chunk in chunks if chunk.finish_reason]
    assert (last.cancelled, last.finish_reason) == (True, "stop")


def test_an_error_says_what_to_do(alice: ApiClient, upstream: OpenAIDouble) -> None:
    upstream.plan(Behaviour(text="one two three", stop_after=2))

    error = frames(send_pb(alice, messages=HI))[-1].error

    # It may have been billed, and there is no key.
    assert (error.HasField("should_retry"), error.should_retry) == (True, False)
