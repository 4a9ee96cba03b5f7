"""What clients send: what is taken, what of it goes to the upstream, and what is refused by name."""

from typing import Any

import pytest
from pytest_django import Settings

from analytics.models import UsageEvent
from bench.dialects import VLLM
from bench.openai_double import Behaviour, OpenAIDouble
from chat.api import messages
from chat.api.fields import OWN
from chat.api.serializers import CompletionIn
from chat.models import Message
from conftest import ApiClient

URL = "/v1/chat/completions"
USER = {"role": "user", "content": "Hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "w", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
LEGACY = {"role": "assistant", "content": None, "function_call": {"name": "w", "arguments": "{}"}}
LEGACY_RESULT = {"role": "function", "name": "w", "content": "sunny"}


def ask(client: ApiClient, *sent: Any, **fields: Any) -> Any:
    return client.send(URL, {"messages": [*(sent or [USER])], **fields})


def problem(answer: Any) -> tuple[int, str | None]:
    return answer.status_code, answer.json()["error"]["param"]


def body(upstream: OpenAIDouble) -> dict[str, Any]:
    """What the upstream was asked last, without the model, the messages, and who is behind the request."""
    sent: dict[str, Any] = upstream.requests[-1]["body"]
    ours = {name for name in ("safety_identifier", "prompt_cache_key") if len(sent.get(name, "")) == 43}
    return {name: value for name, value in sent.items() if name not in {"model", "messages", *ours}}


# --- replies that are sent back ---


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ({"content": "a", "annotations": [], "audio": None, "function_call": None, "refusal": None}, "a"),
        ({"content": "a", "tool_calls": None}, "a"),
        ({"content": "a", "tool_calls": [], "parsed": {"n": 5}, "images": ["x"], "name": None}, "a"),
        ({"content": "a", "audio": {"id": "audio_1"}, "provider_specific_fields": {"x": 1}}, "a"),
        ({"content": "a", "thinking_blocks": [{"type": "thinking"}], "anything": {"else": 1}}, "a"),
        ({"content": "a", "refusal": "", "name": "", "cache_control": {"type": "ephemeral"}}, "a"),
        ({"content": "a", "reasoning_content": "hm", "reasoning": "hm", "reasoning_details": [{"text": "hm"}]}, "a"),
        ({"content": "a", "extra_content": {"g": 1}}, "a"),
        ({"content": "a", "reasoning_content": 5, "reasoning_details": "x"}, "a"),
        # A reply that says nothing is taken, and not sent: strict providers refuse it.
        ({"content": None}, None),
        ({"content": []}, None),
        ({"content": ""}, None),
        ({}, None),
        # Only OpenAI has a field for refusals.
        ({"content": None, "refusal": "No."}, "No."),
        ({"content": [{"type": "refusal", "refusal": "No."}]}, "No."),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "a"},
                ]
            },
            "a",
        ),
        ({"content": [{"type": "output_text", "text": "a", "annotations": [], "id": "x"}]}, "a"),
    ],
)
def test_a_reply_may_be_sent_back(alice: ApiClient, upstream: OpenAIDouble, sent: Any, read: str | None) -> None:
    answer = ask(alice, USER, {"role": "assistant", **sent}, USER)

    assert answer.status_code == 200, answer.content
    reply = [{"role": "assistant", "content": read}] if read else []
    assert upstream.requests[0]["body"]["messages"] == [USER, *reply, USER]


def test_thinking_is_sent_back_where_the_upstream_wants_it(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings
) -> None:
    settings.UPSTREAM_MESSAGE_FIELDS = ["reasoning_content", "extra_content"]
    upstream.dialect = VLLM
    reply = {"role": "assistant", "content": "a", "reasoning_content": "hm", "extra_content": {"g": 1}}

    assert ask(alice, USER, {**reply, "reasoning": "hm"}, USER).status_code == 200
    assert upstream.requests[0]["body"]["messages"][1] == reply


