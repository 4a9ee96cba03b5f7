"""Streams in one process, through Django's test client. test_server.py has them on real sockets."""

import base64
import itertools
import json
import re
import subprocess
import time

import httpx2
import pytest
from openai import OpenAI
from pytest_django import Settings

from analytics.models import AnalyticsEvent, UsageEvent
from bench.dialects import MISTRAL, Dialect
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import ClientToken, IdempotencyKey, Message
from chat.tests.streaming import URL, assemble, events, stream, text_of
from chat.turns import registry, reply_log
from chat.turns import stream as streams
from conftest import ApiClient
from llmapi.launch import ROOT

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_turn_is_left")]
every_dialect = pytest.mark.usefixtures("dialect")


def test_it_works(alice: ApiClient, upstream: OpenAIDouble, dialect: Dialect) -> None:
    cid = alice.conversation()

    answer = alice.say(cid, "Hello there", stream=True, stream_options={"include_usage": True})

    chunks = events(answer)
    usage = UsageEvent.objects.get()
    assert answer["Cache-Control"] == "no-cache, no-transform, no-store"
    assert answer["X-Accel-Buffering"] == "no"
    assert text_of(chunks) == "echo: Hello there"
    assert {chunk["id"] for chunk in chunks[:-1]} == {usage.request_id} == {answer["x-request-id"]}
    assert {chunk["object"] for chunk in chunks[:-1]} == {"chat.completion.chunk"}
    assert (chunks[0]["request_id"], chunks[0]["conversation_id"]) == (usage.request_id, cid)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-3]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-2]["choices"] == []
    assert chunks[-2]["usage"]["latency_ms"] == usage.latency_ms
    is_estimated = dialect.says_usage == "never"
    if not is_estimated:
        assert {name: chunks[-2]["usage"][name] for name in upstream.sold[0]} == upstream.sold[0]
    assert chunks[-1] == "[DONE]"
    total = chunks[-2]["usage"]["total_tokens"]
    assert (usage.status, usage.total_tokens, usage.is_estimated) == ("completed", total, is_estimated)
    assert usage.first_token_ms is not None
    assert usage.latency_ms is not None
    assert usage.first_token_ms <= usage.latency_ms
    assert list(Message.objects.order_by("id").values_list("content", flat=True)) == [
        "Hello there",
        "echo: Hello there",
    ]
    if not is_estimated and dialect != MISTRAL:
        assert upstream.requests[0]["body"]["stream_options"] == {"include_usage": True}


def test_a_usage_chunk_comes_where_it_was_asked_for(alice: ApiClient, upstream: OpenAIDouble) -> None:
    without = [events(stream(alice)), events(alice.say(alice.conversation(), "a b c", stream=True))]
    with_usage = events(stream(alice, stream_options={"include_usage": True}))

    assert all(chunk["choices"] and "usage" not in chunk for chunks in without for chunk in chunks[:-1])
    assert with_usage[-2]["usage"]["total_tokens"] == upstream.sold[2]["total_tokens"]


@every_dialect
def test_tool_calls_stream_and_are_remembered(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    upstream.plan(Behaviour(message={"role": "assistant", "content": None, "tool_calls": [call]}))

    chunks = events(alice.say(cid, "weather?", stream=True))
    alice.send(
        URL, {"conversation_id": cid, "messages": [{"role": "tool", "tool_call_id": "call_1", "content": "sun"}]}
    )

    live = assemble(chunks)
    (streamed,) = live["message"]["tool_calls"]
    streamed.pop("extra_content", None)  # Google's
    assert (streamed, live["finish_reason"]) == (call, "tool_calls")
    assert upstream.requests[1]["body"]["messages"][1] == {"role": "assistant", "content": None, "tool_calls": [call]}


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [(Behaviour(status=500), 502), (Behaviour(refuse=True), 502), (Behaviour(raw=b"data: {}\n\n"), 502)],
)
def test_an_error_before_the_first_chunk_is_a_plain_one(
    alice: ApiClient, upstream: OpenAIDouble, behaviour: Behaviour, status: int
) -> None:
    upstream.plan(behaviour)

    answer = stream(alice)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, "upstream_error")
    assert UsageEvent.objects.get().status == "failed"


