"""Streams and answers as providers really send them: a good answer is never lost, a bad one never passed for good.

Each case is a public report (docs/providers.md). A stream's client sees well-formed chunks of OpenAI, live as in the
replay, and what it saw is stored.
"""

import io
import json
import logging
from typing import Any

import pytest

from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import IdempotencyKey, Message
from chat.tests.streaming import assemble, events
from chat.upstream.frames import frames
from conftest import ApiClient
from llmapi.logging import LogfmtFormatter

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_turn_is_left")]

CHUNK = {"id": "u1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}
DONE = b"data: [DONE]\n\n"


def E(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def C(delta: Any, fin: Any = None, **top: Any) -> bytes:
    return E({**CHUNK, "choices": [{"index": 0, "delta": delta, "finish_reason": fin}], **top})


def U(**usage: int) -> bytes:
    return E({**CHUNK, "choices": [], "usage": usage})


USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
OK = U(prompt_tokens=5, completion_tokens=2, total_tokens=7)
HI = C({"role": "assistant", "content": "Hi"})
STOP = C({}, "stop")


def sse(*parts: bytes, **more: Any) -> Behaviour:
    return Behaviour(raw=b"".join(parts), headers={"Content-Type": "text/event-stream"}, **more)


def whole(message: Any, finish_reason: Any = "stop", **more: Any) -> Behaviour:
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    body = {"id": "u1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return Behaviour(raw=json.dumps({**body, "usage": USAGE, **more}).encode())


def TC(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"tool_calls": list(calls)}


def say(alice: ApiClient, cid: str = "", **fields: Any) -> Any:
    return alice.say(cid or alice.conversation(), "hi", **{"stream": True, **fields})


def completed(alice: ApiClient, upstream: OpenAIDouble, behaviour: Behaviour) -> dict[str, Any]:
    """Take a turn as a stream, and return what its client has put together: well-formed, stored, and replayed."""
    upstream.plan(behaviour)
    cid = alice.conversation()

    live = assemble(events(say(alice, cid, key="k")))

    assert UsageEvent.objects.get().status == "completed"
    assert assemble(events(say(alice, cid, key="k"))) == live
    reply = live["message"]
    stored = Message.objects.get(role="assistant")
    assert stored.content == (reply.get("content") or "")
    assert stored.as_openai().get("tool_calls") == reply.get("tool_calls")
    second = alice.say(cid, "and then?")
    assert second.status_code == 200, second.content
    return live


def calls_of(live: dict[str, Any]) -> list[tuple[str, str, str]]:
    calls = live["message"]["tool_calls"]
    assert live["finish_reason"] == "tool_calls"
    assert all(call["type"] == "function" for call in calls)
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]


@pytest.mark.parametrize(
    ("parts", "text", "tokens"),
    [
        pytest.param(
            [
                C({"role": "assistant", "content": "Hel"}),
                E({"id": "u1", "x_groq": {"id": "r"}}),
                E({"id": "u1", "choices": None}),
                C({"content": "lo"}),
                STOP,
                E({"id": "u1", "usage": USAGE}),
                DONE,
            ],
            "Hello",
            7,
            id="frames without choices",
        ),
        pytest.param([HI, C({"content": "!"}), OK, DONE], "Hi!", 7, id="no finish_reason"),
        pytest.param([HI, C({}, "")], None, 0, id="an empty finish_reason is none"),
        pytest.param([HI, STOP, OK], "Hi", 7, id="no DONE"),
        pytest.param([HI, STOP, OK, b"data: [DONE]"], "Hi", 7, id="DONE without a line end"),
        pytest.param([HI, STOP, OK, b"data:[DONE]\r\n\r\n"], "Hi", 7, id="DONE without a space"),
        pytest.param(
            [
                C({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}),
                C({"content": "42"}),
                STOP,
                OK,
                DONE,
            ],
            "42",
            7,
            id="content as parts",
        ),
        pytest.param(
            [C({"content": [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}]}), STOP, OK, DONE],
            "42",
            7,
            id="text as parts",
        ),
        pytest.param(
            [b"event: ping\ndata:\n\n", HI, b"event: ping\ndata:\n\n", STOP, OK, DONE], "Hi", 7, id="empty pings"
        ),
        pytest.param([b": OPENROUTER PROCESSING\n\n", HI, b": keep-alive\n\n", STOP, OK, DONE], "Hi", 7, id="comments"),
        pytest.param([E({"type": "ping"}), HI, E({"type": "ping"}), STOP, OK, DONE], "Hi", 7, id="JSON pings"),
        pytest.param([E(None), E([]), E(5), E("ping"), b"data: ping\n\n", HI, STOP, OK, DONE], "Hi", 7, id="odd pings"),
        pytest.param(
            [b"id: 1\nretry: 100\n" + HI, b"event: message\n" + STOP, OK, DONE], "Hi", 7, id="other SSE fields"
        ),
        pytest.param([HI.replace(b"\n", b"\r\n"), STOP.replace(b"\n", b"\r\n"), OK, DONE], "Hi", 7, id="CRLF"),
        pytest.param(
            [HI.replace(b"\n", b"\r"), STOP.replace(b"\n", b"\r"), OK.replace(b"\n", b"\r")], "Hi", 7, id="CR"
        ),
        pytest.param([b"\xef\xbb\xbf", HI, STOP, OK, DONE], "Hi", 7, id="BOM"),
        pytest.param([HI[:-1], STOP[:-1], OK[:-1], DONE], "Hi", 7, id="one line end between events"),
        pytest.param([b"data: {\ndata: " + HI[7:], STOP, OK, DONE], "Hi", 7, id="JSON over two data lines"),
        pytest.param([HI, C({"content": "!"}, "stop"), OK, DONE], "Hi!", 7, id="text beside the finish_reason"),
        pytest.param([HI, C({}, "stop"), C({"content": "!"}), C({}, "stop"), OK, DONE], "Hi!", 7, id="text after it"),
        pytest.param(
            [
                E({**CHUNK, "choices": [{"delta": {"content": "Hi"}}]}),
                E({**CHUNK, "choices": [{"delta": None, "finish_reason": "stop"}]}),
                OK,
                DONE,
            ],
            "Hi",
            7,
            id="no index, no delta",
        ),
        pytest.param(
            [
                E(
                    {
                        **CHUNK,
                        "choices": [{"index": 0, "delta": {"content": "Hi"}}, {"index": 1, "delta": {"content": "Ho"}}],
                    }
                ),
                STOP,
                OK,
                DONE,
            ],
            "Hi",
            7,
            id="two choices",
        ),
        pytest.param(
            [
                E(
                    {
                        **CHUNK,
                        "choices": [
                            {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
                        ],
                    }
                ),
                OK,
                DONE,
            ],
            "Hi",
            7,
            id="a message for a delta",
        ),
        pytest.param(
            [
                HI,
                E(
                    {
                        **CHUNK,
                        "choices": [{"index": 0, "delta": {}, "message": {"content": "Hi"}, "finish_reason": "stop"}],
                    }
                ),
                OK,
                DONE,
            ],
            "Hi",
            7,
            id="the message again at the end",
        ),
        pytest.param([HI, C({}, "stop", error=None), OK, DONE], "Hi", 7, id="an error that is null"),
        pytest.param([HI, STOP, OK, E({"error": {"message": "late"}})], "Hi", 7, id="an error after the end"),
        pytest.param(
            [C({"content": "\ud83d"}), C({"content": "\ude00!"}), STOP, OK, DONE],
            "\U0001f600!",
            7,
            id="half a pair in each delta",
        ),
        pytest.param(
            [
                C({"content": "X"}).replace(b"X", b"\xf0\x9f"),
                C({"content": "X"}).replace(b"X", b"\x98\x80"),
                STOP,
                OK,
                DONE,
            ],
            "\U0001f600",
            7,
            id="bytes of a character in each delta",
        ),
        pytest.param([C({"content": "a\ud83d"}), STOP, OK, DONE], "a\ufffd", 7, id="half a character at the end"),
        pytest.param([C({"content": "a\0b"}), STOP, OK, DONE], "a\ufffdb", 7, id="NUL"),
        pytest.param(
            [
                E({**CHUNK, "choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}),
                E({**CHUNK, "choices": [{"index": 1, "delta": {"content": "42"}}]}),
                *(STOP, OK, DONE),
            ],
            "42",
            7,
            id="an index that counts blocks",
        ),
        pytest.param(
            [*(E({**CHUNK, "choices": [{"index": 0, "text": text}]}) for text in ("Hel", "lo")), STOP, OK, DONE],
            "Hello",
            7,
            id="text for deltas",
        ),
        pytest.param(
            [
                *(E({**CHUNK, "choices": [{"index": 0, "message": {"content": text}}]}) for text in ("Hel", "lo")),
                *(STOP, OK, DONE),
            ],
            "Hello",
            7,
            id="messages for deltas",
        ),
        pytest.param(
            [HI, C({}, None, error={"message": "", "code": None, "type": ""}), C({}, "stop", error={}), OK, DONE],
            "Hi",
            7,
            id="errors that are empty",
        ),
        pytest.param(
            [E({"code": 0, "message": "success"}), E({"status": "queued", "message": "wait"}), HI, STOP, OK, DONE],
            "Hi",
            7,
            id="frames that say that all is well",
        ),
        pytest.param(
            [HI, C({"content": "!"}, "null"), STOP, OK, DONE], "Hi!", 7, id="the word null for a finish_reason"
        ),
        pytest.param([HI, C({"content": "!"}, "null")], None, 0, id="which is none"),
        pytest.param([E({**CHUNK, "choices": [None]}), HI, STOP, OK, DONE], "Hi", 7, id="a choice that is null"),
        # What is said of usage.
        pytest.param(
            [HI, U(prompt_tokens=5, completion_tokens=1, total_tokens=6), STOP, OK, DONE],
            "Hi",
            7,
            id="cumulative usage",
        ),
        pytest.param([HI, STOP, OK, E({**CHUNK, "choices": [], "usage": None}), DONE], "Hi", 7, id="null after usage"),
        pytest.param(
            [U(prompt_tokens=0, completion_tokens=0, total_tokens=0), HI, STOP, OK, DONE],
            "Hi",
            7,
            id="zeros before usage",
        ),
        pytest.param(
            [HI, STOP, OK, U(prompt_tokens=0, completion_tokens=0, total_tokens=0), DONE],
            "Hi",
            7,
            id="zeros after usage",
        ),
        pytest.param(
            [HI, STOP, U(prompt_tokens=5, completion_tokens=2, total_tokens=9), DONE],
            "Hi",
            9,
            id="thoughts in the total",
        ),
        pytest.param([HI, STOP, U(prompt_tokens=5, completion_tokens=2), DONE], "Hi", 7, id="no total"),
        pytest.param(
            [HI, STOP, U(prompt_tokens=5, completion_tokens=2, total_tokens=0), DONE], "Hi", 7, id="a total of zero"
        ),
        pytest.param([HI, C({}, "stop", x_groq={"usage": USAGE}), DONE], "Hi", 7, id="usage under x_groq"),
        pytest.param(
            [HI, E({**CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]}), DONE],
            "Hi",
            7,
            id="usage in the choice",
        ),
        pytest.param([HI, STOP, U(input_tokens=5, output_tokens=2), DONE], "Hi", 7, id="other names of usage"),
        pytest.param(
            [
                HI,
                STOP,
                E(
                    {
                        **CHUNK,
                        "choices": [],
                        "usage": {"prompt_tokens": "5", "completion_tokens": 2.0, "total_tokens": 7},
                    }
                ),
                DONE,
            ],
            "Hi",
            7,
            id="figures as text and floats",
        ),
    ],
)
def test_a_stream(alice: ApiClient, upstream: OpenAIDouble, parts: list[bytes], text: str | None, tokens: int) -> None:
    if text is None:
        upstream.plan(sse(*parts))
        assert events(say(alice))[-2]["error"]["code"] == "upstream_error"
        return
    live = completed(alice, upstream, sse(*parts))

    assert (live["message"]["content"], live["finish_reason"]) == (text, "stop")
    usage = UsageEvent.objects.order_by("id")[0]
    assert (usage.total_tokens, usage.is_estimated) == (tokens, False)


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        *[("stop", "stop"), ("STOP", "stop"), ("eos", "stop"), ("end_turn", "stop"), ("stop_sequence", "stop")],
        *[("length", "length"), ("MAX_TOKENS", "length"), ("model_length", "length")],
        *[("content_filter", "content_filter"), ("SAFETY", "content_filter"), ("function_call", "tool_calls")],
        *[("tool_use", "tool_calls"), ("whatever", "stop"), (5, "stop"), ({}, "stop")],
        *[("content_filter: PROHIBITED_CONTENT", "content_filter"), ("IMAGE_SAFETY", "content_filter")],
        *[("guardrail_intervened", "content_filter"), ("model_context_window_exceeded", "length")],
    ],
)
def test_a_finish_reason_is_one_of_openais(alice: ApiClient, upstream: OpenAIDouble, reason: Any, told: str) -> None:
    assert completed(alice, upstream, sse(HI, C({}, reason), OK, DONE))["finish_reason"] == told


CALL = {"id": "call_1", "type": "function", "function": {"name": "w", "arguments": "{}"}}


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


def test_thinking_is_kept_apart(alice: ApiClient, upstream: OpenAIDouble) -> None:
    thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]

    live = completed(alice, upstream, sse(C({"content": thinking}), C({"content": "42"}), STOP, OK, DONE))

    assert live["message"]["reasoning_content"] == "hm"


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_has_one_name(alice: ApiClient, upstream: OpenAIDouble, name: str) -> None:
    live = completed(alice, upstream, sse(C({name: "h"}), C({name: "m"}), HI, STOP, OK, DONE))

    assert (live["message"]["reasoning_content"], live["message"]["content"]) == ("hm", "Hi")


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([HI], id="text and nothing else"),
        pytest.param([HI, E({"error": {"message": "overloaded", "code": 529}}), DONE], id="an error"),
        pytest.param([HI, E({"error": "overloaded"}), DONE], id="an error that is a word"),
        pytest.param(
            [HI, b'event: error\ndata: {"message": "overloaded", "code": 503}\n\n', DONE], id="an error event"
        ),
        pytest.param([HI, E({"object": "error", "message": "x", "code": 500}), DONE], id="vLLM's"),
        pytest.param([HI, C({"content": ""}, "error"), DONE], id="an error for a reason (OpenRouter)"),
        pytest.param([HI, C({}, "insufficient_system_resource"), DONE], id="DeepSeek's"),
        pytest.param([HI, C({}, "function_call_filter: MALFORMED_FUNCTION_CALL"), DONE], id="Google's"),
        pytest.param([HI, b'error: {"code":500,"message":"boom","type":"server_error"}\n\n', DONE], id="llama.cpp's"),
        pytest.param([HI, b"event: error\ndata: upstream overloaded\n\n", DONE], id="an error event of words"),
        pytest.param([HI, b'data: {"choices": [{"delta": {"content": "l\n\n', STOP, DONE], id="half a chunk"),
    ],
)
def test_a_bad_stream_is_never_passed_for_good(alice: ApiClient, upstream: OpenAIDouble, parts: list[bytes]) -> None:
    upstream.plan(sse(*parts))

    chunks = events(say(alice, key="k"))

    assert chunks[-2]["error"]["code"] == "upstream_error"
    assert not [chunk for chunk in chunks[:-2] if chunk["choices"][0]["finish_reason"]]
    usage = UsageEvent.objects.get()
    assert (usage.status, usage.error_code) == ("failed", "upstream_error")
    assert usage.total_tokens > 0
    assert Message.objects.count() == IdempotencyKey.objects.count() == 0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        ({"error": {"message": "overloaded", "code": 529}}, 502, "upstream_error"),
        ({"error": {"message": "overloaded", "type": "overloaded_error"}}, 502, "upstream_error"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 502, "upstream_error"),
        ({"error": "upstream connect error"}, 502, "upstream_error"),
        ({"error": {"message": "slow down", "code": 429}}, 429, "upstream_rate_limited"),
        ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, 429, "upstream_rate_limited"),
        ([{"error": {"message": "x", "code": 429, "status": "RESOURCE_EXHAUSTED"}}], 429, "upstream_rate_limited"),
        ({"object": "error", "message": "bad", "type": "BadRequestError", "code": 400}, 400, "invalid_request"),
        ({"detail": "Not authenticated"}, 502, "upstream_error"),
        ({"errors": [{"message": "no", "code": 10000}]}, 502, "upstream_error"),
        ({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, 502, "upstream_error"),
        ({"error": {"message": "This model's maximum context length is 8192 tokens."}}, 400, "context_length_exceeded"),
        (
            {
                "error": {
                    "message": "the request exceeds the available context size",
                    "type": "exceed_context_size_error",
                    "code": 400,
                }
            },
            400,
            "context_length_exceeded",
        ),
    ],
)
def test_an_error_under_200_has_the_status_that_it_stands_for(
    alice: ApiClient,
    upstream: OpenAIDouble,
    monkeypatch: pytest.MonkeyPatch,
    answer: Any,
    status: int,
    code: str,
    stream: bool,
) -> None:
    log = io.StringIO()
    handler = next(h for h in logging.getLogger().handlers if isinstance(h.formatter, LogfmtFormatter))
    monkeypatch.setattr(handler, "stream", log)
    as_events = sse(C({"role": "assistant", "content": ""}), E(answer), DONE)
    upstream.plan(as_events if stream else Behaviour(raw=json.dumps(answer).encode()))

    told = say(alice, stream=stream)

    assert (told.status_code, told.json()["error"]["code"]) == (status, code)
    assert told.headers.get("x-should-retry") != "false" or "operator" in told.json()["error"]["message"]
    usage = UsageEvent.objects.get()
    assert (usage.status, usage.total_tokens) == ("failed", 0)
    words = json.dumps(answer).split('"message": "')[-1].split('"')[0] if "message" in json.dumps(answer) else ""
    assert words in log.getvalue()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("status", "answer", "told", "code"),
    [
        (413, {"error": {"message": "TPM", "code": "rate_limit_exceeded"}}, 429, "upstream_rate_limited"),
        (529, {"type": "error", "error": {"type": "overloaded_error"}}, 502, "upstream_error"),
        (402, {"error": {"message": "Insufficient Balance"}}, 502, "upstream_error"),
        (500, {"error": {"message": "maximum context length is 4096 tokens"}}, 400, "context_length_exceeded"),
        (500, {"error": {"message": "x", "code": "rate_limit_exceeded"}}, 429, "upstream_rate_limited"),
        (422, {"detail": [{"loc": ["body", "temperature"], "msg": "too high"}]}, 400, "invalid_request"),
        (429, "<html>slow down</html>", 429, "upstream_rate_limited"),
        (524, "<html>a timeout occurred</html>", 504, "upstream_timeout"),
        (403, "<html>blocked</html>", 502, "upstream_error"),
    ],
)
def test_an_error_under_a_wrong_status(
    alice: ApiClient, upstream: OpenAIDouble, status: int, answer: Any, told: int, code: str, stream: bool
) -> None:
    raw = answer if isinstance(answer, str) else json.dumps(answer)
    upstream.plan(Behaviour(status=status, raw=raw.encode()))

    found = say(alice, stream=stream)

    assert (found.status_code, found.json()["error"]["code"]) == (told, code)
    # A gateway that gave up may have passed the request on.
    assert UsageEvent.objects.get().total_tokens == (5 if told == 504 else 0)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            {
                "role": "assistant",
                "content": "hi",
                "tool_calls": [],
                "function_call": None,
                "refusal": None,
                "audio": None,
            },
            "hi",
        ),
        (
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "42"},
                ],
            },
            "42",
        ),
        ({"content": "hi"}, "hi"),
        (
            {
                "role": "assistant",
                "content": "hi",
                "tool_calls": None,
                "reasoning": "hm",
                "reasoning_details": [{"a": 1}],
            },
            "hi",
        ),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_whole_answer(
    alice: ApiClient, upstream: OpenAIDouble, message: dict[str, Any], text: str, stream: bool
) -> None:
    """Some providers answer with it where a stream was asked for, too."""
    upstream.plan(whole(message))
    cid = alice.conversation()

    first = alice.say(cid, "hi", stream=stream)
    live = assemble(events(first))["message"] if stream else first.json()["choices"][0]["message"]
    second = alice.say(cid, "and then?")

    assert live["content"] == text
    assert live["role"] == "assistant"
    assert "tool_calls" not in live
    assert second.status_code == 200
    sent = upstream.requests[1]["body"]["messages"][1]
    assert sent == {"role": "assistant", "content": text}


