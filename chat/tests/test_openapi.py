"""The OpenAPI description: what tools make of it, and whether the server does what it says."""

import importlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
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
from chat.models import ClientToken, Message
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
    conversation_id = alice.conversation()
    body = json.dumps(example["value"])
    if "Put in" in example.get("description", ""):
        reply = alice.say(conversation_id, "Hi").json()
        body = re.sub('"c_[^"]*"', f'"{conversation_id}"', re.sub('"r_[^"]*"', f'"{reply["id"]}"', body))

    answer = alice.send(path.replace("{conversation_id}", conversation_id), json.loads(body))

    assert answer.status_code in {200, 201}
    if answer.streaming:
        assert b"".join(answer.streaming_content).endswith(b"data: [DONE]\n\n")


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
