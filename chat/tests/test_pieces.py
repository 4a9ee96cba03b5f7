"""Work on a large request comes in pieces, between which other requests run. Work is counted in lines of Python."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoDbBlocker, Settings

from analytics import fairness
from bench.dialects import VLLM
from bench.openai_double import Behaviour, OpenAIDouble
from chat import pieces
from chat.api.messages import read_messages
from chat.api.parsers import refuse_unstorable
from chat.models import Conversation, Message
from chat.turns import cuts, history
from chat.turns.idempotency import MESSAGE_LEVELS, hash_of
from chat.turns.messages import canonical
from conftest import ApiClient, kept_rows
from protos import chat_pb2 as pb

URL = "/v1/chat/completions"
MODEL = "smollm2-135m"  # its window is OPENAI_CONTEXT_TOKENS
USER, REPLY = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}
TEXT = {"type": "text", "text": "a"}
PICTURE = {"type": "image_url", "image_url": {"url": "https://x"}}
# Twenty lines for each value of a piece.
MOST_LINES = 20 * pieces.PIECE_VALUES
# A transaction is not cut: no request has to wait for a lock that its owner holds while others run.
WRITES = {"messages", "a call a message", "calls of one reply"}


class Lines:
    """Counts the lines of Python that this thread runs, in all and between two breaths."""

    def __init__(self) -> None:
        self.total = self.longest = self.breaths = self._since = 0

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename == __file__:
            return None
        self._since += event == "line"
        return self.trace

    def breathe(self) -> None:
        self.total += self._since
        self.longest, self._since = max(self.longest, self._since), 0
        self.breaths += 1

    def run(self, work: Callable[[], Any]) -> Any:
        sys.settrace(self.trace)
        try:
            return work()
        finally:
            sys.settrace(None)
            self.breathe()


@pytest.fixture(scope="module", autouse=True)
def everything_is_imported(django_db_setup: None, django_db_blocker: DjangoDbBlocker, double: OpenAIDouble) -> None:
    """Take one turn, so that no test counts the lines of modules."""
    with kept_rows(django_db_blocker):
        client = ApiClient("first")
        assert client.say(client.conversation(), "hi", key="k").status_code == 200
        assert client.send(URL, "x").status_code == 400


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    counted, before = Lines(), sys.gettrace()
    monkeypatch.setattr(fairness, "breathe", counted.breathe)
    monkeypatch.setattr(pieces, "_done", 0)
    yield counted
    sys.settrace(before)


CALLS = [
    {"id": f"c{n}", "type": "function", "function": {"name": "w", "arguments": json.dumps({"a": "b" * 99})}}
    for n in range(2047)
]
RESULTS = [{"role": "tool", "tool_call_id": f"c{n}", "content": "x"} for n in range(2047)]
SCHEMA = {str(n): {"type": "string"} for n in range(16_000)}
LARGE: dict[str, dict[str, Any]] = {
    "parts": {"messages": [{"role": "user", "content": [PICTURE, TEXT] * 500}] * 8},
    "parts of replies": {"messages": [{"role": "assistant", "content": [TEXT] * 1000}] * 8 + [USER]},
    "messages": {"messages": [USER] * 2048},
    "a call a message": {
        "messages": [m for n in range(1023) for m in ({**REPLY, "tool_calls": [CALLS[n]]}, RESULTS[n])] + [USER]
    },
    "calls of one reply": {"messages": [{**REPLY, "tool_calls": CALLS}, *RESULTS]},
    "a schema": {"messages": [USER], "tools": [{"type": "function", "function": {"name": "w", "parameters": SCHEMA}}]},
    "a response format": {"messages": [USER], "response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    "a prediction": {"messages": [USER], "prediction": {"type": "content", "content": [TEXT] * 16_000}},
    "a choice": {"messages": [USER], "tools": [{"type": "function"}], "tool_choice": SCHEMA},
    "thinking": {"messages": [{**REPLY, "reasoning_details": [{}] * 22_000}, USER]},
    "biases": {"messages": [USER], "logit_bias": {str(n): 1 for n in range(1024)}},
    "fields of a message": {"messages": [{**USER, **{f"f{n}": None for n in range(45_000)}}]},
    "fields of a part": {
        "messages": [{"role": "user", "content": [{**TEXT, **{f"f{n}": None for n in range(45_000)}}]}]
    },
    "no fields": {"messages": [USER], **{f"f{n}": None for n in range(45_000)}},
    "long text": {"messages": [{"role": "user", "content": 'a, "b" é' * 300_000}]},
}


@pytest.mark.parametrize("name", LARGE)
def test_no_piece_of_a_request_is_long(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings, lines: Lines, name: str
) -> None:
    # Not the long text again: how many reads an answer takes is up to the socket.
    upstream.default = Behaviour(text="short")
    settings.OPENAI_CONTEXT_TOKENS = 10**9
    settings.UPSTREAM_MESSAGE_FIELDS = ["reasoning_details"]
    if name == "thinking":
        upstream.dialect = VLLM  # OpenAI knows no such field.
    alice.token_row.day_tokens = alice.token_row.tokens_per_min = 10**12
    alice.token_row.save()
    body = json.dumps({"model": MODEL, "conversation_id": alice.conversation(), **LARGE[name]})

    answer = lines.run(lambda: alice.send(URL, body, key="k"))

    assert answer.status_code == (400 if "fields" in name else 200), answer.content[:500]
    assert lines.longest < (4 * MOST_LINES if name in WRITES else MOST_LINES)
    # In all it is no more than a fixed amount of work for each value.
    assert lines.total < 60_000 + 80 * pieces.count_json(body.encode(), 10**9)


def test_no_piece_of_a_protobuf_message_is_long(alice: ApiClient, upstream: OpenAIDouble, lines: Lines) -> None:
    one = pb.ChatMessage(role="user", parts=[pb.ContentPart(text="a")] * 1000)
    message = pb.ChatRequest(messages=[one] * 8, logit_bias={str(n): 1.0 for n in range(1000)})
    body = message.SerializeToString()
    alice.conversation()  # the client's first request loads the middleware

    answer = lines.run(lambda: alice.post(URL, body, content_type="application/x-protobuf"))

    assert answer.status_code == 200
    assert lines.longest < MOST_LINES


def test_no_piece_of_the_count_of_fields_is_long(lines: Lines) -> None:
    from chat.api.values import count_fields

    body = pb.ChatRequest(messages=[pb.ChatMessage()] * 40_000).SerializeToString()

    assert lines.run(lambda: count_fields(body, pb.ChatRequest.DESCRIPTOR, 50_000)) == 40_000
    assert lines.breaths >= 40_000 // pieces.PIECE_VALUES
    assert lines.longest < MOST_LINES


@pytest.mark.parametrize("data", [[[]] * 50_000, {str(n): 1 for n in range(50_000)}, [{"a": ["b"]}] * 10_000])
def test_no_piece_of_the_look_at_values_is_long(lines: Lines, data: Any) -> None:
    lines.run(lambda: refuse_unstorable(data))

    assert lines.longest < MOST_LINES


def test_small_requests_share_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    breaths: list[None] = []
    monkeypatch.setattr(fairness, "breathe", lambda: breaths.append(None))
    monkeypatch.setattr(pieces, "_done", 0)

    for _ in range(30):
        read_messages([{"role": "user", "content": [TEXT] * 100}])

    assert len(breaths) >= 30 * 100 // pieces.PIECE_VALUES


# --- the hash of a request ---

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)


@given(content=st.dictionaries(st.text(max_size=4), JSON, max_size=4), levels=st.integers(0, 8))
def test_a_hash_does_not_depend_on_its_pieces(content: dict[str, Any], levels: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chat.turns.idempotency.PIECE_BYTES", 3)
        whole = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()

        assert hash_of(content, levels=levels) == hashlib.sha256(whole).hexdigest()


def test_a_long_text_is_hashed_in_pieces(lines: Lines) -> None:
    url = "data:image/png;base64," + "A" * (4 * 1024 * 1024)
    picture = {"type": "image_url", "image_url": {"url": url}}

    hash_of({"messages": [{"role": "user", "content": [picture]}]}, levels=MESSAGE_LEVELS)

    assert lines.breaths >= len(url) // pieces.PIECE_BYTES


# --- what was stored ---


def stored(alice: ApiClient, *messages: dict[str, Any]) -> str:
    """Store messages as an earlier version may have done."""
    cid = alice.conversation()
    Message.objects.bulk_create(Message.from_openai(each, conversation_id=cid, request_id="") for each in messages)
    return cid


def test_many_parts_of_a_history_do_not_slow_later_turns(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings, lines: Lines
) -> None:
    settings.OPENAI_CONTEXT_TOKENS = 10**9
    settings.HISTORY_TOKENS = 0
    many: dict[str, Any] = {"role": "user", "content": [PICTURE, TEXT] * 500}
    cid = stored(alice, *[many, REPLY] * 60)

    first = lines.run(lambda: alice.say(cid, "one", model=MODEL))
    sent = upstream.requests[-1]["body"]["messages"]
    second = alice.say(cid, "two", model=MODEL)

    assert first.json()["history_truncated"] is True
    assert sum(len(each["content"]) for each in sent if isinstance(each["content"], list)) <= cuts.MAX_PARTS
    assert lines.longest < MOST_LINES
    # For good, and the next prompt begins with the same messages.
    assert Conversation.objects.get(pk=cid).history_from
    assert second.status_code == 200
    assert upstream.requests[-1]["body"]["messages"][: len(sent)] == sent


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_message_of_too_many_parts_is_left_out(
    alice: ApiClient, upstream: OpenAIDouble, lines: Lines, role: str
) -> None:
    cid = stored(alice, {"role": role, "content": [TEXT] * 52_000}, USER, REPLY)

    answer = lines.run(lambda: alice.say(cid, "again"))

    assert answer.status_code == 200
    assert [each["content"] for each in upstream.requests[-1]["body"]["messages"]] == ["hi", "ho", "again"]
    assert lines.total < MOST_LINES


def test_the_newest_message_may_be_the_one_of_too_many_parts(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings
) -> None:
    settings.OPENAI_CONTEXT_TOKENS = 10**9
    settings.HISTORY_TOKENS = 0
    cid = stored(alice, USER, REPLY, {"role": "user", "content": [PICTURE, TEXT] * 26_000})

    assert alice.say(cid, "again", model=MODEL).status_code == 200
    assert alice.say(cid, "and again", model=MODEL).status_code == 200
    assert upstream.requests[-1]["body"]["messages"][0]["content"] == "again"


def test_what_is_known_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def counted(message: dict[str, Any]) -> dict[str, Any] | None:
        seen.append(message)
        return canonical(message)

    monkeypatch.setattr(history, "canonical", counted)
    row = history.StoredMessage(1, "assistant", "ho", None, "")

    assert history.count_known([row._replace(role="user", content="x"), row], [USER, REPLY] * 1000) == 0
    assert len(seen) <= 2 * 2000


def test_results_of_many_calls_find_their_groups_in_one_step(lines: Lines) -> None:
    messages = [{**REPLY, "tool_calls": [call]} for call in CALLS[:1000]] + RESULTS[:1000]

    groups = lines.run(lambda: history.group([], messages, is_whole=True))

    assert len(groups) == 1000


def test_a_turn_without_parts_does_not_breathe(
    alice: ApiClient, upstream: OpenAIDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fairness, "breathe", lambda: pytest.fail("a small request was cut"))
    monkeypatch.setattr(pieces, "_done", 0)

    assert alice.say(alice.conversation(), "hi", key="k").status_code == 200
