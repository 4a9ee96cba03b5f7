"""Tool calls as providers stream them."""

from typing import Any

import pytest

from bench.openai_double import OpenAIDouble
from chat.tests.provider_shapes import DONE, HI, OK, STOP, TC, C, completed, say, sse
from chat.tests.streaming import events
from conftest import ApiClient

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_turn_is_left")]


CALL = {"id": "call_1", "type": "function", "function": {"name": "w", "arguments": "{}"}}


def calls_of(live: dict[str, Any]) -> list[tuple[str, str, str]]:
    calls = live["message"]["tool_calls"]
    assert live["finish_reason"] == "tool_calls"
    assert all(call["type"] == "function" for call in calls)
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        pytest.param([TC(CALL)], [("call_1", "w", "{}")], id="no index (Gemini)"),
        pytest.param([TC({**CALL, "id": ""})], [(None, "w", "{}")], id="an empty id"),
        pytest.param([TC({"function": CALL["function"]})], [(None, "w", "{}")], id="neither id nor type"),
        pytest.param(
            [
                TC({"index": 0, "id": "call_1", "type": "function", "function": {"name": "w", "arguments": "{"}}),
                TC({"index": 0, "id": "", "type": "", "function": {"name": "", "arguments": "}"}}),
            ],
            [("call_1", "w", "{}")],
            id="an empty id in later deltas (Qwen)",
        ),
        pytest.param(
            [
                TC({"index": 0, "id": "call_1", "type": "function", "function": {"name": "w", "arguments": "{"}}),
                TC({"index": 0, "id": None, "type": None, "function": {"name": None, "arguments": "}"}}),
            ],
            [("call_1", "w", "{}")],
            id="null in later deltas",
        ),
        pytest.param(
            [
                TC({"index": 0, "id": "call_1", "type": "function", "function": {"name": "w", "arguments": "{"}}),
                TC({"index": 0, "id": "call_2", "function": {"arguments": "}"}}),
            ],
            [("call_1", "w", "{}")],
            id="another id for each piece",
        ),
        pytest.param(
            [
                TC({"index": 0, "id": "call_1", "type": "function", "function": {"name": "w", "arguments": '{"a"'}}),
                TC({"index": 0, "id": "call_1", "type": "function", "function": {"name": "w", "arguments": ":1}"}}),
            ],
            [("call_1", "w", '{"a":1}')],
            id="the name again with each piece",
        ),
        pytest.param(
            [
                TC({"index": 0, "id": "a", "type": "function", "function": {"name": "w", "arguments": "{}"}}),
                TC({"index": 0, "id": "b", "type": "function", "function": {"name": "w", "arguments": "{}"}}),
            ],
            [("a", "w", "{}"), ("b", "w", "{}")],
            id="parallel calls at index 0",
        ),
        pytest.param(
            [TC({**CALL, "id": "a"}, {**CALL, "id": "b", "function": {"name": "v", "arguments": "{}"}})],
            [("a", "w", "{}"), ("b", "v", "{}")],
            id="parallel calls without index",
        ),
        pytest.param(
            [
                TC({"index": 1, "id": "a", "function": {"name": "w", "arguments": "{"}}),
                TC({"index": 3, "id": "b", "function": {"name": "v", "arguments": "{"}}),
                TC({"index": 1, "function": {"arguments": "}"}}),
                TC({"index": 3, "function": {"arguments": "}"}}),
            ],
            [("a", "w", "{}"), ("b", "v", "{}")],
            id="indexes with gaps, interleaved",
        ),
        pytest.param(
            [TC({"index": 0, "id": "call_1", "function": {"name": "w"}})], [("call_1", "w", "{}")], id="no arguments"
        ),
        pytest.param(
            [TC({"index": 0, "id": "call_1", "function": {"name": "w", "arguments": ""}})],
            [("call_1", "w", "{}")],
            id="empty arguments",
        ),
        pytest.param(
            [TC({"index": 0, "id": "call_1", "function": {"name": "w", "arguments": {"a": 1}}})],
            [("call_1", "w", '{"a": 1}')],
            id="arguments as an object",
        ),
        pytest.param(
            [
                TC({"index": 0, "id": "call_1", "function": {"arguments": "{"}}),
                TC({"index": 0, "function": {"name": "w", "arguments": "}"}}),
            ],
            [("call_1", "w", "{}")],
            id="the name last",
        ),
        pytest.param([{"tool_calls": CALL}], [("call_1", "w", "{}")], id="no list"),
        pytest.param(
            [
                TC({"index": 0, "id": "a", "function": {"name": "w", "arguments": '{"x":1}'}}),
                TC({"index": 0, "id": "b", "function": {"name": "v", "arguments": ""}}),
                TC({"index": 1, "function": {"arguments": '{"y":'}}),
                TC({"index": 1, "function": {"arguments": "2}"}}),
            ],
            [("a", "w", '{"x":1}'), ("b", "v", '{"y":2}')],
            id="the index of later pieces is another",
        ),
        pytest.param(
            [
                TC({"index": 0, "id": "a", "function": {"name": "w", "arguments": ""}}),
                TC({"index": 1, "id": "a", "function": {"arguments": '{"y":2}'}}),
            ],
            [("a", "w", '{"y":2}')],
            id="the id of another index",
        ),
        pytest.param(
            [TC({"id": "a", "function": {"name": "w"}}), TC({"index": 0, "function": {"arguments": '{"y":2}'}})],
            [("a", "w", '{"y":2}')],
            id="an index only later",
        ),
        pytest.param(
            [TC({"index": 0, "id": "a", "function": {"name": "w", "arguments": '{"x":1}'}})] * 2,
            [("a", "w", '{"x":1}')],
            id="the whole call again",
        ),
        pytest.param(
            [
                TC({"index": 0, "id": "a", "function": {"name": "w", "arguments": "{}"}}),
                TC({"index": 0, "function": {"arguments": '{"x":1}'}}),
            ],
            [("a", "w", '{"x":1}')],
            id="an empty object before the true one",
        ),
        pytest.param(
            [
                TC({"index": 0, "id": "a", "function": {"name": "w", "arguments": '{"x":1}'}}),
                TC({"index": 0, "function": {"name": "w", "arguments": ""}}),
            ],
            [("a", "w", '{"x":1}')],
            id="the name again after the end",
        ),
        pytest.param(
            [
                TC({"index": 0, "id": "a", "function": {"name": "get_"}}),
                TC({"index": 0, "function": {"name": "weather", "arguments": "{"}}),
                TC({"index": 0, "function": {"arguments": "}"}}),
            ],
            [("a", "get_weather", "{}")],
            id="the name in pieces",
        ),
        pytest.param(
            [
                TC({"index": 0, "id": "a", "function": {"name": "w", "arguments": "{}"}}),
                TC({"index": 1, "id": "a", "function": {"name": "v", "arguments": "{}"}}),
            ],
            [("a", "w", "{}"), (None, "v", "{}")],
            id="one id for two calls",
        ),
        pytest.param(
            [{"content": None, "function_call": {"name": "w", "arguments": "{}"}}],
            [(None, "w", "{}")],
            id="a legacy call",
        ),
    ],
)
@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
def test_tool_calls(
    alice: ApiClient,
    upstream: OpenAIDouble,
    deltas: list[dict[str, Any]],
    calls: list[tuple[str | None, str, str]],
    reason: str,
) -> None:
    stream = [C({"role": "assistant", **deltas[0]}), *map(C, deltas[1:]), C({}, reason), OK, DONE]

    found = calls_of(completed(alice, upstream, sse(*stream)))

    assert [call[1:] for call in found] == [call[1:] for call in calls]
    for (call_id, _, _), (given, _, _) in zip(found, calls, strict=True):
        assert call_id == given if given else call_id


