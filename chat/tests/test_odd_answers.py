"""Whatever JSON the upstream answers with, each client gets the reply or a 502, and the same when it asks again."""

import io
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import proto
from hypothesis import HealthCheck, given
from hypothesis import settings as options
from pytest_django import Settings

from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import IdempotencyKey, Message
from chat.tests.odd_answers import CALL, LOGPROB, USAGE, chunks, dump, nest, oddities, whole
from chat.tests.streaming import URL
from conftest import ApiClient
from protos.chat_pb2 import ChatChunk, ChatMessage, ChatRequest, ChatResponse, Error

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_turn_is_left")]


@pytest.fixture(autouse=True)
def no_limit(settings: Settings) -> None:
    settings.RATE_LIMIT_PER_MIN = 0


HI = [{"role": "user", "content": "Hi"}]
PROTOBUF = "application/x-protobuf"
MOST = 2**31 - 1  # of a column of tokens


def strict_json(data: bytes) -> Any:
    """Read JSON as RFC 8259 has it: without NaN and Infinity, in UTF-8."""
    return json.loads(data.decode(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def ask_json(alice: ApiClient, key: str) -> tuple[int, Any]:
    answer = alice.send(URL, {"messages": HI}, key)
    return answer.status_code, strict_json(answer.content)


def ask_events(alice: ApiClient, key: str) -> tuple[int, Any]:
    answer = alice.send(URL, {"messages": HI, "stream": True, "stream_options": {"include_usage": True}}, key)
    if answer.status_code != 200:
        return answer.status_code, strict_json(answer.content)
    blocks = b"".join(answer.streaming_content).split(b"\n\n")
    found = [strict_json(block[6:]) for block in blocks if block.startswith(b"data: {")]
    told = next((chunk["error"] for chunk in found if "error" in chunk), None)
    text = "".join(
        choice["delta"].get("content") or "" for chunk in found for choice in chunk.get("choices", []) if not told
    )
    return (200, text) if told is None else (500 if told["code"] == "internal_error" else 502, told["code"])


def ask_protobuf(alice: ApiClient, key: str) -> tuple[int, Any]:
    answer = send_protobuf(alice, key, stream=False)
    kind: Any = ChatResponse if answer.status_code == 200 else Error
    return answer.status_code, kind.FromString(answer.content)


def ask_protobuf_stream(alice: ApiClient, key: str) -> tuple[int, Any]:
    answer = send_protobuf(alice, key, stream=True)
    if answer.status_code != 200:
        return answer.status_code, Error.FromString(answer.content)
    read = io.BytesIO(b"".join(answer.streaming_content))
    found = []
    while read.tell() < len(read.getvalue()):
        chunk = proto.parse_length_prefixed(ChatChunk, read)
        assert chunk is not None
        found.append(chunk)
    if found[-1].HasField("error"):
        return 500 if found[-1].error.code == "internal_error" else 502, found[-1].error.code
    return 200, "".join(chunk.delta for chunk in found)


def send_protobuf(alice: ApiClient, key: str, *, stream: bool) -> Any:
    asked = ChatRequest(messages=[ChatMessage(role="user", content="Hi")], stream=stream)
    headers = {"Idempotency-Key": key, "Accept": PROTOBUF}
    return alice.post(URL, asked.SerializeToString(), content_type=PROTOBUF, headers=headers)


CLIENTS: dict[str, Callable[[ApiClient, str], tuple[int, Any]]] = {
    "json": ask_json,
    "events": ask_events,
    "protobuf": ask_protobuf,
    "protobuf stream": ask_protobuf_stream,
}
# Who may ask again with the key of another client: in the other format, and a stream for a stream.
TWIN = {"json": "protobuf", "protobuf": "json", "events": "protobuf stream", "protobuf stream": "events"}


def check(alice: ApiClient, upstream: OpenAIDouble, answer: bytes, stream: bytes) -> set[int]:
    """Ask as each client does, twice. Returns the statuses of the first answers."""
    upstream.choose = lambda body: Behaviour(raw=stream if body.get("stream") else answer)
    UsageEvent.objects.all().delete()
    statuses = set()
    for name, ask in CLIENTS.items():
        key = uuid.uuid4().hex
        status, first = ask(alice, key)
        statuses.add(status)
        assert status in {200, 502}, (name, status, first)
        row = UsageEvent.objects.latest("pk")
        assert row.status == ("completed" if status == 200 else "failed")
        figures = (row.prompt_tokens, row.completion_tokens, row.total_tokens, row.cached_tokens)
        assert all(0 <= figure <= MOST for figure in (*figures, row.cache_write_tokens, row.reasoning_tokens))
        if status == 200:
            assert ask(alice, key) == (status, first), name
            assert CLIENTS[TWIN[name]](alice, key)[0] in {200, 409}, (name, TWIN[name])
    assert UsageEvent.objects.count() == len(CLIENTS)
    return statuses


@options(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(odd=oddities())
def test_no_odd_field_is_a_500(alice: ApiClient, upstream: OpenAIDouble, odd: tuple[bytes, bytes]) -> None:
    check(alice, upstream, *odd)


def with_field(path: str, value: Any) -> tuple[bytes, bytes]:
    answer, stream = whole(), chunks()
    for at, top in (("message", answer), *(("delta", chunk) for chunk in stream)):
        *keys, last = path.replace("message", at).split(".")
        inner: Any = top
        for key in keys:
            inner = (
                (inner[int(key)] if int(key) < len(inner) else {}) if isinstance(inner, list) else inner.get(key, {})
            )
        inner[last] = value
    return dump(answer), b"".join(b"data: " + dump(chunk) + b"\n\n" for chunk in stream)


def each(path: str, *values: Any) -> list[tuple[str, Any]]:
    return [(path, value) for value in values]


FIGURES = (2**31 - 1, 2**70, -1, "9" * 5000, 1e400, "5")
CALLS_OF_ODD_PLACES: list[dict[str, Any]] = [{"id": 5}, {"index": -1}, {"index": 2**70}]
BOUGHT: list[tuple[str, Any]] = [
    *each("created", 1762000000123, "1762000000", 1762000000.5, -5, 2**70, 10**400, {}, None),
    *each("choices.0.finish_reason", {"a": 1}, ["stop"], 7, True, "x" * 10**6, nest(300)),
    *each("model", 5, None, {}, "x" * 10**6, "\ud800", "a\0b"),
    *(
        case
        for name in ("id", "object", "system_fingerprint", "service_tier")
        for case in each(name, 5, [], "x" * 9999)
    ),
    *each("usage", *({**USAGE, name: 2**70} for name in USAGE)),
    # Each of the figures in each place, in few answers: the same lines read them all.
    *each("usage", *({name: FIGURES[(n + turn) % 6] for n, name in enumerate(USAGE)} for turn in range(6))),
    *each("usage", dict.fromkeys(USAGE, 2**31 - 1), "x", [], 5, {"prompt_tokens": {"a": None}}),
    *each("choices.0.logprobs", 5, "x", {"content": [5, {"logprob": float("nan")}]}),
    *each("choices.0.logprobs", {"content": [{**LOGPROB, "bytes": [10**400, -1, 300]}]}),
    *each("choices.0.logprobs", {"content": [{**LOGPROB, "top_logprobs": nest(300, "top_logprobs")}]}),
    *each("choices.0.message.annotations", 5, {}, [5], [{"url_citation": {"start_index": 10**400}}]),
    *each("choices.0.message.extra_content", nest(450), nest(450, "a"), float("inf"), 10**400),
    *each("choices.0.message.tool_calls", *([{**CALL, **odd}] for odd in CALLS_OF_ODD_PLACES)),
    *each("choices.0.message.tool_calls", [{**CALL, "function": {"name": "f", "arguments": nest(300, "a")}}]),
    *each("choices.0.message.tool_calls", [{**CALL, "index": n, "id": f"c{n}"} for n in range(3000)]),
    *each("choices.0.message.role", 5, {}, "system"),
    *each("choices.0.message.refusal", {"a": 1}),
    *each("choices.0.index", 10**400),
    *each("moderation", float("nan")),
    *each("citations", nest(300, "a")),
]


@pytest.mark.parametrize(("path", "value"), BOUGHT, ids=lambda value: str(value)[:40] if isinstance(value, str) else "")
def test_an_odd_field_loses_no_reply(alice: ApiClient, upstream: OpenAIDouble, path: str, value: Any) -> None:
    assert check(alice, upstream, *with_field(path, value)) == {200}


@pytest.mark.parametrize(
    "raw",
    [
        dump(whole()).replace(b'"created": 1', b'"created": ' + b"9" * 5000),
        dump(whole()).replace(b'"created": 1', b'"created": 1, "created": {}'),
        dump({**whole(), "choices": whole()["choices"][0]}),
        dump({**whole(), "choices": whole()["choices"] * 5000}),
    ],
    ids=["digits", "twice", "a single choice", "many choices"],
)
def test_odd_json_loses_no_reply(alice: ApiClient, upstream: OpenAIDouble, raw: bytes) -> None:
    assert check(alice, upstream, raw, b"data: " + raw + b"\n\n") == {200}


OLD: list[tuple[str, Any]] = [
    *each("created", 1762000000123, -1, 2**70, 10**400, "x", None),
    *each("choices.0.finish_reason", {"a": 1}, ["stop"], 7, nest(200)),
    *each("usage", {"prompt_tokens": "x"}, {"total_tokens": float("inf")}, None, []),
    *each("choices.0.logprobs", 5, {"content": [{"bytes": [10**400]}]}, nest(300, "content")),
    *each("choices.0.logprobs", {"content": [nest(300, "top_logprobs"), {"token": "x", "top_logprobs": [nest(1)]}]}),
    *each("choices.0.message.tool_calls", 5, [5], {}, [None], [{"function": 5}]),
    *each("choices.0.message", "x", None, []),
    *each("choices", [], [5], None, {}),
    *each("model", 5, None),
    *each("citations", float("nan")),
]


@pytest.mark.parametrize("name", CLIENTS)
def test_an_old_answer_is_rendered_whatever_it_holds(alice: ApiClient, upstream: OpenAIDouble, name: str) -> None:
    ask = CLIENTS[name]
    assert ask(alice, "k")[0] == 200
    row = IdempotencyKey.objects.get()
    new = row.response_json or ""
    for path, value in OLD:
        stored = json.loads(new)
        *keys, last = path.split(".")
        inner = stored
        for key in keys:
            inner = inner[int(key)] if isinstance(inner, list) else inner[key]
        inner[last] = value
        row.response_json = json.dumps(stored)
        row.save()

        assert ask(alice, "k")[0] == 200, (path, str(value)[:99])
    assert len(upstream.requests) == 1


def test_a_conversation_goes_on_after_odd_fields(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    odd = {"a": float("inf"), "b": 10**400, "c": nest(450)}
    upstream.plan(Behaviour(raw=with_field("choices.0.message.extra_content", odd)[0]))
    assert alice.say(cid, "Hi").status_code == 200

    answer = alice.say(cid, "and then?", stream=False)

    assert answer.status_code == 200, answer.content
    assert Message.objects.filter(role="assistant").count() == 2
