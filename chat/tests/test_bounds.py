"""What a request may make the processor do: it is counted before it is read, and refused past a bound."""

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.serializers import ValidationError

from analytics import fairness
from bench.openai_double import OpenAIDouble
from chat import pieces
from chat.api import messages, parsers, parts, serializers, values
from chat.api.scalars import Text
from chat.pieces import MAX_VALUES, PIECE_BYTES, count_json
from conftest import ApiClient
from protos import chat_pb2 as pb

URL = "/v1/chat/completions"
USER = {"role": "user", "content": "Hi"}
TEXT = {"type": "text", "text": "a"}
MIB = 1024 * 1024
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab,[]{}:"\\\n\u00e9\U0001d11e', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='a,"\\[', max_size=4), inner, max_size=4)
    ),
)


def ask(client: ApiClient, **fields: Any) -> Any:
    return client.send(URL, {"messages": [USER], **fields})


def problem(answer: Any) -> tuple[int, str | None]:
    return answer.status_code, answer.json()["error"]["param"]


def post_protobuf(client: Client, path: str, message: Any) -> Any:
    return client.post(path, message.SerializeToString(), content_type="application/x-protobuf")


def problem_of_protobuf(answer: Any) -> tuple[int, str | None]:
    return answer.status_code, pb.Error.FromString(answer.content).param or None


def count_values(value: Any) -> int:
    """Count values as `count_json` does: an empty container as if there were something in it."""
    inner = [*value.values()] if isinstance(value, dict) else value if isinstance(value, list) else None
    return 1 if inner is None else 1 + (sum(map(count_values, inner)) or 1)


# --- the count ---


@given(value=JSON, is_ascii=st.booleans(), piece=st.integers(min_value=1, max_value=20))
def test_values_are_counted_outside_of_texts_however_it_is_cut(value: Any, is_ascii: bool, piece: int) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_BYTES", piece)

        assert count_json(text, MAX_VALUES) == count_values(value)


@given(text=st.text(alphabet='a,[{"\\', max_size=50))
def test_what_is_no_json_can_be_counted(text: str) -> None:
    assert count_json(text.encode(), MAX_VALUES) >= 1


