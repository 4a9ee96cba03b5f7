"""What a restricted token may send: text of a user, and what its operator allows beside."""

from typing import Any

import pytest

from bench.openai_double import OpenAIDouble
from chat.models import ClientToken
from chat.tests.test_sessions import App, Someone, code_of
from conftest import ApiClient

PICTURE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}


@pytest.fixture
def someone(db: None) -> Someone:
    return App().person()


def allow(**fields: Any) -> None:
    ClientToken.objects.update(**fields)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [TOOL]}, "tools[0]"),
        ({"max_completion_tokens": 4097}, "max_completion_tokens"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"store": True}, "store"),
        ({"web_search_options": {"search_context_size": "high"}}, "web_search_options"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 1.0}}, "logit_bias"),
        ({"safety_identifier": "x"}, "safety_identifier"),
        ({"prompt_cache_key": "x"}, "prompt_cache_key"),
    ],
)
def test_refuses_what_costs_more(someone: Someone, fields: dict[str, Any], param: str) -> None:
    answer = someone.say("Hello", **fields)
    assert code_of(answer) == (403, "not_allowed")
    assert answer.json()["error"]["param"] == param


def test_refuses_what_the_operator_passes_on_for_others(someone: Someone, settings: Any) -> None:
    settings.UPSTREAM_FIELDS = ["top_k"]
    assert code_of(someone.say("Hello", top_k=3)) == (403, "not_allowed")


@pytest.mark.parametrize("role", ["system", "developer", "assistant", "tool"])
@pytest.mark.parametrize("where", ["messages", "items", "new"])
def test_refuses_roles(someone: Someone, role: str, where: str) -> None:
    allow(may_send_history=True)
    message: dict[str, Any] = {"role": role, "content": "Say yes."}
    if role == "tool":
        if where != "messages":
            return  # is no role of items
        message["tool_call_id"] = "c"
    if where == "messages":
        answer = someone.post("/v1/chat/completions", {"messages": [message, {"role": "user", "content": "Hi"}]})
    elif where == "items":
        answer = someone.post(f"/v1/conversations/{someone.conversation()}/items", {"items": [message]})
    else:
        answer = someone.post("/v1/conversations", {"items": [message]})
    assert code_of(answer) == (403, "not_allowed")
    assert answer.json()["error"]["param"].endswith("[0].role")


def test_refuses_pictures(someone: Someone) -> None:
    allow(may_send_history=True)
    message = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, PICTURE]}
    assert code_of(someone.post("/v1/chat/completions", {"messages": [message]})) == (403, "not_allowed")
    item = {"role": "user", "content": [{"type": "input_image", "image_url": "https://example.com/a.png"}]}
    assert code_of(someone.post("/v1/conversations", {"items": [item]})) == (403, "not_allowed")


def test_refuses_history(someone: Someone) -> None:
    answer = someone.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]})
    assert code_of(answer) == (403, "not_allowed")
    assert answer.json()["error"]["param"] == "messages"


def test_bounds_the_reply(someone: Someone, upstream: OpenAIDouble) -> None:
    allow(most_output_tokens=77)
    assert someone.say("Hello").status_code == 200
    assert upstream.requests[-1]["body"]["max_completion_tokens"] == 77
    assert someone.say("Hello", max_completion_tokens=5).status_code == 200
    assert upstream.requests[-1]["body"]["max_completion_tokens"] == 5


def test_takes_what_is_allowed(someone: Someone, upstream: OpenAIDouble, settings: Any) -> None:
    settings.OPENAI_MODELS = ["gpt-5.4"]
    allow(
        may_send_history=True,
        may_send_pictures=True,
        may_send_formats=True,
        allowed_tools="weather",
        allowed_efforts="high",
        allowed_tiers="priority",
        allowed_roles="user system",
    )
    message = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, PICTURE]}
    answer = someone.post(
        "/v1/chat/completions",
        {
            "messages": [{"role": "system", "content": "Be brief."}, message],
            "tools": [TOOL],
            "tool_choice": "auto",
            "response_format": {"type": "json_object"},
            "model": "gpt-5.4",
            "reasoning_effort": "high",
            "service_tier": "priority",
        },
    )
    assert answer.status_code == 200, answer.content


def test_models(someone: Someone, settings: Any, upstream: OpenAIDouble) -> None:
    settings.OPENAI_MODELS = ["gpt-4o-mini", "gpt-5.4"]
    allow(allowed_models="gpt-5.4")
    assert code_of(someone.say("Hello", model="gpt-4o-mini")) == (403, "not_allowed")
    assert code_of(someone.get("/v1/models/gpt-4o-mini")) == (404, "model_not_found")
    assert someone.say("Hello").status_code == 200
    assert upstream.requests[-1]["body"]["model"] == "gpt-5.4"
    allow(allowed_models="gone")
    assert code_of(someone.say("Hello")) == (403, "not_allowed")


def test_a_secret_token_keeps_its_freedom(alice: ApiClient, upstream: OpenAIDouble) -> None:
    body = {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": [PICTURE]}], "tools": [TOOL]}
    assert alice.send("/v1/chat/completions", body).status_code == 200
    allow(is_restricted=True)
    assert code_of(alice.send("/v1/chat/completions", body)) == (403, "not_allowed")


def test_streams_and_protobuf_are_held_to_it(someone: Someone) -> None:
    from protos import chat_pb2 as pb

    assert code_of(someone.say("Hello", stream=True, store=True)) == (403, "not_allowed")
    request = pb.ChatRequest(messages=[pb.ChatMessage(role="system", content="x")])
    answer = someone.app.post(
        "/v1/chat/completions",
        request.SerializeToString(),
        content_type="application/x-protobuf",
        headers=someone.headers("https://app.example.com"),
    )
    assert answer.status_code == 403
    assert pb.Error.FromString(answer.content).code == "not_allowed"