@pytest.mark.parametrize(
    ("call", "read"),
    [
        ({**CALL, "index": 0, "provider_specific_fields": {"x": 1}}, CALL),
        ({**CALL, "type": ""}, CALL),
        ({"id": "call_1", "function": {"name": "w"}}, CALL),
        ({**CALL, "function": {"name": "w", "arguments": ""}}, CALL),
        ({**CALL, "function": {"name": "w", "arguments": {}, "parsed_arguments": {}}}, CALL),
        ({**CALL, "extra_content": {"google": {}}}, CALL),
        (
            {"id": "call_1", "type": "custom", "custom": {"name": "w", "input": "x"}},
            {"id": "call_1", "type": "custom", "custom": {"name": "w", "input": "x"}},
        ),
    ],
)
def test_a_tool_call_may_be_sent_back(alice: ApiClient, upstream: OpenAIDouble, call: Any, read: Any) -> None:
    assert ask(alice, USER, {"role": "assistant", "tool_calls": [call]}, RESULT).status_code == 200

    assert upstream.requests[0]["body"]["messages"][1:] == [
        {"role": "assistant", "content": None, "tool_calls": [read]},
        RESULT,
    ]


def test_what_is_dropped_is_not_stored(alice: ApiClient, upstream: OpenAIDouble) -> None:
    reply = {"role": "assistant", "content": "a", "annotations": [{"x": 1}], "audio": None, "reasoning_content": "hm"}

    ask(alice, USER, reply, USER, conversation_id=alice.conversation())

    assert Message.objects.order_by("id")[1].as_openai() == {
        "role": "assistant",
        "content": "a",
        "reasoning_content": "hm",
    }


def test_function_calls_become_tool_calls(alice: ApiClient, upstream: OpenAIDouble) -> None:
    assert ask(alice, USER, LEGACY, {**LEGACY_RESULT, "content": None}, USER).status_code == 200

    call = {**CALL, "id": "call_function_1"}
    assert upstream.requests[0]["body"]["messages"] == [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "", "tool_call_id": "call_function_1"},
        USER,
    ]