@pytest.mark.parametrize("unit", ['\\"', ",", '"",', "\\\\", "[", "{", "a", "\\u00e9"])
def test_the_count_takes_memory_for_one_piece(unit: str) -> None:
    text = ('"' + unit * (8 * MIB // len(unit))).encode()
    tracemalloc.start()
    try:
        count_json(text, 10**9)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 5 * MIB


def test_the_count_stops_soon_after_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    breaths: list[None] = []
    monkeypatch.setattr(fairness, "breathe", lambda: breaths.append(None))

    assert MAX_VALUES < count_json(b"[" * 8 * MIB, MAX_VALUES) <= MAX_VALUES + PIECE_BYTES + 1
    assert len(breaths) <= 1


# --- bodies with too many values ---

TOO_MANY_JSON = {
    "lists": "[" + "[]," * 400_000 + "[]]",
    "entries": json.dumps({"messages": [USER], "metadata": {f"k{n}": n for n in range(150_000)}}),
    "the same key": "{" + '"a":1,' * 400_000 + '"a":1}',
    "objects in objects": '{"a":' * 200_000 + "1" + "}" * 200_000,
    "texts": json.dumps(["\\"] * 100_000),
    "after a mistake in a text": '{"a":"\\"' + '","b":"' * 100_000,
}


@pytest.mark.parametrize("body", TOO_MANY_JSON.values(), ids=TOO_MANY_JSON)
@pytest.mark.parametrize("path", [URL, "/v1/conversations", "/v1/conversations/c_1/items", "/v1/events"])
def test_a_body_of_too_many_values_is_not_parsed(
    alice: ApiClient, monkeypatch: pytest.MonkeyPatch, body: str, path: str
) -> None:
    path = path.replace("c_1", alice.conversation()) if "c_1" in path else path
    monkeypatch.setattr(parsers, "load_json", lambda text: pytest.fail("it was parsed"))

    answer = alice.send(path, body)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (413, "request_too_large")
    assert f"more than {MAX_VALUES:,} values" in error["message"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (URL, pb.ChatRequest(messages=[pb.ChatMessage(parts=[pb.ContentPart(text="")] * 60_000)])),
        (URL, pb.ChatRequest(messages=[pb.ChatMessage()] * 200_000)),
        (URL, pb.ChatRequest(logit_bias={str(n): 1.0 for n in range(60_000)})),
        (URL, pb.ChatRequest(stop=[""] * 200_000)),
        ("/v1/conversations", pb.ConversationRequest(metadata={str(n): "" for n in range(60_000)})),
        ("/v1/conversations/c_1/items", pb.ItemsRequest(items=[pb.ChatMessage()] * 200_000)),
        ("/v1/events", pb.EventsRequest(events=[pb.Event()] * 200_000)),
    ],
)
def test_a_message_of_too_many_fields_is_not_parsed(
    alice: ApiClient, monkeypatch: pytest.MonkeyPatch, path: str, message: Any
) -> None:
    path = path.replace("c_1", alice.conversation()) if "c_1" in path else path
    monkeypatch.setattr(parsers, "fields_of", lambda *args: pytest.fail("it was parsed"))

    answer = post_protobuf(alice, path, message)

    assert problem_of_protobuf(answer) == (413, None)


def test_values_in_all_fields_of_a_message_count_together(alice: ApiClient) -> None:
    one = json.dumps([1] * (MAX_VALUES // 3))
    asked = [pb.ChatMessage(role="assistant", content="a", reasoning_details_json=one) for _ in range(4)]

    answer = post_protobuf(alice, URL, pb.ChatRequest(messages=asked))

    assert problem_of_protobuf(answer) == (413, "messages[2].reasoning_details_json")


@given(body=st.binary(max_size=60))
def test_any_bytes_can_be_counted_as_protobuf(body: bytes) -> None:
    count = values.count_fields(body, pb.ChatRequest.DESCRIPTOR, MAX_VALUES)

    assert 0 <= count <= len(body)


@given(data=st.data())
def test_all_fields_of_a_message_are_counted(data: st.DataObject) -> None:
    texts, calls = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))
    call = pb.ToolCall(id="c", function=pb.FunctionCall(name="w"))
    one = pb.ChatMessage(role="user", parts=[pb.ContentPart(text="a")] * texts, tool_calls=[call] * calls)

    count = values.count_fields(pb.ChatRequest(messages=[one, one]).SerializeToString(), pb.ChatRequest.DESCRIPTOR, 99)

    assert count == 2 * (1 + 1 + 2 * texts + 4 * calls)


# --- what is within the bound ---


def test_a_long_text_of_commas_and_quotes_passes(alice: ApiClient, upstream: OpenAIDouble) -> None:
    text = '"a", [b], {"c": "\\"}\n' * 10_000

    assert ask(alice, messages=[{"role": "user", "content": text}]).status_code == 200
    assert upstream.requests[-1]["body"]["messages"][-1]["content"] == text


def test_2048_messages_with_calls_and_tools_pass(alice: ApiClient, upstream: OpenAIDouble) -> None:
    schema = {"type": "object", "properties": {f"p{n}": {"type": "string", "description": "x"} for n in range(20)}}
    tools = [{"type": "function", "function": {"name": f"t{n}", "parameters": schema}} for n in range(128)]
    sent: list[dict[str, Any]] = [{"role": "user", "content": [TEXT, TEXT, TEXT]}] * 2
    for n in range(1023):
        call = {"id": f"c{n}", "type": "function", "function": {"name": "t1", "arguments": '{"p1": "a"}'}}
        sent += [{"role": "assistant", "content": None, "tool_calls": [call]}]
        sent += [{"role": "tool", "tool_call_id": f"c{n}", "content": "x"}]
    assert len(sent) == messages.MAX_MESSAGES

    answer = ask(alice, messages=sent, tools=tools)

    assert answer.status_code == 200, answer.content


# --- parts, calls and lists ---

CALL = {"id": "c", "type": "function", "function": {"name": "w", "arguments": "{}"}}
FULL = {"role": "user", "content": [TEXT] * parts.MAX_PARTS}
HEAVY = {**CALL, "function": {"name": "w", "arguments": json.dumps([[]] * 20_000)}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"messages": [USER, {"role": "user", "content": [TEXT] * (parts.MAX_PARTS + 1)}]},
            (400, "messages[1].content"),
        ),
        ({"messages": [FULL] * 9}, (400, "messages[8].content")),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL] * 2049}]}, (400, "messages[0].tool_calls")),
        ({"messages": [{"role": "assistant", "tool_calls": [HEAVY] * 3}]}, (413, "tool_calls")),
        ({"messages": [USER] * 2049}, (400, "messages")),
        ({"tools": [{"type": "function"}] * 129}, (400, "tools")),
        ({"tools": ["x"] * 40_000}, (400, "tools")),
        ({"logit_bias": {str(n): "x" for n in range(20_000)}}, (400, "logit_bias")),
        ({"modalities": [1] * 40_000}, (400, "modalities")),
        ({"stop": [[]] * 24_000}, (400, "stop")),
        ({"metadata": {str(n): [] for n in range(20_000)}}, (400, "metadata")),
    ],
)
def test_lists_that_are_too_long(
    alice: ApiClient, upstream: OpenAIDouble, fields: dict[str, Any], expected: tuple[int, str]
) -> None:
    answer = ask(alice, **fields)

    assert problem(answer) == expected
    assert "at most" in answer.content.decode() or "no more than" in answer.content.decode() or expected[0] == 413
    assert upstream.requests == []


