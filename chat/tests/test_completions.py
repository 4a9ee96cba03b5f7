"""POST /v1/chat/completions, in both forms."""

from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries, Settings

from analytics.models import AnalyticsEvent, UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import Conversation, Message
from conftest import ApiClient

URL = "/v1/chat/completions"


def without_identity(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in {"safety_identifier", "prompt_cache_key"}}


def test_it_works(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()

    answer = alice.say(cid, "Hello there", user="u-1")

    assert answer.status_code == 200
    body = answer.json()
    usage = UsageEvent.objects.get()
    assert body["id"] == body["request_id"] == answer["x-request-id"] == usage.request_id
    assert body["object"] == "chat.completion"
    assert body["conversation_id"] == cid
    assert body["reply"] == body["choices"][0]["message"]["content"] == "echo: Hello there"
    assert body["history_truncated"] is False
    assert {name: body["usage"][name] for name in upstream.sold[0]} == upstream.sold[0]
    assert body["usage"]["latency_ms"] == usage.latency_ms
    assert (usage.status, usage.user_id, usage.conversation_id) == ("completed", "u-1", cid)
    assert usage.total_tokens == upstream.sold[0]["total_tokens"]
    assert usage.cost_nanos == usage.prompt_tokens * 150 + usage.completion_tokens * 600
    rows = Message.objects.values_list("role", "content", "request_id").order_by("id")
    assert list(rows) == [
        ("user", "Hello there", usage.request_id),
        ("assistant", "echo: Hello there", usage.request_id),
    ]
    event = AnalyticsEvent.objects.get()
    assert (event.event_name, event.user_id, event.request_id) == ("chat.completed", "u-1", usage.request_id)


def test_the_upstream_gets_the_history_oldest_first(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings
) -> None:
    settings.SYSTEM_PROMPT = "Be brief."
    cid = alice.conversation()
    for text in ("one", "two", "three"):
        alice.say(cid, text)

    assert without_identity(upstream.requests[2]["body"]) == {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "echo: one"},
            {"role": "user", "content": "two"},
            {"role": "assistant", "content": "echo: two"},
            {"role": "user", "content": "three"},
        ],
    }
    assert upstream.requests[2]["headers"]["authorization"] == "Bearer sk-test-0123456789"
    ours = UsageEvent.objects.order_by("-id").values_list("request_id", flat=True)[0]
    assert upstream.requests[2]["headers"]["x-client-request-id"] == ours


def test_openai_messages_are_stateless(alice: ApiClient, upstream: OpenAIDouble) -> None:
    messages = [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "Hi"}]

    body = alice.send(URL, {"model": "gpt-4o", "messages": messages, "temperature": 0.5, "seed": 7}).json()

    assert body["conversation_id"] is None
    assert body["reply"] == "echo: Hi"
    sent = without_identity(upstream.requests[0]["body"])
    assert sent == {"model": "gpt-4o", "messages": messages, "temperature": 0.5, "seed": 7}
    assert Message.objects.count() == 0
    assert UsageEvent.objects.get().user_id == f"token:{alice.token_row.pk}"


def test_an_alias_is_answered_by_the_model_behind_it(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings
) -> None:
    settings.MODEL_ALIASES = {"gpt-4o": "smollm2-135m"}
    # It fits the 128,000 tokens of the one, and not the 8,192 of the other.
    too_long = [{"role": "user", "content": "x" * 30_000}]

    answer = alice.send(URL, {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]})

    assert answer.json()["model"] == upstream.requests[0]["body"]["model"] == "smollm2-135m"
    row = UsageEvent.objects.get()
    assert (row.model, row.served_model, row.cost_nanos) == ("gpt-4o", "smollm2-135m", None)
    refused = alice.send(URL, {"model": "gpt-4o", "messages": too_long})
    assert refused.json()["error"]["code"] == "context_length_exceeded"


def test_one_model_answers_to_every_name(alice: ApiClient, upstream: OpenAIDouble, settings: Settings) -> None:
    settings.MODEL_ALIASES = {"*": "smollm2-135m"}

    models = [
        alice.send(URL, {"model": name, "messages": [{"role": "user", "content": "Hi"}]}).json()["model"]
        for name in ("whatever", "gpt-4o", "smollm2-135m")
    ]

    assert models == ["smollm2-135m", "gpt-4o", "smollm2-135m"]
    assert UsageEvent.objects.filter(model="whatever", served_model="smollm2-135m", cost_nanos=None).exists()


def test_what_an_alias_bought_has_no_price_of_its_name(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings
) -> None:
    settings.MODEL_ALIASES = {"gpt-4o": "smollm2-135m"}
    upstream.plan(Behaviour(raw=b"not an answer"))

    assert alice.send(URL, {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}).status_code == 502

    row = UsageEvent.objects.get()
    assert row.prompt_tokens > 0
    assert row.cost_nanos is None


