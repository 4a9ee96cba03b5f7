"""POST /v1/chat/completions.pb, and Protobuf media types on every route."""

import json
import re
import subprocess
from typing import Any

import pytest
from google.protobuf.message import Message
from pytest_django import Settings

from bench.dialects import VLLM, Dialect
from bench.openai_double import Behaviour, OpenAIDouble
from chat.api import answers
from chat.api.protobuf import ROUTES
from chat.api.serializers import MessageIn
from chat.api.urls import urlpatterns
from chat.models import IdempotencyKey
from conftest import ApiClient
from llmapi.launch import ROOT
from protos import chat_pb2 as pb
from protos.chat_pb2 import ChatMessage, ChatRequest, ChatResponse, Error

URL = "/v1/chat/completions"
TYPES = ["application/x-protobuf", "application/protobuf"]


def send(
    client: ApiClient, message: Message, url: str = f"{URL}.pb", media_type: str = TYPES[0], **headers: str
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
    sent = upstream.requests[0]["body"]
    assert {name: sent[name] for name in sent if name not in {"safety_identifier", "prompt_cache_key"}} == {
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
    first = alice.say(cid, "Hi", key="k", temperature=1, stop="x")

    asked = ChatRequest(conversation_id=cid, message="Hi", temperature=1, stop=["x"])
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


CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
SCHEMA = {"type": "object", "properties": {"b": {"type": "integer", "maximum": 5}, "a": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": SCHEMA}}
PARTS = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": "https://example.com/cat.png", "detail": "low"}},
    {"type": "input_audio", "input_audio": {"data": "AAEC", "format": "wav"}},
    {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg==", "filename": "a.pdf"}},
]


def test_everything_that_json_can_ask_for(alice: ApiClient, upstream: OpenAIDouble) -> None:
    upstream.dialect = VLLM
    parts = [
        pb.ContentPart(text="What is this?"),
        pb.ContentPart(image_url=pb.ImageUrl(url="https://example.com/cat.png", detail="low")),
        pb.ContentPart(input_audio=pb.InputAudio(data=b"\0\1\2", format="wav")),
        pb.ContentPart(file=pb.File(file_data="data:application/pdf;base64,JVBERg==", filename="a.pdf")),
    ]
    call = pb.ToolCall(id="call_1", function=pb.FunctionCall(name="weather", arguments='{"city": "Oslo"}'))
    function = pb.Function(name="weather", description="Tells it.", parameters_json=json.dumps(SCHEMA))
    asked = ChatRequest(
        messages=[
            ChatMessage(role="user", parts=parts),
            ChatMessage(role="assistant", refusal="No."),
            ChatMessage(role="assistant", tool_calls=[call]),
            ChatMessage(role="tool", tool_call_id="call_1", content="sunny"),
        ],
        tools=[pb.Tool(function=function)],
        tool_choice=pb.ToolChoice(function="weather"),
        parallel_tool_calls=False,
        response_format=pb.ResponseFormat(
            type="json_schema", json_schema=pb.JsonSchema(name="n", schema_json=json.dumps(SCHEMA), strict=True)
        ),
        reasoning_effort="low",
        verbosity="low",
        service_tier="flex",
        max_tokens=9,
        frequency_penalty=0,
        presence_penalty=0.5,
        logprobs=True,
        top_logprobs=2,
        logit_bias={"50256": -100},
        extra_json='{"n": 1}',
    )
    body = {
        "messages": [
            {"role": "user", "content": PARTS},
            {"role": "assistant", "refusal": "No."},
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        ],
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
        "reasoning_effort": "low",
        "verbosity": "low",
        "service_tier": "flex",
        "max_tokens": 9,
        "frequency_penalty": 0,
        "presence_penalty": 0.5,
        "logprobs": True,
        "top_logprobs": 2,
        "logit_bias": {"50256": -100},
        "n": 1,
    }

    assert alice.send(URL, body).status_code == send(alice, asked).status_code == 200
    as_json, as_protobuf = (request["body"] for request in upstream.requests)
    assert as_protobuf == as_json
    # A model fills in a schema in the order of its keys.
    assert [*as_protobuf["tools"][0]["function"]["parameters"]["properties"]] == ["b", "a"]


class Kind(Dialect):
    """Takes what OpenAI refuses, as providers do that want their own fields back."""

    def refuse(self, body: dict[str, Any]) -> None:
        return None


def test_thinking_is_sent_back_where_the_upstream_wants_it(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings
) -> None:
    settings.UPSTREAM_MESSAGE_FIELDS = ["reasoning_content", "reasoning_details", "extra_content"]
    upstream.dialect = Kind()
    called = told(
        {
            "tool_calls": [{**CALL, "extra_content": {"google": {"thought_signature": "s"}}}],
            "reasoning_content": "hm",
            "reasoning_details": [{"text": "hm"}],
            "extra_content": {"g": 1},
        }
    )
    reply = ask(alice, upstream, called)
    message = ChatMessage(
        role="assistant",
        tool_calls=reply.tool_calls,
        reasoning_content=reply.reasoning_content,
        reasoning_details_json=reply.reasoning_details_json,
        extra_content_json=reply.extra_content_json,
    )
    result = ChatMessage(role="tool", tool_call_id=reply.tool_calls[0].id, content="sunny")

    asked = ChatRequest(messages=[ChatMessage(role="user", content="Hi"), message, result])

    assert send(alice, asked).status_code == 200
    assert upstream.requests[-1]["body"]["messages"][1] == {
        "role": "assistant",
        "content": None,
        **json.loads(called.raw or b"")["choices"][0]["message"],
    }


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (pb.ToolChoice(mode="required"), "required"),
        (pb.ToolChoice(custom="sql"), {"type": "custom", "custom": {"name": "sql"}}),
        (
            pb.ToolChoice(choice_json='{"type": "allowed_tools", "allowed_tools": {}}'),
            {"type": "allowed_tools", "allowed_tools": {}},
        ),
    ],
)
def test_tool_choices(alice: ApiClient, upstream: OpenAIDouble, choice: pb.ToolChoice, expected: Any) -> None:
    asked = ChatRequest(
        messages=[ChatMessage(role="user", content="Hi")],
        tools=[pb.Tool(function=pb.Function(name="f")), pb.Tool(custom=pb.CustomTool(name="sql"))],
        tool_choice=choice,
    )

    assert send(alice, asked).status_code == 200
    assert upstream.requests[0]["body"]["tool_choice"] == expected


def test_an_empty_answer_can_be_sent_back(alice: ApiClient, upstream: OpenAIDouble) -> None:
    messages = [
        ChatMessage(role="user", content="Hi"),
        ChatMessage(role="assistant"),
        ChatMessage(role="user", content="?"),
    ]

    assert send(alice, ChatRequest(messages=messages)).status_code == 200
    # A reply that says nothing does not go upstream.
    assert [message["role"] for message in upstream.requests[0]["body"]["messages"]] == ["user", "user"]


@pytest.mark.parametrize("role", ["system", "developer", "user"])
def test_an_empty_text_is_one(alice: ApiClient, upstream: OpenAIDouble, role: str) -> None:
    messages = [ChatMessage(role=role, content=""), ChatMessage(role="user", content="Hi")]

    assert send(alice, ChatRequest(messages=messages)).status_code == 200
    assert upstream.requests[0]["body"]["messages"][0] == {"role": role, "content": ""}


def test_a_text_beside_parts_is_the_first_of_them(alice: ApiClient, upstream: OpenAIDouble) -> None:
    image = pb.ContentPart(image_url=pb.ImageUrl(url="https://example.com/cat.png", detail="low"))
    message = ChatMessage(role="user", content="What is this?", parts=[image])

    assert send(alice, ChatRequest(messages=[message])).status_code == 200
    assert upstream.requests[0]["body"]["messages"] == [{"role": "user", "content": PARTS[:2]}]


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (ChatRequest(extra_json="{"), "extra_json"),
        (ChatRequest(extra_json="[]"), "extra_json"),
        (
            ChatRequest(tools=[pb.Tool(function=pb.Function(name="f", parameters_json="NaN?"))]),
            "tools[0].function.parameters_json",
        ),
        (
            ChatRequest(messages=[ChatMessage(role="assistant", reasoning_details_json="{}")]),
            "messages[0].reasoning_details_json",
        ),
    ],
)
def test_broken_json_in_a_field_is_named(alice: ApiClient, asked: ChatRequest, param: str) -> None:
    answer = send(alice, asked)

    assert (answer.status_code, Error.FromString(answer.content).param) == (400, param)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused(alice: ApiClient, value: float) -> None:
    asked = ChatRequest(messages=[ChatMessage(role="user", content="Hi")], temperature=value)

    assert send(alice, asked).status_code == 400


