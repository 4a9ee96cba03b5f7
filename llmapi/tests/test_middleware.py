"""What each answer carries, and what is done only for pages."""

import pytest
from django.test import Client
from pytest_django import Settings

HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


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
