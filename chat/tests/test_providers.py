"""What providers send that is a good answer, and is never lost: each case is a public report (docs/providers.md).

A stream's client sees well-formed chunks of OpenAI, live as in the replay, and what it saw is stored.
"""

from typing import Any

import pytest

from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from chat.tests.provider_shapes import CHUNK, DONE, HI, OK, STOP, USAGE, C, E, U, completed, say, sse, whole
from chat.tests.streaming import assemble, events
from chat.upstream.frames import frames
from conftest import ApiClient

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_turn_is_left")]


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


def test_thinking_is_kept_apart(alice: ApiClient, upstream: OpenAIDouble) -> None:
    thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]

    live = completed(alice, upstream, sse(C({"content": thinking}), C({"content": "42"}), STOP, OK, DONE))

    assert live["message"]["reasoning_content"] == "hm"


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_has_one_name(alice: ApiClient, upstream: OpenAIDouble, name: str) -> None:
    live = completed(alice, upstream, sse(C({name: "h"}), C({name: "m"}), HI, STOP, OK, DONE))

    assert (live["message"]["reasoning_content"], live["message"]["content"]) == ("hm", "Hi")


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