def told(message: dict[str, Any], finish_reason: Any = "stop", **top: Any) -> Behaviour:
    """A whole answer of the upstream, as it stands here."""
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish_reason}
    choice["logprobs"] = top.pop("logprobs", None)
    head = {"id": "u1", "object": "chat.completion", "created": 1_772_443_800, "model": "gpt-4o-mini"}
    return Behaviour(raw=json.dumps({**head, "choices": [choice], "usage": usage, **top}).encode())


def ask(alice: ApiClient, upstream: OpenAIDouble, behaviour: Behaviour) -> ChatResponse:
    upstream.plan(behaviour)
    answer = send(alice, ChatRequest(messages=[ChatMessage(role="user", content="Hi")]))
    assert answer.status_code == 200, answer.content
    return ChatResponse.FromString(answer.content)


def test_a_refusal_arrives(alice: ApiClient, upstream: OpenAIDouble) -> None:
    assert ask(alice, upstream, told({"refusal": "I will not."})).refusal == "I will not."


def test_tool_calls_arrive(alice: ApiClient, upstream: OpenAIDouble) -> None:
    reply = ask(alice, upstream, told({"tool_calls": [CALL]}, "tool_calls"))

    (call,) = reply.tool_calls
    assert (call.id, call.type, call.function.arguments) == ("call_1", "function", CALL["function"]["arguments"])  # type: ignore[index]
    assert reply.finish_reason == "tool_calls"


