"""A stream under an idempotency key: it is replayed when it has ended, and joined while it runs."""

import pytest

from bench.openai_double import Behaviour, OpenAIDouble
from chat.tests.streaming import URL, events, stream, text_of
from conftest import ApiClient

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_turn_is_left")]
every_dialect = pytest.mark.usefixtures("dialect")


@every_dialect
def test_a_finished_turn_replays_as_a_stream_or_as_json(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    with_usage = {"stream": True, "stream_options": {"include_usage": True}}
    first = events(alice.say(cid, "Hi", key="k", **with_usage))

    again = alice.say(cid, "Hi", key="k", **with_usage)
    as_json = alice.say(cid, "Hi", key="k")

    chunks = events(again)
    assert text_of(chunks) == text_of(first) == as_json.json()["reply"]
    assert chunks[0]["request_id"] == first[0]["request_id"] == as_json.json()["id"]
    assert chunks[-2]["usage"] == first[-2]["usage"] == as_json.json()["usage"]
    assert as_json["Idempotent-Replayed"] == "true"
    assert len(upstream.requests) == 1


@every_dialect
def test_a_json_turn_replays_as_a_stream_with_its_tool_calls(alice: ApiClient, upstream: OpenAIDouble) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    upstream.plan(Behaviour(message={"role": "assistant", "content": None, "tool_calls": [call]}))
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    alice.send(URL, body, "k")

    chunks = events(alice.send(URL, {**body, "stream": True}, "k"))

    assert chunks[0]["choices"][0]["delta"]["tool_calls"] == [{"index": 0, **call}]


@every_dialect
def test_a_duplicate_joins_the_stream_that_runs(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    upstream.plan(Behaviour(text="one two three four", pause=0.1))
    first = alice.say(cid, "Hi", stream=True, key="k")

    twin = alice.say(cid, "Hi", stream=True, key="k")
    other = alice.say(cid, "Something else", stream=True, key="k")

    assert twin["Idempotent-Replayed"] == "true"
    assert events(twin) == events(first)
    assert other.status_code == 409
    assert len(upstream.requests) == 1


def test_a_key_of_another_client_joins_nothing(alice: ApiClient, bob: ApiClient, upstream: OpenAIDouble) -> None:
    upstream.default = Behaviour(pause=0.05)
    first, other = stream(alice, key="k"), stream(bob, key="k")

    assert events(first)[0]["id"] != events(other)[0]["id"]
    assert len(upstream.requests) == 2
