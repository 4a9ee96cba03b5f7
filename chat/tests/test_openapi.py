"""The OpenAPI description: what tools make of it, and whether the server does what it says."""

import importlib
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import jsonschema_rs
import jwt
import pytest
import schemathesis
import yaml
from django.test import Client
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import ClientToken, IdentityProvider, Message
from chat.tests.streaming import events, stream
from chat.tests.test_sessions import App, Someone
from conftest import ApiClient, Server
from llmapi.launch import ROOT

FOLDER = ROOT / "chat" / "tests" / "openapi"
TOOLS = FOLDER / "node_modules" / ".bin"
# Node and ruff are Python packages here, and on no other path.
ENV = {**os.environ, "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"}


@pytest.fixture
def description(client: Client, tmp_path: Path) -> Path:
    file = tmp_path / "schema.yaml"
    file.write_bytes(client.get("/schema").content)
    return file


def run(*command: Any) -> None:
    result = subprocess.run(command, cwd=FOLDER, env=ENV, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_redocly_has_no_complaint(description: Path) -> None:
    run(TOOLS / "redocly", "lint", description, "--config", "redocly.yaml", "--max-problems", "100")


def test_spectral_has_no_complaint(description: Path) -> None:
    run(TOOLS / "spectral", "lint", description, "--ruleset", "spectral.yaml", "--fail-severity", "hint")


def test_typescript_compiles_with_the_types(description: Path, tmp_path: Path) -> None:
    run(TOOLS / "openapi-typescript", description, "-o", tmp_path / "schema.d.ts")
    shutil.copy(FOLDER / "sample.ts", tmp_path)

    run(
        TOOLS / "tsc",
        "--strict",
        "--noEmit",
        "--skipDefaultLibCheck",  # TypeScript's own types, not the generated ones
        "--target",
        "es2022",
        "--moduleResolution",
        "bundler",
        "--module",
        "es2022",
        tmp_path / "sample.ts",
    )


def test_a_generated_python_client_works(
    description: Path, tmp_path: Path, server: Server, upstream: OpenAIDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = ROOT / ".venv" / "bin" / "openapi-python-client"
    run(generator, "generate", "--path", description, "--meta", "none", "--output-path", tmp_path / "generated_client")
    monkeypatch.syspath_prepend(tmp_path)

    def load(name: str) -> Any:
        return importlib.import_module(f"generated_client.{name}")

    shapes = load("models")
    with load("client").AuthenticatedClient(server.url, token=server.token) as client:
        conversations, chat = "api.conversations.v1_conversations", "api.chat.v1_chat_completions_create"
        conversation = load(f"{conversations}_create").sync(client=client, body=shapes.ConversationInRequest())
        asked = shapes.CompletionInRequest(conversation_id=conversation.id, message="Hi")
        reply = load(chat).sync(client=client, body=asked, idempotency_key="k")
        again = load(chat).sync_detailed(client=client, body=asked, idempotency_key="k")
        items = load(f"{conversations}_items_list").sync(conversation.id, client=client, limit=1)
        models = load("api.models.v1_models_list").sync(client=client)
        usage = load("api.usage.v1_usage").sync(client=client)
        error = load(chat).sync(client=client, body=shapes.CompletionInRequest(message="Hi"))

    assert (reply.reply, reply.choices[0].message.content) == ("echo: Hi", "echo: Hi")
    assert (again.parsed.id, again.headers["Idempotent-Replayed"]) == (reply.id, "true")
    assert (items.data[0].content[0].text, items.has_more) == ("echo: Hi", True)
    assert "gpt-4o-mini" in [model.id for model in models.data]
    assert usage.data[0].total_tokens == reply.usage.total_tokens == upstream.sold[0]["total_tokens"]
    assert error.error.param == "conversation_id"


def bodies(spec: dict[str, Any]) -> list[Any]:
    return [
        pytest.param(path, example, id=f"{path} {name}")
        for path, operations in spec["paths"].items()
        if path != "/v1/chat/completions.pb"
        for operation in operations.values()
        for name, example in operation.get("requestBody", {})
        .get("content", {})
        .get("application/json", {})
        .get("examples", {})
        .items()
    ]


SPEC: dict[str, Any] = json.loads(json.dumps(SchemaGenerator().get_schema(request=None, public=True)))  # type: ignore[no-untyped-call]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("no_turn_is_left")
@pytest.mark.parametrize(("path", "example"), bodies(SPEC))
def test_an_example_runs(alice: ApiClient, upstream: OpenAIDouble, path: str, example: dict[str, Any]) -> None:
    """As it stands, if it does not say what to put in."""
    if path.startswith("/v1/sessions"):
        run_example_of_sessions(path, example)
        return
    conversation_id = alice.conversation()
    body = json.dumps(example["value"])
    if "Put in" in example.get("description", ""):
        reply = alice.say(conversation_id, "Hi").json()
        body = re.sub('"c_[^"]*"', f'"{conversation_id}"', re.sub('"r_[^"]*"', f'"{reply["id"]}"', body))

    answer = alice.send(path.replace("{conversation_id}", conversation_id), json.loads(body))

    assert answer.status_code in {200, 201}
    if answer.streaming:
        assert b"".join(answer.streaming_content).endswith(b"data: [DONE]\n\n")


def run_example_of_sessions(path: str, example: dict[str, Any]) -> None:
    app, now, secret = App(), int(time.time()), "s" * 32
    IdentityProvider.objects.create(
        client_token=app.row, issuer="i", audience="a", algorithm="HS256", shared_secret=secret
    )
    claims = {"iss": "i", "aud": "a", "sub": "ann", "iat": now, "exp": now + 60}
    put_in = {"refresh_token": app.person().granted["refresh_token"], "subject_token": jwt.encode(claims, secret)}
    body = {name: put_in.get(name, value) for name, value in example["value"].items()}

    assert app.call(path, body).status_code in {200, 201}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/events"])
def test_the_first_example_needs_nothing_put_in(path: str) -> None:
    first, *_ = SPEC["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"].values()

    assert "description" not in first or "Put in" not in first["description"]


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/models", "ModelListOut"),
        ("/v1/usage", "OwnUsageOut"),
        ("/v1/conversations/{conversation_id}/items", "ItemListOut"),
    ],
)
def test_a_list_is_an_object(path: str, shape: str) -> None:
    answer = SPEC["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]

    assert answer == {"$ref": f"#/components/schemas/{shape}"}


@pytest.mark.parametrize(("script_name", "url"), [("", "/"), ("/bot", "/bot")])
def test_requests_go_below_the_path_of_a_proxy(client: Client, script_name: str, url: str) -> None:
    described = yaml.safe_load(client.get("/schema", SCRIPT_NAME=script_name).content)

    assert [server["url"] for server in described["servers"]] == [url]


def test_headers_are_described() -> None:
    create = SPEC["paths"]["/v1/chat/completions"]["post"]["responses"]
    limited = SPEC["components"]["responses"]["Error429"]

    assert create["429"] == {"$ref": "#/components/responses/Error429"}
    assert {"x-request-id", "RateLimit", "RateLimit-Policy", "Idempotent-Replayed"} <= set(create["200"]["headers"])
    assert {"Retry-After", "x-should-retry", "x-ratelimit-remaining-requests"} <= set(limited["headers"])


def test_every_route_with_a_body_has_an_example() -> None:
    for operations in SPEC["paths"].values():
        for operation in operations.values():
            if "requestBody" in operation:
                assert operation["requestBody"]["content"]["application/json"]["examples"]


api = schemathesis.openapi.from_dict(SPEC)
api.config.generation.modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
api.config.phases.coverage.enabled = False
api.config.generation.with_security_parameters = False
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]