def test_a_function_call_beside_tool_calls_repeats_them(alice: ApiClient, upstream: OpenAIDouble) -> None:
    assert ask(alice, USER, {**LEGACY, "tool_calls": [CALL]}, RESULT).status_code == 200

    assert upstream.requests[0]["body"]["messages"][1]["tool_calls"] == [CALL]


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ([LEGACY_RESULT], "messages[0].role"),
        ([USER, LEGACY_RESULT], "messages[1].role"),
        ([LEGACY, {**LEGACY_RESULT, "name": "x"}], "messages[0].function_call"),
        ([LEGACY, USER, LEGACY_RESULT], "messages[0].function_call"),
        ([LEGACY], "messages[0].function_call"),
        ([{"role": "assistant", "tool_calls": [{**CALL, "id": ""}]}], "messages[0].tool_calls[0].id"),
        ([{"role": "assistant", "tool_calls": [{**CALL, "type": "x"}]}], "messages[0].tool_calls[0].type"),
        ([{"role": "assistant", "tool_calls": [CALL, 5]}], "messages[0].tool_calls[1]"),
        ([{"role": "assistant", "tool_calls": "x"}], "messages[0].tool_calls"),
        (
            [{"role": "assistant", "tool_calls": [{**CALL, "function": {"arguments": "{}"}}]}],
            "messages[0].tool_calls[0].function.name",
        ),
        (
            [{"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "w", "arguments": 5}}]}],
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_calls_that_cannot_be_read(alice: ApiClient, upstream: OpenAIDouble, sent: Any, param: str) -> None:
    assert problem(ask(alice, *sent)) == (400, param)
    assert upstream.requests == []


# --- messages of other roles ---


@pytest.mark.parametrize(
    "sent",
    [
        {"role": "system", "content": ""},
        {"role": "developer", "content": [{"type": "text", "text": ""}]},
        {**USER, "name": None, "tool_calls": None, "whatever": None},
        {**USER, "name": "", "tool_calls": [], "refusal": "", "tool_call_id": "", "function_call": {}},
        {**USER, "type": "message", "cache_control": {"type": "ephemeral"}},
    ],
)
def test_empty_fields_say_nothing(alice: ApiClient, upstream: OpenAIDouble, sent: Any) -> None:
    assert ask(alice, sent, USER).status_code == 200

    content = sent["content"] if isinstance(sent["content"], str) else ""
    assert upstream.requests[0]["body"]["messages"][0] == {"role": sent["role"], "content": content}


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ("Hi", ""),
        (None, ""),
        ({"content": "Hi"}, ".role"),
        ({"role": None, "content": "Hi"}, ".role"),
        ({"role": ["user"], "content": "Hi"}, ".role"),
        ({"role": "user", "content": None}, ".content"),
        ({"role": "user", "content": []}, ".content"),
        ({"role": "user", "content": 5}, ".content"),
        ({"role": "user", "content": ["Hi"]}, ".content"),
        ({**USER, "tool_calls": [CALL]}, ".tool_calls"),
        ({**USER, "annotations": [1]}, ".annotations"),
        ({**USER, "name": 5}, ".name"),
        ({**USER, "name": "x" * 65}, ".name"),
        ({**USER, "type": "file"}, ".type"),
        ({"role": "tool", "content": "x", "tool_call_id": None}, ".tool_call_id"),
        ({"role": "tool", "content": "x", "tool_call_id": 5}, ".tool_call_id"),
        ({"role": "tool", "content": "x", "tool_call_id": "c", "extra": 1}, ".extra"),
    ],
)
def test_other_messages_are_read_strictly(alice: ApiClient, upstream: OpenAIDouble, sent: Any, param: str) -> None:
    assert problem(ask(alice, USER, sent)) == (400, f"messages[1]{param}")


def test_too_many_messages(alice: ApiClient) -> None:
    assert problem(ask(alice, *[USER] * (messages.MAX_MESSAGES + 1))) == (400, "messages")


# --- parts ---


@pytest.mark.parametrize(
    ("part", "read"),
    [
        ({"type": "input_text", "text": "a"}, {"type": "text", "text": "a"}),
        ({"type": "text", "text": "", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": ""}),
        (
            {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}},
            {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}},
        ),
        (
            {"type": "image_url", "image_url": "https://x.y/z"},
            {"type": "image_url", "image_url": {"url": "https://x.y/z"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://x.y/z", "detail": None}},
            {"type": "image_url", "image_url": {"url": "https://x.y/z"}},
        ),
        (
            {"type": "input_image", "image_url": "https://x.y/z", "detail": "low", "file_id": None},
            {"type": "image_url", "image_url": {"url": "https://x.y/z", "detail": "low"}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        ),
        (
            {"type": "file", "file": {"file_data": "AAAA", "filename": "a.pdf", "file_id": None}},
            {"type": "file", "file": {"file_data": "AAAA", "filename": "a.pdf"}},
        ),
        (
            {"type": "input_file", "file_id": "file_1", "file_url": None},
            {"type": "file", "file": {"file_id": "file_1"}},
        ),
    ],
)
def test_parts(alice: ApiClient, upstream: OpenAIDouble, part: Any, read: Any) -> None:
    assert ask(alice, {"role": "user", "content": [part]}, model="gpt-4o").status_code == 200

    # Where all parts are plain text, they are sent as text.
    content = read["text"] if set(read) == {"type", "text"} else [read]
    assert upstream.requests[0]["body"]["messages"] == [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "video_url", "video_url": {"url": "x"}}, "type"),
        ({"type": "text", "text": 5}, "text"),
        ({"type": "text"}, "text"),
        ({"type": "text", "text": "a", "extra": 1}, "extra"),
        ({"type": "image_url", "image_url": {}}, "image_url"),
        ({"type": "image_url"}, "image_url"),
        ({"type": "input_image", "file_id": "file_1"}, "file_id"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA"}}, "input_audio.format"),
        ({"type": "input_audio", "input_audio": "AAAA"}, "input_audio.data"),
        ({"type": "file", "file": {"filename": "a.pdf"}}, "file"),
        ({"type": "file", "file": {"file_data": 5}}, "file"),
        ({"type": "input_file", "file_url": "https://x.y/z"}, "file_url"),
    ],
)
def test_parts_that_cannot_be_read(alice: ApiClient, upstream: OpenAIDouble, part: Any, param: str) -> None:
    answer = ask(alice, {"role": "user", "content": [{"type": "text", "text": "a"}, part]})

    assert problem(answer) == (400, f"messages[0].content[1].{param}")


def test_an_unknown_part_is_named(alice: ApiClient) -> None:
    answer = ask(alice, {"role": "user", "content": [{"type": "video_url"}]})

    assert "video_url" in answer.json()["error"]["message"]


# --- fields ---


@pytest.mark.parametrize("name", [*CompletionIn().fields, "top_k", "guided_json", "x"])
def test_null_means_absent(alice: ApiClient, upstream: OpenAIDouble, name: str) -> None:
    fields: dict[str, Any] = {"messages": [USER], name: None}
    if name == "messages":
        fields |= {"message": "Hi", "conversation_id": alice.conversation()}

    assert alice.send(URL, fields).status_code == 200
    assert body(upstream) == {}


def test_null_inside_objects_means_absent(alice: ApiClient, upstream: OpenAIDouble) -> None:
    metadata = {"app_version": "1.2", "build": None}

    assert ask(alice, stream_options={"include_usage": None}, metadata=metadata).status_code == 200
    assert UsageEvent.objects.get().app_version == "1.2"


def test_null_and_absent_are_one_request(alice: ApiClient, upstream: OpenAIDouble) -> None:
    reply = {"role": "assistant", "content": "a"}
    one = {"messages": [USER, reply, USER], "metadata": {"a": "b"}, "max_tokens": 100}
    two = {
        "messages": [{**USER, "name": None}, {**reply, "annotations": [], "refusal": None}, USER],
        "metadata": {"a": "b", "c": None},
        "max_tokens": 100.0,
        "tools": [],
        "user": None,
        "stop": [],
        "modalities": ["text"],
    }

    assert alice.send(URL, one, key="k").status_code == 200
    assert alice.send(URL, two, key="k")["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize(
    "fields",
    [
        {"store": False},
        {"store": True},
        {"prompt_cache_key": "k"},
        {"prompt_cache_retention": "24h"},
        {"prompt_cache_options": {"mode": "explicit"}},
        {"safety_identifier": "s"},
        {"prediction": {"type": "content", "content": "Hi"}},
        {"web_search_options": {"search_context_size": "low"}},
        {"moderation": {"model": "omni-moderation-latest"}},
        {"response_format": {"type": "text"}},
        {"max_tokens": 100},
        {"seed": -1},
        {
            "tools": [{"type": "function", "function": {"name": "w"}}],
            "tool_choice": "auto",
            "parallel_tool_calls": False,
        },
        {"store": True, "metadata": {"a": "b"}},
    ],
)
def test_fields_that_go_to_the_upstream(alice: ApiClient, upstream: OpenAIDouble, fields: dict[str, Any]) -> None:
    assert ask(alice, **fields).status_code == 200

    assert body(upstream) == fields


@pytest.mark.parametrize(
    "fields",
    [
        {"modalities": ["text"]},
        {"functions": []},
        {"function_call": "none"},
        {"function_call": "auto"},
        {"tools": []},
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
        {"tool_choice": "none"},
        {"parallel_tool_calls": True},
        {"logit_bias": {}},
        {"stop": []},
        {"stream_options": {}},
        {"stream": False},
        {"n": 1},
        {"n": 1.0},
        {"user": "u"},
        {"user": ""},
        {"metadata": {"a": "b"}},
        {"metadata": {"a": "b"}, "user": "u"},
    ],
)
def test_fields_that_stay_here(alice: ApiClient, upstream: OpenAIDouble, fields: dict[str, Any]) -> None:
    assert ask(alice, **fields).status_code == 200

    assert body(upstream) == {}


def test_metadata_goes_only_where_the_completion_is_stored(alice: ApiClient, upstream: OpenAIDouble) -> None:
    ask(alice, store=False, metadata={"app_version": "1"})

    assert body(upstream) == {"store": False}


def test_both_bounds_may_be_the_same(alice: ApiClient, upstream: OpenAIDouble) -> None:
    assert ask(alice, max_tokens=100.0, max_completion_tokens=100).status_code == 200

    assert body(upstream) == {"max_completion_tokens": 100}


@pytest.mark.parametrize(
    ("fields", "param", "hint"),
    [
        ({"functions": [{"name": "w"}]}, "functions", "tools"),
        ({"function_call": {"name": "w"}}, "function_call", "tool_choice"),
        ({"modalities": ["text", "audio"]}, "modalities", "text"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio", "leave it out"),
        ({"stream": "true"}, "stream", "true or false"),
        ({"stream": 1}, "stream", "true or false"),
        ({"store": "on"}, "store", "true or false"),
        ({"n": 2}, "n", "one reply"),
        ({"n": "1"}, "n", "whole number"),
        ({"max_tokens": 100.5}, "max_tokens", "whole number"),
        ({"max_tokens": True}, "max_tokens", "whole number"),
        ({"temperature": "nan"}, "temperature", "number"),
        ({"temperature": True}, "temperature", "number"),
        ({"temperature": 10**400}, "temperature", "64 bits"),
        ({"logit_bias": {"5": "x"}}, "logit_bias.5", "number"),
        ({"tool_choice": 5}, "tool_choice", "auto"),
        ({"top_k": 5}, "top_k", "leave it out"),
        ({"extra_body": {"top_k": 5}}, "extra_body", "leave it out"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "leave it out"),
    ],
)
def test_fields_that_are_refused(
    alice: ApiClient, upstream: OpenAIDouble, fields: dict[str, Any], param: str, hint: str
) -> None:
    answer = ask(alice, **fields)

    assert problem(answer) == (400, param)
    assert hint in answer.json()["error"]["message"]
    assert upstream.requests == []


def test_the_upstreams_own_fields_go_there_as_they_are(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings
) -> None:
    upstream.dialect = VLLM
    settings.UPSTREAM_FIELDS = ["top_k", "guided_json", "temperature"]
    fields = {"top_k": "5", "guided_json": {"type": "object", "default": None}}

    assert ask(alice, **fields).status_code == 200
    assert body(upstream) == fields
    assert problem(ask(alice, min_p=0.1)) == (400, "min_p")
    assert problem(ask(alice, temperature=9)) == (400, "temperature")  # what llmapi knows it checks all the same


def test_llmapis_own_fields_are_fields_of_a_completion() -> None:
    assert set(CompletionIn().fields) > OWN


def test_an_unknown_model(alice: ApiClient, upstream: OpenAIDouble) -> None:
    answer = ask(alice, model="gpt-9")

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert error["message"].startswith("The model `gpt-9` does not exist or you do not have access to it.")
    assert "gpt-4o-mini, gpt-4o, smollm2-135m" in error["message"]
    assert answer["x-should-retry"] == "false"
    assert alice.get("/v1/models/gpt-9").json()["error"] == error


@pytest.mark.parametrize(
    "accept",
    [
        "text/event-stream",
        "text/event-stream; charset=utf-8",
        "text/event-stream;q=0.5",
        "text/*;q=0.1",
        "application/json;q=0.9, text/event-stream;q=1.0",
        "application/json; q=0",
        "*/*;q=0.8",
        "image/png, */*;q=0.01",
        "TEXT/EVENT-STREAM",
        "",
    ],
)
def test_accept_is_read_liberally(alice: ApiClient, upstream: OpenAIDouble, accept: str) -> None:
    answer = alice.send(URL, {"messages": [USER]}, accept=accept)

    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")


# --- conversations and their items ---


def test_null_in_conversations(alice: ApiClient) -> None:
    made = alice.send("/v1/conversations", {"items": None, "metadata": {"a": None, "b": "c"}, "x": None})
    url = f"/v1/conversations/{made.json()['id']}"

    assert made.json()["metadata"] == {"b": "c"}
    assert alice.send(url, {"metadata": None}).json()["metadata"] == {}
    assert problem(alice.send(url, {})) == (400, "metadata")


def test_items_may_be_sent_back(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    upstream.plan(Behaviour(text="A cat."))
    ask(alice, {"role": "user", "content": [{"type": "text", "text": "What?"}, picture]}, conversation_id=cid)
    listed = alice.get(f"/v1/conversations/{cid}/items", {"order": "asc"}).json()["data"]

    copy = alice.send("/v1/conversations", {"items": listed}).json()["id"]

    again = alice.get(f"/v1/conversations/{copy}/items", {"order": "asc"}).json()["data"]
    assert [item["content"] for item in again] == [item["content"] for item in listed]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, "items[0].content[0].text"),
        ({"role": "user", "content": "Hi", "extra": 1}, "items[0].extra"),
        ({"role": "tool", "content": "Hi"}, "items[0].role"),
        ({"type": "reasoning", "role": "user", "content": "Hi"}, "items[0].type"),
        ("Hi", "items[0]"),
    ],
)
def test_items_that_cannot_be_read(alice: ApiClient, item: Any, param: str) -> None:
    assert problem(alice.send("/v1/conversations", {"items": [item]})) == (400, param)


@pytest.mark.parametrize(
    "name",
    [
        *("conversation_id", "model", "reasoning_effort", "verbosity", "service_tier", "function_call"),
        *("prompt_cache_key", "prompt_cache_retention", "safety_identifier"),
    ],
)
def test_an_empty_word_says_nothing(alice: ApiClient, upstream: OpenAIDouble, name: str) -> None:
    assert ask(alice, **{name: ""}).status_code == 200
    assert name not in body(upstream)


@pytest.mark.parametrize("name", ["response_format", "prediction"])
def test_an_empty_object_says_nothing(alice: ApiClient, upstream: OpenAIDouble, name: str) -> None:
    assert ask(alice, **{name: {}}).status_code == 200
    assert name not in body(upstream)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "tool_use", "id": "a"},
        {"type": "reference", "reference_ids": [1]},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "text", "text": None},
    ],
)
def test_what_a_reply_says_beside_text_is_passed_over(alice: ApiClient, upstream: OpenAIDouble, part: Any) -> None:
    reply = {"role": "assistant", "content": [{"type": "text", "text": "a"}, part]}

    assert ask(alice, USER, reply, USER).status_code == 200
    assert upstream.requests[0]["body"]["messages"][1]["content"] == "a"


