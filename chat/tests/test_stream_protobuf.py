"""Streams as Protobuf frames."""

import io
from typing import Any

import pytest
from google.protobuf import proto

from bench.openai_double import Behaviour, OpenAIDouble
from chat.tests.streaming import URL
from conftest import ApiClient
from protos.chat_pb2 import ChatChunk, ChatRequest, Error

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_turn_is_left")]
every_dialect = pytest.mark.usefixtures("dialect")


def frames(answer: Any) -> list[ChatChunk]:
    body = io.BytesIO(b"".join(answer.streaming_content))
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