def test_an_event_stream_where_one_answer_was_asked_for(alice: ApiClient, upstream: OpenAIDouble) -> None:
    upstream.plan(sse(HI, C({"content": "!"}), STOP, OK, DONE))

    assert say(alice, stream=False).json()["reply"] == "Hi!"


@pytest.mark.parametrize("created", [None, 0, -1, 1.5, "1", 1_795_000_000_000, True])
def test_a_time_that_is_none_is_ours(alice: ApiClient, upstream: OpenAIDouble, created: Any) -> None:
    upstream.plan(whole({"role": "assistant", "content": "hi"}, created=created))

    assert 1_700_000_000 < say(alice, stream=False).json()["created"] < 2**32


def test_a_reply_is_whole_though_its_end_is_lost(alice: ApiClient, upstream: OpenAIDouble) -> None:
    """The connection breaks after the finish reason, before the usage."""
    upstream.plan(sse(HI, STOP, OK, cut=True))
    upstream.plan(
        Behaviour(raw=HI + STOP + b"data: " + b"x" * 2000, cut=True, headers={"Content-Type": "text/event-stream"})
    )

    events(say(alice))
    chunks = events(say(alice))

    assert assemble(chunks)["message"]["content"] == "Hi"
    assert UsageEvent.objects.order_by("-id")[0].is_estimated


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "parts",
    [
        [C({"role": "assistant"}), C({}, "MALFORMED_FUNCTION_CALL", usage={**USAGE, "total_tokens": 3095})],
        [E({"error": {"message": "x"}, "choices": [], "usage": {**USAGE, "total_tokens": 3095}})],
        [HI, E({"error": {"message": "x"}, "usage": {**USAGE, "total_tokens": 3095}})],
        [HI, U(prompt_tokens=5, completion_tokens=2, total_tokens=3095)],
    ],
)
def test_what_a_failure_says_it_sold_is_booked(
    alice: ApiClient, upstream: OpenAIDouble, parts: list[bytes], stream: bool
) -> None:
    """And the SDK is told not to buy it again."""
    upstream.plan(sse(*parts))

    answer = say(alice, stream=stream)

    if answer.status_code == 200:
        assert events(answer)[-2]["error"]["code"] == "upstream_error"
    else:
        assert (answer.status_code, answer["x-should-retry"]) == (502, "false")
    usage = UsageEvent.objects.get()
    assert (usage.status, usage.total_tokens, usage.is_estimated) == ("failed", 3095, False)