def test_a_reply_that_thinking_has_eaten_says_so(alice: ApiClient, upstream: OpenAIDouble) -> None:
    assert ask(alice, upstream, told({}, "length")).incomplete_details.reason == "max_output_tokens"
    assert not ask(alice, upstream, told({"content": "Hi"}, "length")).HasField("incomplete_details")


def test_what_a_provider_adds_arrives(alice: ApiClient, upstream: OpenAIDouble) -> None:
    beside = {
        "extra_content": {"google": {"thought_signature": "é"}},
        "reasoning_details": [{"type": "reasoning.text", "text": "hm"}],
        "images": [{"image_url": {"url": "data:image/png;base64,AA=="}}],
    }
    whole = {"citations": ["https://example.com"], "search_results": [{"title": "t"}], "moderation": {"b": 1, "a": 2}}
    call = {**CALL, "extra_content": {"google": {"thought_signature": "s"}}}

    reply = ask(alice, upstream, told({"content": "Hi", "tool_calls": [call], **beside}, **whole))

    told_in_json = {name: getattr(reply, f"{name}_json") for name in (*beside, *whole)}
    assert {name: json.loads(text) for name, text in told_in_json.items()} == {**beside, **whole}
    assert json.loads(reply.tool_calls[0].extra_content_json) == call["extra_content"]


def test_details_arrive(alice: ApiClient, upstream: OpenAIDouble) -> None:
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 1, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": None},
    }
    logprobs = {
        "content": [
            {"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": [{"token": "e", "logprob": -1}]}
        ]
    }
    citation = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 1, "title": "t", "url": "u"}}
    message = {"content": "é", "annotations": [citation], "reasoning_content": "Hm."}

    reply = ask(
        alice,
        upstream,
        told(message, usage=usage, logprobs=logprobs, service_tier="flex", system_fingerprint="fp_1"),
    )

    assert reply.usage.prompt_tokens_details.cached_tokens == 3
    assert reply.usage.prompt_tokens_details.cache_write_tokens == 1
    assert reply.usage.completion_tokens_details.reasoning_tokens == 2
    (token,) = reply.logprobs.content
    assert (token.utf8, token.logprob, token.top_logprobs[0].token) == ("é".encode(), -0.5, "e")
    assert (reply.service_tier, reply.system_fingerprint, reply.created) == ("flex", "fp_1", 1_772_443_800)
    assert (reply.annotations[0].url_citation.end_index, reply.reasoning_content) == (1, "Hm.")


