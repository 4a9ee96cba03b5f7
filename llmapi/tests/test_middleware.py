"""What each answer carries, and what is done only for pages."""

import itertools
from typing import Any

import pytest
from django.conf import settings
from django.core.handlers.base import BaseHandler
from django.test import Client, RequestFactory
from drf_spectacular.generators import SchemaGenerator
from pytest_django import Settings

from conftest import ApiClient
from llmapi.schema import described

HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Handler(BaseHandler):
    """The middleware and the views, without what Django's test client does to answers."""

    def __init__(self) -> None:
        super().__init__()
        self.load_middleware()


class UnreadBody:
    was_read = False

    def read(self, *args: int) -> bytes:
        self.was_read = True
        return b""

    readline = read


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/", "/admin/login/", "/v1/models", "/v1/unknown", "/nowhere"])
def test_each_answer_carries_the_security_headers(client: Client, path: str) -> None:
    answer = client.get(path)

    assert {name for name, value in HEADERS.items() if value in answer.headers.get(name, "")} == set(HEADERS)


@pytest.mark.django_db
@pytest.mark.parametrize(("path", "has_session"), [("/admin/login/", True), ("/v1/models", False)])
def test_only_pages_have_a_session(client: Client, path: str, has_session: bool) -> None:
    request = client.get(path).wsgi_request

    assert [hasattr(request, name) for name in ("session", "_messages")] == [has_session, has_session]


@pytest.mark.django_db
def test_a_page_for_developers_keeps_its_styles(client: Client, settings: Settings) -> None:
    settings.DEBUG = True

    answer = client.get("/nowhere")

    assert (answer.status_code, answer.headers.get("Content-Security-Policy")) == (404, None)


PRIVATE = [
    *("/v1/models", "/v1/unknown", "/v1/chat/completions", "/v1/conversations/c_1", "/v1/usage", "/nowhere"),
    *("/metrics", "/metrics/dau", "/metrics/dau.csv", "/metrics?format=prometheus", "/health", "/ready"),
    *("/admin/", "/admin/login/", "/admin/jsi18n/", "/admin/nowhere", "/static/nowhere.js", "/chat/completions"),
    *("/docs/", "/admin/auth/user/", "/admin/analytics/usageevent/export/"),
]


@pytest.mark.parametrize("method", ["get", "post", "options", "head", "put"])
def test_nobody_stores_a_private_answer(alice: ApiClient, staff: Client, method: str) -> None:
    for client, path in itertools.product((Client(raise_request_exception=False), alice, staff), PRIVATE):
        answer = getattr(client, method)(path)
        if answer.streaming:
            answer.getvalue()  # this also closes it

        assert "no-store" in answer["Cache-Control"], answer
        assert answer["X-Content-Type-Options"] == "nosniff"


def test_nobody_stores_an_answer_to_an_unknown_host(client: Client) -> None:
    answer = client.get("/", headers={"host": "evil.example"})

    assert (answer.status_code, answer["Cache-Control"]) == (400, "no-store")


def test_nobody_stores_a_preflight(client: Client, settings: Settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://chat.example.com"]
    headers = {"origin": "https://chat.example.com", "access-control-request-method": "POST"}

    answer = client.options("/v1/chat/completions", headers=headers)

    assert (answer.status_code, answer["Cache-Control"]) == (200, "no-store")


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/", None), ("/docs", None), ("/schema", None), ("/static/web/icon.svg", "max-age=60, public")],
)
def test_what_is_for_everybody_may_be_stored(client: Client, path: str, expected: str | None) -> None:
    answer = client.get(path)
    if answer.streaming:
        answer.getvalue()  # this also closes the file

    assert (answer.status_code, answer.headers.get("Cache-Control")) == (200, expected)


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/", "/health", "/nowhere", "/schema", "/admin/login/", "/v1/models"])
def test_the_answer_to_a_head_has_no_body(path: str) -> None:
    """gunicorn would write a line to the log for each that has one."""
    answers: list[Any] = [Handler().get_response(getattr(RequestFactory(), method)(path)) for method in ("get", "head")]

    lengths = [int(answer["Content-Length"]) for answer in answers]
    assert (answers[1].content, answers[0].status_code) == (b"", answers[1].status_code)
    # The token of a form is masked anew in each answer, and as long.
    assert lengths[0] == lengths[1] > 0
    for answer in answers:
        answer.close()


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/", "/docs", "/nowhere", "/admin/", "/admin/login/", "/metrics", "/health"])
@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_long_form_is_refused_before_it_is_read(client: Client, path: str, content_type: str) -> None:
    body = UnreadBody()
    meta: Any = {"wsgi.input": body, "CONTENT_LENGTH": str(settings.MAX_FORM_BYTES + 1), "CONTENT_TYPE": content_type}

    answer = client.generic("POST", path, **meta)

    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert not body.was_read


@pytest.mark.django_db
def test_a_form_without_a_length_and_an_end_is_refused(client: Client) -> None:
    answer = client.generic("POST", "/admin/login/", headers={"transfer-encoding": "chunked"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (411, "length_required")


def test_bodies_of_the_api_may_be_long(alice: ApiClient) -> None:
    answer = alice.send("/v1/conversations", "{}" + " " * settings.MAX_FORM_BYTES)

    assert answer.status_code == 201


@pytest.mark.django_db
def test_the_description_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    get_schema = SchemaGenerator.get_schema

    def noted(self: SchemaGenerator, request: Any = None, public: bool = False) -> Any:
        written.append(request)
        return get_schema(self, request, public)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(SchemaGenerator, "get_schema", noted)
    described.cache_clear()
    paths = ["/schema", "/schema?lang=de", "/schema?version=2", "/schema?a=b", "/schema", "/schema?format=yaml"]

    texts = {Client().get(path, headers={"accept-language": "de"}).content for path in paths}

    assert (len(texts), len(written)) == (1, 1)


@pytest.mark.django_db
def test_a_browser_that_has_the_description_is_not_sent_it_again(client: Client) -> None:
    etag = client.get("/schema")["ETag"]

    answer = client.get("/schema", headers={"if-none-match": etag})

    assert (answer.status_code, answer.content) == (304, b"")