def test_openai_messages_beside_a_conversation_are_what_is_new(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    alice.say(cid, "one")
    parts = [
        {"type": "text", "text": "two"},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
    ]

    alice.send(URL, {"conversation_id": cid, "messages": [{"role": "user", "content": parts}]})
    alice.say(cid, "three")

    assert [message["content"] for message in upstream.requests[2]["body"]["messages"]] == [
        "one",
        "echo: one",
        parts,
        "echo: two ",
        "three",
    ]
    assert Message.objects.filter(role="user").order_by("id")[1].content == "two\n[image_url]"


def test_tool_calls_are_remembered(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    upstream.plan(Behaviour(message={"role": "assistant", "content": None, "tool_calls": [call]}))

    first = alice.say(cid, "weather?").json()
    result = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    alice.send(URL, {"conversation_id": cid, "messages": [result]})

    assert first["reply"] == ""
    assert upstream.requests[1]["body"]["messages"] == [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        result,
    ]


def test_bob_cannot_speak_in_alices_conversation(alice: ApiClient, bob: ApiClient, upstream: OpenAIDouble) -> None:
    answer = bob.say(alice.conversation(), "Hi")

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "conversation_not_found"
    assert upstream.requests == []
    assert UsageEvent.objects.count() == 0


def test_a_deleted_conversation_leaves_its_cost(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    alice.say(cid, "Hi")

    Conversation.objects.get().delete()

    assert Message.objects.count() == 0
    assert UsageEvent.objects.get().conversation_id == cid


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, None),
        ([], None),
        ({"message": "Hi"}, "conversation_id"),
        ({"message": 5, "conversation_id": "c_1"}, "message"),
        ({"message": "", "conversation_id": "c_1"}, "message"),
        ({"message": "Hi", "conversation_id": "c_1", "messages": []}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "wizard", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": "Hi", "extra": 1}]}, "messages[0].extra"),
        ({"messages": [{"role": "user", "content": "Hi"}], "n": 2}, "n"),
        ({"messages": [{"role": "user", "content": "Hi"}], "stream": "perhaps"}, "stream"),
        (
            {"messages": [{"role": "user", "content": "Hi"}], "stream_options": {"include_usage": True}},
            "stream_options",
        ),
        ({"messages": [{"role": "user", "content": "Hi"}], "temperature": 3}, "temperature"),
        ({"messages": [{"role": "user", "content": "Hi"}], "top_k": 5}, "top_k"),
        ({"messages": [{"role": "user", "content": "Hi"}], "stop": ["a"] * 5}, "stop"),
        ({"messages": [{"role": "user", "content": "Hi"}], "metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"messages": [{"role": "user", "content": "nul \0"}]}, None),
    ],
)
def test_bad_input_is_refused_by_name(alice: ApiClient, upstream: OpenAIDouble, body: Any, param: str | None) -> None:
    answer = alice.send(URL, body)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_request", param)
    assert error["message"]
    assert upstream.requests == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"messages": NaN}',
        b'{"messages":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"messages":[{"role":"user","content":"half \\ud800"}]}',
        b'{"messages":[{"role":"user","content":"Hi"}],"tools":[' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"]}",
    ],
)
def test_a_body_that_is_not_json_is_refused(alice: ApiClient, body: bytes) -> None:
    answer = alice.send(URL, body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


def test_a_byte_order_mark_is_no_part_of_the_json(alice: ApiClient, upstream: OpenAIDouble) -> None:
    assert alice.send(URL, b'\xef\xbb\xbf{"messages":[{"role":"user","content":"Hi"}]}').status_code == 200


def test_replies_that_no_database_takes_are_mended(alice: ApiClient, upstream: OpenAIDouble) -> None:
    upstream.plan(Behaviour(text="a\0b\ud800c\U0001f600"))

    answer = alice.say(alice.conversation(), "Hi").json()

    assert answer["reply"] == "a\ufffdb\ufffdc\U0001f600"
    assert Message.objects.get(role="assistant").content == answer["reply"]


def test_an_unknown_price_is_null(alice: ApiClient, upstream: OpenAIDouble) -> None:
    alice.send(URL, {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Hi"}]})

    assert UsageEvent.objects.get().cost_nanos is None


def test_missing_figures_are_estimated_and_marked(alice: ApiClient, upstream: OpenAIDouble) -> None:
    upstream.plan(Behaviour(usage=False))

    body = alice.send(URL, {"messages": [{"role": "user", "content": "Hi"}]}).json()

    usage = UsageEvent.objects.get()
    assert usage.is_estimated
    assert usage.total_tokens == body["usage"]["total_tokens"] > 0


def test_a_turn_is_a_constant_number_of_queries(
    alice: ApiClient, upstream: OpenAIDouble, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    cid = alice.conversation()
    for _ in range(3):
        alice.say(cid, "Hi")

    # authenticate, admit; conversation, history; savepoint, usage row, release;
    # savepoint, usage row, event, conversation, messages, release
    with django_assert_num_queries(13):
        alice.say(cid, "Hi")
    # and, with a key: look at it, claim it; store the answer, see that the conversation is there
    with django_assert_num_queries(17):
        alice.say(cid, "Hi", key="k")
    # a replay: authenticate, admit; key, conversation, history; event
    with django_assert_num_queries(6):
        alice.say(cid, "Hi", key="k")