@pytest.mark.parametrize(
    "odd",
    [
        {"created": -1},
        {"created": 2**40},
        {"created": True},
        {"service_tier": 5, "system_fingerprint": ["fp"]},
        {"usage": {"prompt_tokens_details": {"cached_tokens": -1}, "completion_tokens_details": "none"}},
        {"usage": {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1e300}}},
        {"logprobs": {"content": [{"token": 5, "logprob": "low", "bytes": [300]}, None]}},
        {"logprobs": {"content": [{"token": "a", "logprob": 10**400, "bytes": "&"}]}},
    ],
)
def test_an_odd_figure_loses_no_reply(alice: ApiClient, upstream: OpenAIDouble, odd: dict[str, Any]) -> None:
    reply = ask(alice, upstream, told({"content": "Hello", "annotations": [5], "refusal": None}, **odd))

    assert (reply.reply, reply.finish_reason) == ("Hello", "stop")


def test_a_cancelled_reply_says_so(alice: ApiClient, upstream: OpenAIDouble) -> None:
    asked = ChatRequest(messages=[ChatMessage(role="user", content="Hi")])
    send(alice, asked, **{"Idempotency-Key": "k"})
    row = IdempotencyKey.objects.get()
    row.response_json = json.dumps({**json.loads(row.response_json or ""), "cancelled": True})
    row.save()

    answer = send(alice, asked, **{"Idempotency-Key": "k"})

    assert ChatResponse.FromString(answer.content).cancelled


def test_an_error_says_when_to_try_again(alice: ApiClient, settings: Settings) -> None:
    settings.RATE_LIMIT_PER_MIN = 1
    send(alice, ChatRequest())

    error = Error.FromString(send(alice, ChatRequest()).content)

    assert 0 < error.retry_after_ms <= 60_000
    assert not error.HasField("should_retry")