@pytest.mark.parametrize(
    "delta",
    [TC(), {"tool_calls": None}, TC({"index": 0, "id": "a", "function": {"arguments": "{}"}}), {"function_call": None}],
)
def test_what_is_no_call_is_left_out(alice: ApiClient, upstream: OpenAIDouble, delta: dict[str, Any]) -> None:
    live = completed(alice, upstream, sse(HI, C(delta), STOP, OK, DONE))

    assert (live["message"]["content"], live["finish_reason"]) == ("Hi", "stop")
    assert "tool_calls" not in live["message"]


def test_google_signatures_and_citations_arrive_live_as_in_the_replay(alice: ApiClient, upstream: OpenAIDouble) -> None:
    signed = {"extra_content": {"google": {"thought_signature": "s"}}}
    upstream.plan(
        sse(
            C({**TC({"index": 0, "id": "a", "function": {"name": "w", "arguments": "{}"}}), **signed}),
            C(TC({"index": 0, **signed}), citations=["https://example.com"]),
            *(C({}, "tool_calls"), OK, DONE),
        )
    )
    cid = alice.conversation()

    for chunks in (events(say(alice, cid, key="k")), events(say(alice, cid, key="k"))):
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
        assert any(delta.get("extra_content") == signed["extra_content"] for delta in deltas)
        assert any(call.get("extra_content") for delta in deltas for call in delta.get("tool_calls", []))
        assert chunks[-2]["citations"] == ["https://example.com"]