def test_items_have_as_many_parts_as_a_request(alice: ApiClient) -> None:
    path = f"/v1/conversations/{alice.conversation()}/items"

    assert problem(alice.send(path, {"items": [FULL] * 9})) == (400, "items[8].content")
    assert alice.send(path, {"items": [FULL] * 8}).status_code == 200


def test_a_list_of_events_is_measured_before_they_are_read(alice: ApiClient) -> None:
    assert problem(alice.send("/v1/events", {"events": [{"x": 1}] * 20_000})) == (400, "events")


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("logit_bias", {str(n): "x" for n in range(1_000)}),
        ("tools", ["x"] * 128),
        ("modalities", [1] * 8),
    ],
)
def test_the_first_mistake_is_told_and_no_other_is_looked_for(
    alice: ApiClient, monkeypatch: pytest.MonkeyPatch, field: str, bad: Any
) -> None:
    asked: list[Any] = []
    child = serializers.bound_fields(serializers.CompletionIn)[field].child
    look: Callable[[Any], Any] = child.run_validation

    def counted(value: Any) -> Any:
        asked.append(value)
        return look(value)

    monkeypatch.setattr(child, "run_validation", counted)

    status, param = problem(ask(alice, **{field: bad}))

    assert (status, str(param)[: len(field)], len(asked)) == (400, field, 1)


# --- long keys and numbers ---


@pytest.mark.parametrize(
    "body",
    [
        '{"%s": 1}' % ("k" * MIB),
        '{"messages": [{"role": "user", "%s": 1}]}' % ("k" * MIB),
        '{"messages": [{"role": "%s"}]}' % ("k" * MIB),
        '{"messages": [{"role": "user", "content": [{"type": "%s"}]}]}' % ("k" * MIB),
        '{"messages": [{"role": "user", "content": "x"}], "logit_bias": {"%s": "x"}}' % ("k" * MIB),
        '{"messages": [{"role": "user", "content": "x"}], "metadata": {"%s": 5}}' % ("k" * MIB),
        '{"messages": [{"role": "user", "content": "x"}], "stream_options": {"%s": 5}}' % ("k" * MIB),
        '{"messages": [{"role": "user", "content": "x"}], "model": "%s"}' % ("k" * MIB),
        '{"messages": [{"role": "user", "content": "x"}], "user": "%s"}' % ("k" * MIB),
        '{"messages": [{"role": "user", "content": "x"}], "seed": %s}' % ("1" * MIB),
        '{"messages": [{"role": "user", "content": "x"}], "temperature": 5.%s}' % ("1" * MIB),
        '{"a": ' + "[" * 30_000,
        "x" * MIB,
        '"' + "x" * MIB,
    ],
)
def test_an_error_is_short(alice: ApiClient, body: str) -> None:
    for path in (URL, "/v1/events", "/v1/conversations"):
        answer = alice.send(path, body)

        assert 400 <= answer.status_code < 500
        assert len(answer.content) < 4096


@pytest.mark.parametrize("value", ["1" * 501, "-" + "1" * 501])
def test_a_number_of_too_many_digits_is_refused_before_it_is_read(alice: ApiClient, value: str) -> None:
    answer = alice.send(URL, '{"messages": [{"role": "user", "content": "x"}], "seed": ' + value + "}")

    assert answer.status_code == 400
    assert "too large" in answer.json()["error"]["message"]


def test_a_text_is_not_looked_at_character_by_character() -> None:
    slow = {type(each).__name__ for each in Text().validators}

    assert slow == set()
    with pytest.raises(ValidationError):
        Text().run_validation("a\0")
    with pytest.raises(ValidationError):
        Text().run_validation("a\ud800")