def test_an_error_says_not_to_try_again(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    alice.say(cid, "Hi", key="k")

    answer = send(alice, ChatRequest(conversation_id=cid, message="Ho"), **{"Idempotency-Key": "k"})

    error = Error.FromString(answer.content)
    assert (error.code, error.HasField("should_retry"), error.should_retry) == ("idempotency_key_reused", True, False)
    assert not error.HasField("retry_after_ms")


def read(client: ApiClient, path: str, kind: Any, method: str = "get") -> Any:
    answer = client.generic(method.upper(), f"/v1/{path}", headers={"accept": TYPES[0]})
    assert (answer.status_code, answer["Content-Type"]) == (200, TYPES[0]), answer.content
    return kind.FromString(answer.content)


def write(client: ApiClient, path: str, message: Message, kind: Any) -> Any:
    answer = send(client, message, f"/v1/{path}", accept=TYPES[0])
    assert (answer.status_code // 100, answer["Content-Type"]) == (2, TYPES[0]), answer.content
    return kind.FromString(answer.content)


def test_conversations(alice: ApiClient) -> None:
    first = ChatMessage(role="user", content="Hi")
    made = write(alice, "conversations", pb.ConversationRequest(metadata={"a": "1"}, items=[first]), pb.Conversation)
    path = f"conversations/{made.id}"

    assert (made.metadata["a"], made.created_at > 0) == ("1", True)
    assert read(alice, path, pb.Conversation) == made
    changed = write(alice, path, pb.ConversationUpdate(metadata=pb.Metadata(pairs={"b": "2"})), pb.Conversation)
    assert dict(changed.metadata) == {"b": "2"}
    assert not write(alice, path, pb.ConversationUpdate(metadata=pb.Metadata()), pb.Conversation).metadata
    assert read(alice, path, pb.ConversationDeleted, "delete").deleted
    gone = alice.get(f"/v1/{path}", headers={"accept": TYPES[0]})
    assert (gone.status_code, Error.FromString(gone.content).code) == (404, "conversation_not_found")


def test_items(alice: ApiClient) -> None:
    path = f"conversations/{alice.conversation()}/items"
    image = pb.ContentPart(image_url=pb.ImageUrl(url="https://example.com/cat.png", detail="low"))
    asked = [ChatMessage(role="user", parts=[pb.ContentPart(text="What?"), image]), ChatMessage(role="assistant")]

    added = write(alice, path, pb.ItemsRequest(items=asked), pb.ItemList)
    listed = read(alice, f"{path}?limit=1&order=asc", pb.ItemList)

    assert [*listed.data] == [added.data[0]]
    assert (listed.last_id, listed.has_more) == (added.data[0].id, True)
    assert [*added.data[0].content] == [*asked[0].parts]
    assert (added.data[1].role, [*added.data[1].content]) == ("assistant", [])
    assert read(alice, f"{path}/{added.last_id}", pb.Item) == added.data[1]
    assert read(alice, f"{path}/{added.last_id}", pb.Conversation, "delete").id in path


def test_models(alice: ApiClient) -> None:
    listed = read(alice, "models", pb.ModelList)

    assert "gpt-4o-mini" in [model.id for model in listed.data]
    assert read(alice, "models/gpt-4o-mini", pb.Model).owned_by == "llmapi"


def test_usage(alice: ApiClient, upstream: OpenAIDouble) -> None:
    send(alice, ChatRequest(messages=[ChatMessage(role="user", content="Hi")]))

    report = read(alice, "usage", pb.UsageReport)
    (row,) = report.data
    assert (row.turns, row.total_tokens) == (1, upstream.sold[0]["total_tokens"])
    assert row.HasField("cost_usd")
    assert report.first_day < report.last_day == row.day
    assert report.limits[0].name == "requests_per_min"


def test_events(alice: ApiClient) -> None:
    opened = pb.Event(name="opened", id="e1", occurred_at=1_772_443_800.5)
    asked = pb.EventsRequest(events=[opened, pb.Event(name="opened")], sent_at=1_772_443_801)

    assert write(alice, "events", asked, pb.EventsStored).stored == 2
    assert write(alice, "events", pb.EventsRequest(events=[opened], sent_at=1_772_443_801), pb.EventsStored) == (
        pb.EventsStored(stored=0, duplicates=1)
    )


def test_cancellation(alice: ApiClient, upstream: OpenAIDouble) -> None:
    reply = ChatResponse.FromString(send(alice, ChatRequest(messages=[ChatMessage(role="user", content="Hi")])).content)

    cancellation = write(alice, f"chat/completions/{reply.request_id}/cancel", ChatRequest(), pb.Cancellation)

    assert (cancellation.id, cancellation.status) == (reply.request_id, "completed")


def test_every_route_has_its_messages() -> None:
    views: list[Any] = [pattern.callback for pattern in urlpatterns if hasattr(pattern.callback, "actions")]

    assert set(ROUTES) == {f"{view.cls.__name__}.{action}" for view in views for action in view.actions.values()}


@pytest.mark.parametrize(
    ("message", "described"),
    [
        (pb.ChatMessage, [MessageIn]),
        (pb.ToolCall, [answers.ToolCallOut, answers.CallDelta]),
        (pb.ChatResponse, [answers.CompletionOut, answers.ReplyOut]),
        (pb.ChatChunk, [answers.Chunk, answers.DELTA]),
        (pb.Item, [answers.ItemOut]),
        (pb.Usage, [answers.UsageOut]),
    ],
)
def test_what_json_has_protobuf_has(message: type[Message], described: list[Any]) -> None:
    in_json = {name for shape in described for name in shape._declared_fields}
    in_protobuf = {field.name.removesuffix("_json") for field in message.DESCRIPTOR.fields}

    # What is left has another name, or is the same in every message.
    assert in_json - in_protobuf <= {"id", "object", "type", "choices", "role", "content"}


def test_the_page_names_the_messages_of_every_route() -> None:
    rows = (ROOT / "docs" / "protobuf.md").read_text().splitlines()
    named = [
        tuple(re.findall(r"\w+", cell)[:1] for cell in row.split("|")[2:4]) for row in rows if row.startswith("| ")
    ]

    kinds = [(route.request, route.answer) for route in ROUTES.values()]
    expected = [([kind.DESCRIPTOR.name] if kind else [] for kind in route) for route in kinds]
    assert sorted(map(repr, named[1:-1])) == sorted(repr(tuple(names)) for names in expected)


def test_clients_of_the_released_file_are_not_broken() -> None:
    command: list[Any] = [ROOT / ".venv/bin/buf", "breaking", "protos", "--against", "chat/tests/released"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr


def test_other_languages_have_their_packages() -> None:
    options = pb.DESCRIPTOR.GetOptions()

    assert options.go_package == "github.com/llmapi/llmapi/protos/chatv1;chatv1"
    assert (options.java_package, options.java_multiple_files) == ("com.llmapi.chat.v1", True)