@pytest.mark.parametrize(
    ("role", "part"),
    [
        ("system", {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}),
        ("developer", {"type": "input_file", "file_id": "file_1"}),
        ("user", {"type": "refusal", "refusal": "no"}),
    ],
)
def test_parts_that_a_role_cannot_have(alice: ApiClient, role: str, part: Any) -> None:
    answer = ask(alice, {"role": role, "content": [part]})
    items = alice.send(
        f"/v1/conversations/{alice.conversation()}/items", {"items": [{"role": role, "content": [part]}]}
    )

    assert problem(answer) == (400, "messages[0].content[0].type")
    assert problem(items) == (400, "items[0].content[0].type")


def test_an_id_in_which_a_server_hides_a_signature(alice: ApiClient, upstream: OpenAIDouble) -> None:
    """OpenAI takes 64 characters: it is sent whole first, and made short for an upstream that refuses it."""
    call = {**CALL, "id": "call_1__thought__" + "x" * 900}

    answer = ask(alice, USER, {"role": "assistant", "tool_calls": [call]}, {**RESULT, "tool_call_id": call["id"]})

    assert answer.status_code == 200, answer.content
    assert len(upstream.refused) == 1
    _, called, answered = upstream.requests[0]["body"]["messages"]
    assert called["tool_calls"][0]["id"] == answered["tool_call_id"]