@pytest.mark.parametrize(
    ("usage", "booked"),
    [
        (
            {
                "prompt_tokens": 368,
                "completion_tokens": 19,
                "total_tokens": 10923,
                "cache_read_input_tokens": 10536,
                "cache_creation_input_tokens": 0,
            },
            (10904, 19, 10536),
        ),
        ({**USAGE, "cached_tokens": 4, "prompt_tokens_details": {"cached_tokens": 0}}, (5, 2, 4)),
        ({**USAGE, "prompt_tokens_details": None, "prompt_cache_hit_tokens": 3}, (5, 2, 3)),
    ],
)
def test_cached_tokens_are_found(
    alice: ApiClient, upstream: OpenAIDouble, usage: dict[str, Any], booked: tuple[int, int, int]
) -> None:
    upstream.plan(whole({"role": "assistant", "content": "hi"}, usage=usage))
    say(alice, stream=False)

    row = UsageEvent.objects.get()
    assert (row.prompt_tokens, row.completion_tokens, row.cached_tokens) == booked


@pytest.mark.parametrize(
    ("status", "answer", "told", "retry"),
    [
        (400, {"error": {"message": "Your credit balance is too low to access the API."}}, 502, "false"),
        (400, {"error": {"message": "API key not valid.", "status": "INVALID_ARGUMENT", "code": 400}}, 502, "false"),
        (429, {"error": {"message": "Insufficient balance, please recharge", "code": "1113"}}, 502, "false"),
        (429, {"error": {"type": "exceeded_current_quota_error", "message": "x"}}, 502, "false"),
        (413, {"error": {"message": "Request too large: Limit 6000", "code": "rate_limit_exceeded"}}, 400, None),
        (424, {"message": "model error"}, 502, None),
    ],
)
def test_whose_trouble_it_is(
    alice: ApiClient, upstream: OpenAIDouble, status: int, answer: Any, told: int, retry: str | None
) -> None:
    upstream.plan(Behaviour(status=status, raw=json.dumps(answer).encode()))

    found = say(alice, stream=False)

    assert (found.status_code, found.headers.get("x-should-retry")) == (told, retry)
    assert b"xa***" not in found.content


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"Retry-After": "7"}, "", "7"),
        ({"Retry-After": "3600"}, "", "120"),
        ({"retry-after-ms": "2500"}, "", "3"),
        ({"Retry-After": "20s"}, "", "20"),
        ({}, "Rate limit reached. Please try again in 20.387s.", "21"),
        ({}, "slow down", "5"),
    ],
)
def test_the_providers_wait_is_passed_on(
    alice: ApiClient, upstream: OpenAIDouble, headers: dict[str, str], message: str, seconds: str
) -> None:
    upstream.plan(Behaviour(status=429, headers=headers, error={"message": message, "code": "rate_limit_exceeded"}))

    assert say(alice, stream=False)["Retry-After"] == seconds