@pytest.mark.parametrize(
    "chunk",
    [
        "[]",
        '{"choices": 5}',
        '{"choices": [5]}',
        '{"choices": [{"delta": "x"}]}',
        '{"choices": [{"delta": {"content": 5}}]}',
        '{"choices": [{"delta": {"tool_calls": [{}]}}]}',
        '{"choices": [{"finish_reason": {}}]}',
        '{"choices": [{"logprobs": {"content": 5}}]}',
        "not JSON",
    ],
)
def test_a_chunk_that_is_none_fails_the_turn_and_frees_its_key(
    alice: ApiClient, upstream: OpenAIDouble, chunk: str
) -> None:
    good = '{"model": "m", "created": 1, "choices": [{"delta": {"content": "one"}}]}'
    upstream.plan(Behaviour(raw=f"data: {good}\n\ndata: {chunk}\n\n".encode()))

    chunks = events(stream(alice, key="k"))

    assert text_of(chunks[:2]) == "one"
    assert chunks[-2]["error"]["code"] == "upstream_error"
    usage = UsageEvent.objects.get()
    assert (usage.status, usage.error_code, usage.is_estimated) == ("failed", "upstream_error", True)
    assert IdempotencyKey.objects.count() == 0


def test_our_own_bug_in_a_stream_is_an_event(
    alice: ApiClient, upstream: OpenAIDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "settle", lambda *args, **kwargs: 1 / 0)

    chunks = events(stream(alice))

    assert chunks[-2]["error"]["code"] == "internal_error"
    assert chunks[-1] == "[DONE]"


@pytest.mark.parametrize("ending", ["cut", "error", "quiet"])
def test_an_error_after_it_is_an_event(alice: ApiClient, upstream: OpenAIDouble, dialect: Dialect, ending: str) -> None:
    cid = alice.conversation()
    upstream.plan(Behaviour(text="one two three", stop_after=2, ending=ending))

    chunks = events(alice.say(cid, "Hi", stream=True, key="k"))

    assert text_of(chunks[:-2]) == "one two"
    assert chunks[-2]["error"]["code"] == "upstream_error"
    assert chunks[-1] == "[DONE]"
    usage = UsageEvent.objects.get()
    assert (usage.status, usage.error_code) == ("failed", "upstream_error")
    assert usage.is_estimated or dialect.says_usage == "with each chunk"
    assert usage.completion_tokens > 0
    assert Message.objects.count() == 0
    assert IdempotencyKey.objects.count() == 0
    assert AnalyticsEvent.objects.get().event_name == "chat.failed"


def test_an_upstream_that_hangs_is_waited_for_so_long(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings
) -> None:
    settings.UPSTREAM_TIMEOUT_SECONDS = 0.2
    upstream.plan(Behaviour(text="one two three", stop_after=1, ending="hang"))

    chunks = events(stream(alice))

    assert chunks[-2]["error"]["code"] == "upstream_timeout"
    assert UsageEvent.objects.get().error_code == "upstream_timeout"


def test_a_reply_that_goes_on_may_take_longer_than_the_timeout(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings
) -> None:
    settings.UPSTREAM_TIMEOUT_SECONDS = 0.5
    upstream.plan(Behaviour(pieces=["a"] * 8, pause=0.1))

    chunks = events(stream(alice))

    assert text_of(chunks) == "a" * 8
    assert UsageEvent.objects.get().latency_ms > 500  # type: ignore[operator]


def test_signs_of_life_are_silence(alice: ApiClient, upstream: OpenAIDouble, settings: Settings) -> None:
    settings.UPSTREAM_TIMEOUT_SECONDS = 0.3
    upstream.plan(Behaviour(raw=b": keep-alive\n\n" * 10, dribble=0.01))

    answer = stream(alice)

    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")


