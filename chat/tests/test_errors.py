"""Whatever goes wrong is told in OpenAI's shape."""

from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from conftest import ApiClient


def error_of(answer: Any) -> tuple[int, str]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert error["message"]
    assert answer["x-request-id"].startswith("r_")
    return answer.status_code, error["code"]


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1/nothing", "/v1/embeddings", "/v1/responses", "/v1/chat/completions/", "/admin/x/"]
)
@pytest.mark.parametrize("debug", [False, True])
def test_unknown_paths(alice: ApiClient, settings: Settings, path: str, debug: bool) -> None:
    settings.DEBUG = debug
    if debug and not path.startswith("/v1/"):
        return  # Django's own page helps the developer there
    answer = alice.get(path)
    if path == "/admin/x/":
        assert answer.status_code == 302  # to the login, so that it tells nothing
    else:
        assert error_of(answer) == (404, "not_found")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        *((f"/v1/{name}", "POST /v1/chat/completions") for name in ("embeddings", "completions", "images/generations")),
        *((f"/v1/{name}", "POST /v1/chat/completions") for name in ("audio/speech", "threads", "batches", "files")),
        ("/v1/responses", "POST /v1/chat/completions"),
        ("/v1/responses", "use_responses_api=False"),
        ("/v1/responses/resp_1/cancel", 'set_default_openai_api("chat_completions")'),
        ("/v1/v1/chat/completions", "end in /v1, once"),
        ("/v1//chat/completions", "end in /v1, once"),
        ("/chat/completions", "end in /v1, once"),
        ("/responses", "end in /v1, once"),
        ("/models", "end in /v1, once"),
        ("/openai/deployments/gpt-4o/chat/completions", "end in /v1, once"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_unknown_paths_say_what_to_do(alice: ApiClient, settings: Settings, path: str, hint: str, debug: bool) -> None:
    settings.DEBUG = debug

    answer = alice.send(path, {})

    assert error_of(answer) == (404, "not_found")
    assert hint in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["%00", "c_%00", "%ed%a0%80", "c_'%20OR%201=1", "é"])
def test_names_that_no_row_can_have(alice: ApiClient, name: str) -> None:
    """PostgreSQL takes no NUL, not even to look for it."""
    for path in (f"conversations/{name}", f"conversations/{name}/items/{name}", f"models/{name}"):
        assert error_of(alice.get(f"/v1/{path}"))[0] == 404
    assert error_of(alice.send(f"/v1/chat/completions/{name}/cancel", {}))[0] == 404


def test_methods(alice: ApiClient) -> None:
    assert error_of(alice.get("/v1/chat/completions")) == (405, "method_not_allowed")
    assert error_of(alice.put("/v1/conversations")) == (405, "method_not_allowed")


def test_media_types(alice: ApiClient) -> None:
    url = "/v1/chat/completions"
    assert error_of(alice.post(url, "a=1", content_type="text/plain")) == (415, "unsupported_media_type")
    assert error_of(alice.send(url, {}, accept="image/png")) == (406, "not_acceptable")


def test_a_body_over_the_limit(alice: ApiClient, settings: Settings) -> None:
    settings.MAX_REQUEST_BYTES = 1024

    answer = alice.send("/v1/chat/completions", {"message": "x" * 1024})

    assert error_of(answer) == (413, "request_too_large")
    assert "1,024 bytes" in answer.json()["error"]["message"]


def test_a_chunked_body_whose_end_no_server_marks(alice: ApiClient) -> None:
    answer = alice.send("/v1/conversations", {}, **{"Transfer-Encoding": "chunked"})

    assert error_of(answer) == (411, "length_required")


def test_an_unknown_host(alice: ApiClient) -> None:
    assert error_of(alice.get("/v1/models", headers={"host": "evil.example"}))[0] == 400


def test_a_bug_outside_the_api(client: Client, settings: Settings) -> None:
    client.raise_request_exception = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.views.generic.base.TemplateView.get", lambda *args, **kwargs: 1 / 0)
        assert error_of(client.get("/")) == (500, "internal_error")


@pytest.mark.parametrize(
    "metadata", [{"k" * 65: "v"}, {str(n): "v" for n in range(17)}, {"k": 1}, {"k": "v" * 513}, []]
)
def test_metadata_of_a_conversation(alice: ApiClient, metadata: Any) -> None:
    assert error_of(alice.send("/v1/conversations", {"metadata": metadata})) == (400, "invalid_request")


def test_a_conversation(alice: ApiClient) -> None:
    answer = alice.send("/v1/conversations", {"metadata": {"app": "web"}})

    body = answer.json()
    assert answer.status_code == 201
    assert body == {
        "id": body["conversation_id"],
        "object": "conversation",
        "created_at": body["created_at"],
        "metadata": {"app": "web"},
        "conversation_id": body["id"],
    }
    assert body["id"].startswith("c_")
    assert alice.generic("POST", "/v1/conversations").status_code == 201  # without a body at all


def test_models(alice: ApiClient) -> None:
    names = [model["id"] for model in alice.get("/v1/models").json()["data"]]

    assert names == ["gpt-4o-mini", "gpt-4o", "smollm2-135m"]