def test_an_error_body_is_bounded(alice: ApiClient, upstream: OpenAIDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its status says what there is to know: nothing was sold."""
    monkeypatch.setattr("chat.upstream.client.ERROR_BODY_SECONDS", 0.2)
    for behaviour in (
        Behaviour(status=429, raw=b"x" * 60, dribble=0.05),
        Behaviour(status=429, raw=b"x" * 200_000),
        Behaviour(status=429, raw=b"x" * 60, cut=True),
        Behaviour(status=429, raw=b"not gzip", headers={"Content-Encoding": "gzip"}),
    ):
        upstream.plan(behaviour)
        assert say(alice, stream=False).json()["error"]["code"] == "upstream_rate_limited"
    assert not UsageEvent.objects.filter(total_tokens__gt=0).exists()


def test_words_that_are_no_json_are_read(alice: ApiClient, upstream: OpenAIDouble) -> None:
    words = b"This model's maximum context length is 4096 tokens."
    for raw in (words, b"data: " + json.dumps({"error": {"message": words.decode()}}).encode() + b"\n\n"):
        upstream.plan(Behaviour(status=400, raw=raw))
        assert say(alice, stream=False).json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("text", ["my secret " * 60, 'my secret "quoted"\nprompt'])
def test_a_prompt_that_a_provider_quotes_is_not_logged(
    alice: ApiClient, upstream: OpenAIDouble, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    log = io.StringIO()
    handler = next(h for h in logging.getLogger().handlers if isinstance(h.formatter, LogfmtFormatter))
    monkeypatch.setattr(handler, "stream", log)
    for quoted in (text, json.dumps(text), repr(text)):
        upstream.plan(Behaviour(status=500, error={"message": f"cannot answer {quoted}", "code": None}))
        alice.say(alice.conversation(), text)

    assert "cannot answer" in log.getvalue()
    assert "my secret" not in log.getvalue()


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


def test_a_long_line_is_read_in_linear_time() -> None:
    """A picture comes as one line of megabytes, in pieces of a TLS record. Each byte is looked at once."""
    looked_at = []

    class Piece(bytes):
        def __radd__(self, other: bytes) -> bytes:
            looked_at.append(len(other))
            return other + bytes(self)

    line = C({"content": "x" * 1_000_000})
    pieces = [Piece(line[n : n + 16_384]) for n in range(0, len(line), 16_384)]

    assert len(list(frames(iter(pieces)))) == 1
    assert sum(looked_at) <= len(line)


@pytest.mark.parametrize(("behaviour", "tokens"), [(sse(DONE), 5), (sse(b": nothing\n\n"), 5), (Behaviour(raw=b""), 5)])
def test_no_reply_at_all(alice: ApiClient, upstream: OpenAIDouble, behaviour: Behaviour, tokens: int) -> None:
    upstream.plan(behaviour)

    answer = say(alice)

    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    assert UsageEvent.objects.get().total_tokens == tokens