def test_a_whole_reply_does_not_wait_for_a_provider_that_says_no_more(
    alice: ApiClient, upstream: OpenAIDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat.upstream.client.END_SECONDS", 0.2)
    upstream.plan(Behaviour(text="one", stop_after=2, ending="hang"))

    chunks = events(stream(alice))

    assert assemble(chunks)["message"]["content"] == "one"
    assert UsageEvent.objects.get().latency_ms < 4000  # type: ignore[operator]


@pytest.mark.parametrize("finish_reason", ["stop", "content_filter"])
def test_an_empty_reply_begins_as_others_do(alice: ApiClient, upstream: OpenAIDouble, finish_reason: str) -> None:
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": finish_reason}
    upstream.plan(Behaviour(raw=b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\ndata: [DONE]\n\n"))
    cid = alice.conversation()

    live = events(alice.say(cid, "Hi", stream=True, key="k"))

    assert (live[0]["conversation_id"], live[0]["choices"][0]["delta"]["role"]) == (cid, "assistant")
    assert assemble(live)["finish_reason"] == finish_reason
    assert assemble(events(alice.say(cid, "Hi", stream=True, key="k"))) == assemble(live)


def test_silence_is_filled_with_signs_of_life(
    alice: ApiClient, upstream: OpenAIDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_log, "HEARTBEAT_SECONDS", 0.2)
    upstream.plan(Behaviour(text="late", delay=0.5))
    whole = b"".join(stream(alice).streaming_content)
    assert re.match(rb"(: ping\n\n)+data: \{", whole)
    assert b"late" in whole

    upstream.plan(Behaviour(delay=0.5, status=500))
    chunks = events(stream(alice))
    assert chunks[0]["error"]["code"] == "upstream_error"  # the status has been sent: an error is an event


WITH_JAVASCRIPT = """
const body = Buffer.from(process.argv[1], "base64");
const { default: OpenAI } = await import("openai");
const headers = { "content-type": "text/event-stream" };
const client = new OpenAI({ apiKey: "k", fetch: async () => new Response(body, { headers }) });
const stream = client.chat.completions.stream({ model: "m", messages: [] });
console.log((await stream.finalChatCompletion()).choices[0].message.content);
"""


def test_no_reader_loses_a_word_to_a_sign_of_life(
    alice: ApiClient, upstream: OpenAIDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_log, "HEARTBEAT_SECONDS", 0.1)
    upstream.plan(Behaviour(pieces=["one ", "two ", "three"], delay=0.3, pause=0.3))

    whole = b"".join(stream(alice).streaming_content)

    assert whole.startswith(b": ping\n\n")
    blocks = [block[6:] for block in whole.decode().split("\n\n") if block.startswith("data: ")]
    assert text_of([json.loads(block) for block in blocks[:-1]]) == "one two three"
    assert len(blocks) > 8  # with signs of life between the words
    answer = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=whole)
    transport = httpx2.MockTransport(lambda _: answer)
    with OpenAI(api_key="k", http_client=httpx2.Client(transport=transport)) as client:
        read = client.chat.completions.create(model="m", messages=[], stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in read) == "one two three"
    node = ROOT / ".venv" / "bin" / "node"
    command = [str(node), "--input-type=module", "-e", WITH_JAVASCRIPT, base64.b64encode(whole).decode()]
    script = subprocess.run(command, cwd=ROOT / "chat/tests/sdk", capture_output=True, text=True, check=True)
    assert script.stdout.strip() == "one two three"


def test_chunks_are_passed_on_as_they_come(alice: ApiClient, upstream: OpenAIDouble) -> None:
    upstream.plan(Behaviour(pieces=["first", "second"], pause=0.1))
    answer = stream(alice)
    pieces = iter(answer.streaming_content)

    first = b"".join(itertools.takewhile(lambda piece: b"second" not in bytes(piece), pieces))

    assert b"first" in first
    answer.close()


def test_a_client_that_goes_away_does_not_stop_the_turn(
    alice: ApiClient, upstream: OpenAIDouble, dialect: Dialect
) -> None:
    cid = alice.conversation()
    upstream.plan(Behaviour(text="a long reply", pause=0.05))
    answer = alice.say(cid, "Hi", stream=True, key="k")
    next(iter(answer.streaming_content))

    answer.close()
    registry.drain(10)

    assert Message.objects.get(role="assistant").content == "a long reply"
    usage = UsageEvent.objects.get()
    assert usage.total_tokens == upstream.sold[0]["total_tokens"] or dialect.says_usage == "never"
    again = alice.say(cid, "Hi", stream=True, key="k")
    assert again["Idempotent-Replayed"] == "true"
    assert text_of(events(again)) == "a long reply"


def test_a_stream_gives_its_place_back(alice: ApiClient, upstream: OpenAIDouble, settings: Settings) -> None:
    settings.MAX_RUNNING_TURNS = 1

    for _ in range(2):
        assert text_of(events(stream(alice))) == "echo: a b c"
        registry.drain(10)

    answer = stream(alice, key="k")
    assert answer.status_code == 200
    answer.close()


def test_leases_are_renewed_while_a_turn_runs(
    alice: ApiClient, upstream: OpenAIDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "RENEW_SECONDS", 0)
    monkeypatch.setattr(registry, "CANCEL_POLL_SECONDS", 0.1)
    upstream.plan(Behaviour(text="one two", stop_after=1, ending="hang"))
    answer = stream(alice, key="k")
    before = UsageEvent.objects.get().locked_until

    deadline = time.monotonic() + 4
    while UsageEvent.objects.get().locked_until == before and time.monotonic() < deadline:
        time.sleep(0.05)

    assert UsageEvent.objects.get().locked_until > before
    assert IdempotencyKey.objects.get().locked_until > before
    registry.cancel(answer["x-request-id"])
    events(answer)


def test_the_limit_is_told_on_streams(alice: ApiClient, upstream: OpenAIDouble) -> None:
    ClientToken.objects.update(rate_limit_per_min=1)

    first, second = stream(alice), stream(alice)

    assert first["x-ratelimit-remaining-requests"] == "0"
    assert text_of(events(first)) == "echo: a b c"
    assert second.status_code == 429
