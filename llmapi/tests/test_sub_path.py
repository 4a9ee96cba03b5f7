"""A server below a path of a host: whether its proxy passes the path on or takes it away, every link begins with it."""

import re
import urllib.error
import urllib.request
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from conftest import Server

LINK = re.compile(r"""(?:href|src|action|data-\w+-url|url)["']?\s*[=:]\s*["'](/[^"']*)["']""")


class NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


browser = urllib.request.build_opener(NoRedirects)


def ask(url: str, form: dict[str, str] | None = None, **headers: str) -> Any:
    """Return the answer, whatever its status is, and its text."""
    request = urllib.request.Request(url, urlencode(form).encode() if form else None, headers)
    try:
        answer = browser.open(request, timeout=30)
    except urllib.error.HTTPError as exc:
        answer = exc
    with answer:
        return answer, answer.read().decode(errors="replace")


@pytest.fixture
def below(serve: Callable[..., Server]) -> Server:
    return serve(SCRIPT_NAME="/bot", WEB_CONCURRENCY="1")


def test_everything_is_below_the_path(below: Server, settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["llmapi.login.hashing.BesideHasher"]  # as the server has
    User.objects.create_superuser("ada", password="correct horse battery")

    for passed_on in (below.url, f"{below.url}/bot"):
        assert ask(f"{passed_on}/health")[0].status == 200
        links = set()
        for page in ("/", "/docs", "/admin/login/"):
            answer, text = ask(passed_on + page)
            assert answer.status == 200
            links |= set(LINK.findall(text))
        # The page's script finds the API from its own address.
        assert "/bot/static/web/chat.js" in links
        assert [link for link in links if not f"{link}/".startswith("/bot/")] == []
        assert [link for link in links if ask(below.url + link)[0].status not in {200, 302}] == []

    assert below.post("/bot/v1/conversations", {})[0] == 201
    assert "- url: /bot\n" in ask(f"{below.url}/schema")[1]

    login = f"{below.url}/bot/admin/login/?next=/bot/admin/"
    given, _ = ask(login)
    cookies = {m.key: m for header in given.headers.get_all("Set-Cookie") for m in SimpleCookie(header).values()}
    csrf = cookies["csrftoken"]
    form = {"username": "ada", "password": "correct horse battery", "csrfmiddlewaretoken": csrf.value}
    welcome, _ = ask(login, form, Cookie=f"csrftoken={csrf.value}")

    assert (welcome.status, welcome.headers["Location"]) == (302, "/bot/admin/")
    for header in welcome.headers.get_all("Set-Cookie"):
        cookies |= SimpleCookie(header)
    assert {name: cookie["path"] for name, cookie in cookies.items()} == dict.fromkeys(
        ("csrftoken", "sessionid", "staff_device"), "/bot/"
    )

    session = f"sessionid={cookies['sessionid'].value}"
    index, text = ask(f"{below.url}/bot/admin/", Cookie=session)
    assert index.status == 200
    links = set(LINK.findall(text))
    assert "/bot/admin/chat/conversation/" in links
    assert [link for link in links if not f"{link}/".startswith("/bot/")] == []


def test_no_header_names_the_path(server: Server) -> None:
    answer, _ = ask(f"{server.url}/bot/admin/", SCRIPT_NAME="/bot")

    assert answer.status == 404