@pytest.fixture
def ids(server: Server, upstream: OpenAIDouble) -> dict[str, str]:
    """What the paths of a client name, as there is of it."""
    ClientToken.objects.update(rate_limit_per_min=10**6, can_read_metrics=True)
    conversation_id = server.conversation()
    _, _, reply = server.post("/v1/chat/completions", {"conversation_id": conversation_id, "message": "Hi"})
    request_id = json.loads(reply)["id"]
    item_id = f"msg_{Message.objects.order_by('pk').last().pk}"  # type: ignore[union-attr]
    return {"conversation_id": conversation_id, "item_id": item_id, "request_id": request_id, "model": "gpt-4o-mini"}


# The route in .pb is the plain one, by another name.
@api.exclude(path="/v1/chat/completions.pb").parametrize()
@settings(
    max_examples=20,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_described(case: Case[Any], server: Server, ids: dict[str, str]) -> None:
    """What fits the description and what does not, to every route."""
    if case.meta and case.meta.generation.mode == GenerationMode.POSITIVE:
        case.path_parameters.update({name: value for name, value in ids.items() if name in case.path_parameters})

    answer = case.call(base_url=server.url, headers={"Authorization": f"Bearer {server.token}"}, timeout=30)

    # What is described of a stream are its events: the test below holds them against it.
    is_stream = answer.headers.get("content-type", [""])[0].startswith("text/event-stream")
    case.validate_response(answer, checks=CHECKS, excluded_checks=[response_schema_conformance] if is_stream else [])


@schemathesis.serializer("application/x-protobuf", "application/protobuf")
def send_as_it_is(context: Any, value: Any) -> Any:
    return value


def closed(schema: Any) -> Any:
    """Return the schema as one that refuses every key it does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(value) for name, value in schema.items()}
    is_open = "additionalProperties" in found or not isinstance(found.get("properties"), dict)
    return found if is_open else {**found, "additionalProperties": False}


CLOSED: dict[str, Any] = {"components": {"schemas": closed(SPEC["components"]["schemas"])}}


def check_keys(answer: Any, method: str, path: str) -> None:
    """Hold an answer of a route against its description, closed."""
    described = SPEC["paths"][path][method]["responses"][str(answer.status_code)]
    if "$ref" in described:
        described = SPEC["components"]["responses"][described["$ref"].rpartition("/")[2]]
    jsonschema_rs.validate({**described["content"]["application/json"]["schema"], **CLOSED}, answer.json())


USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 2,
    "total_tokens": 7,
    "prompt_tokens_details": {f"{kind}_tokens": 1 for kind in ("cached", "cache_write", "audio", "image", "text")},
    "completion_tokens_details": {
        f"{kind}_tokens": 1 for kind in ("reasoning", "audio", "accepted_prediction", "rejected_prediction", "text")
    },
}
TOKEN = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "a", "logprob": -0.5, "bytes": [97]}]}
SIGNED: dict[str, Any] = {"extra_content": {"google": {"thought_signature": "s"}}}
CALLS: list[dict[str, Any]] = [
    {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}, **SIGNED},
    {"index": 1, "id": "call_2", "type": "custom", "custom": {"name": "sql", "input": "SELECT"}},
]
# All that a provider may say, in a message or in a delta.
SAID: dict[str, Any] = {
    "role": "assistant",
    "content": "Hi",
    "refusal": "No.",
    "reasoning_content": "hm",
    "reasoning_details": [{"text": "hm"}],
    "annotations": [{"type": "url_citation", "url_citation": {"url": "https://example.com"}}],
    "images": [{"image_url": {"url": "data:image/png;base64,AA=="}}],
    "tool_calls": CALLS,
    **SIGNED,
}
WHOLE: dict[str, Any] = {
    "service_tier": "flex",
    "system_fingerprint": "fp_1",
    "citations": ["https://example.com"],
    "search_results": [{"title": "t"}],
    "moderation": {"flagged": False},
}
HEAD = {"id": "u1", "created": 1_772_443_800, "model": "gpt-4o-mini"}
HI = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize("message", [SAID, {"role": "assistant", "content": None}], ids=["all", "nothing"])
def test_every_key_of_a_completion_is_described(
    alice: ApiClient, upstream: OpenAIDouble, message: dict[str, Any]
) -> None:
    choice = {"index": 0, "message": message, "logprobs": {"content": [TOKEN]}, "finish_reason": "length"}
    body = {**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE, **WHOLE}
    upstream.plan(Behaviour(raw=json.dumps(body).encode()))

    answer = alice.send("/v1/chat/completions", HI)

    check_keys(answer, "post", "/v1/chat/completions")
    assert WHOLE.items() <= answer.json().items()
    assert message.keys() <= answer.json()["choices"][0]["message"].keys()
    assert ("incomplete_details" in answer.json()) is (message is not SAID)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("no_turn_is_left")
@pytest.mark.parametrize("delta", [SAID, {"role": "assistant", "content": ""}], ids=["all", "nothing"])
def test_every_key_of_a_chunk_is_described(alice: ApiClient, upstream: OpenAIDouble, delta: dict[str, Any]) -> None:
    rest: dict[str, Any] = {"tool_calls": [{"index": 1, "custom": {"input": " 1"}}]} if delta is SAID else {}
    first: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": {"content": [TOKEN]}, "finish_reason": None}
    further = {"index": 0, "delta": rest, "finish_reason": "length"}
    frames: list[dict[str, Any]] = [
        {"choices": [first], **WHOLE},
        {"choices": [further]},
        {"choices": [], "usage": USAGE},
    ]
    told = [f"data: {json.dumps({**HEAD, 'object': 'chat.completion.chunk', **frame})}\n\n" for frame in frames]
    raw = "".join([*told, "data: [DONE]\n\n"]).encode()
    upstream.plan(Behaviour(raw=raw, headers={"Content-Type": "text/event-stream"}))

    *chunks, _ = events(stream(alice, stream_options={"include_usage": True}))

    for chunk in chunks:
        jsonschema_rs.validate({"$ref": "#/components/schemas/ChatCompletionChunk", **CLOSED}, chunk)
    said = {name for chunk in chunks for choice in chunk["choices"] for name in choice["delta"]}
    assert delta.keys() <= said
    assert WHOLE.keys() <= {name for chunk in chunks for name in chunk}
    assert any("incomplete_details" in chunk for chunk in chunks) is (delta is not SAID)


PARTS_OF_A_USER: list[dict[str, Any]] = [
    {"type": "text", "text": "What?"},
    {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
    {"type": "input_audio", "input_audio": {"data": "AAEC", "format": "wav"}},
    {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg==", "filename": "a.pdf"}},
]


def sessions_of(app: App) -> list[tuple[str, str, Any]]:
    """Start, refresh, look at and end a session."""
    started = app.start()
    someone = Someone(app, started.json())
    return [
        ("post", "/v1/sessions", started),
        ("post", "/v1/sessions/refresh", app.refresh(someone.granted["refresh_token"])),
        ("get", "/v1/sessions/current", someone.get("/v1/sessions/current")),
        ("delete", "/v1/sessions/current", someone.delete("/v1/sessions/current")),
    ]


def test_every_key_of_the_other_answers_is_described(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cut = {"prompt_cache_breakpoint": {"type": "ephemeral"}}
    user = {"role": "user", "content": [{**part, **cut} for part in PARTS_OF_A_USER]}
    reply = {"role": "assistant", "content": [{"type": "text", "text": "Hi"}, {"type": "refusal", "refusal": "No."}]}
    made = alice.send("/v1/conversations", {"items": [user], "metadata": {"a": "1"}})
    one = "/v1/conversations/{conversation_id}"
    conversation_id = made.json()["id"]
    history = [{"role": "user", "content": "Hi", "name": "ada"}, {"role": "assistant", "tool_calls": CALLS}]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "1"} for call in CALLS]
    asked = {"conversation_id": conversation_id, "messages": [*history, *results]}
    completion = alice.send("/v1/chat/completions", asked)
    added = alice.send(f"/v1/conversations/{conversation_id}/items", {"items": [user, reply]})
    item_id = added.json()["data"][0]["id"]
    of_items, of_item = f"{one}/items", f"{one}/items/{{item_id}}"

    answers: list[tuple[str, str, Any]] = [
        ("post", "/v1/conversations", made),
        ("post", "/v1/chat/completions", completion),
        ("post", of_items, added),
        ("post", "/v1/chat/completions", alice.send("/v1/chat/completions", {})),
        ("post", one, alice.send(one.format(conversation_id=conversation_id), {"metadata": {"b": "2"}})),
        ("post", "/v1/events", alice.send("/v1/events", {"events": [{"name": "opened", "id": "e1"}]})),
        (
            "post",
            "/v1/chat/completions/{request_id}/cancel",
            alice.post(f"/v1/chat/completions/{completion.json()['id']}/cancel"),
        ),
        *(
            ("get", path, alice.get(path.format(conversation_id=conversation_id, item_id=item_id, model="gpt-4o-mini")))
            for path in (one, of_items, of_item, "/v1/models", "/v1/models/{model}", "/v1/usage")
        ),
        *(
            ("delete", path, alice.delete(path.format(conversation_id=conversation_id, item_id=item_id)))
            for path in (of_item, one)
        ),
        *sessions_of(App()),
    ]

    for method, path, answer in answers:
        check_keys(answer, method, path)
    described = {
        (method, path) for path, methods in SPEC["paths"].items() if path.startswith("/v1/") for method in methods
    }
    assert {(method, path) for method, path, _ in answers} == described - {("post", "/v1/chat/completions.pb")}


def test_events_are_as_described(server: Server, upstream: OpenAIDouble) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    message = {"role": "assistant", "content": "Hi", "refusal": None, "tool_calls": [call]}
    upstream.plan(Behaviour(message=message), Behaviour(text="one two three", stop_after=2, ending="error"))
    asked = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "stream_options": {"include_usage": True}}
    event = {"$ref": "#/components/schemas/ChatCompletionEvent", "components": SPEC["components"]}

    answers = [server.post("/v1/chat/completions", asked)[2].decode() for _ in range(2)]

    for answer in answers:
        events = [line.removeprefix("data: ") for line in answer.splitlines() if line.startswith("data: ")]
        assert events.pop() == "[DONE]"
        for data in events:
            jsonschema_rs.validate(event, json.loads(data))
    assert '"usage":{' in answers[0]
    assert '"error"' in answers[1]
