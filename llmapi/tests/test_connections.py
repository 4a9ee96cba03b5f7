"""No connection to the database is held while a client sends a request or takes an answer."""

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from analytics.models import UsageEvent
from analytics.tests.sample_week import write_week
from bench.openai_double import OpenAIDouble
from chat.models import ClientToken, Conversation, Message
from conftest import Server, wait_until
from llmapi.staff.lists import export
from llmapi.wsgi import application

CSRF = "c" * 32
HI = {"messages": [{"role": "user", "content": "Hi"}]}
BODIES = {
    "application/json": b"{}",
    "application/x-www-form-urlencoded": f"csrfmiddlewaretoken={CSRF}".encode(),
    "application/x-protobuf": b"",
}


def paths(patterns: list[Any], prefix: str = "/") -> Iterator[str]:
    """Every route of the project, with 1 for whatever a route takes."""
    for pattern in patterns:
        text = str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from paths(pattern.url_patterns, prefix + text)
        elif isinstance(pattern, URLPattern) and "(" not in text:
            while "<" in text:
                before, _, after = text.partition("<")
                text = before + "1" + after.partition(">")[2]
            yield prefix + text


class Watch:
    """A server's side of WSGI that notes where a connection is held while it reads from the client or sends."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers
        self.held: list[str] = []
        self.reads = self.pieces = 0
        self.what = ""
        self.body = b""
        self.status = 0

    def read(self, size: int = -1) -> bytes:
        self.reads += 1
        self.look("reading")
        body, self.body = self.body[:size] if size >= 0 else self.body, b""
        return body

    readline = read

    def look(self, doing: str) -> None:
        if connection.connection is not None:
            self.held.append(f"{self.what}: {doing}")

    def start_response(self, status: str, *headers: Any) -> Any:
        self.status = int(status[:3])
        self.look("sending the head")

    def call(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
        self.what, self.body = f"{method} {path} {kind}", body
        path, _, query = path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
        }
        environ |= {"SERVER_PORT": "80", "REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "http"}
        environ |= {"CONTENT_TYPE": kind, "CONTENT_LENGTH": str(len(body)), "wsgi.input": self, **self.headers}
        answer = application(environ, self.start_response)
        pieces = []
        with ExitStack() as stack:
            stack.callback(answer.close)
            for piece in answer:
                self.pieces += 1
                self.look("sending")
                pieces.append(piece)
        return b"".join(pieces)


@pytest.fixture
def watch(transactional_db: None) -> Watch:
    """Requests of a client token that is also a staff user, as a server makes them."""
    client = ClientToken(name="watched", rate_limit_per_min=0, can_read_metrics=True)
    token = client.renew()
    client.save()
    browser = Client()
    browser.force_login(get_user_model().objects.create_superuser("staff", password="a-long-password"))
    session = browser.cookies[settings.SESSION_COOKIE_NAME].value
    connection.close()
    cookies = f"{settings.SESSION_COOKIE_NAME}={session}; {settings.CSRF_COOKIE_NAME}={CSRF}"
    return Watch({"HTTP_AUTHORIZATION": f"Bearer {token}", "HTTP_COOKIE": cookies})


def test_no_route_holds_a_connection_while_it_reads_or_sends(watch: Watch, upstream: OpenAIDouble) -> None:
    routes = sorted(paths(get_resolver().url_patterns), key=lambda path: ("logout" in path, path))
    assert len(routes) > 60

    for path in routes:
        for kind, body in BODIES.items():
            watch.call("POST", path, body, kind)
        for method in ("GET", "DELETE"):
            watch.call(method, path)
        connection.close()

    assert watch.held == []
    # Some refuse a request before they read it.
    assert watch.reads > 50
    assert watch.pieces > len(routes)


def test_a_turn_holds_none_either(watch: Watch, upstream: OpenAIDouble) -> None:
    cid = json.loads(watch.call("POST", "/v1/conversations", b"{}"))["id"]
    for stream in ("false", "true"):
        body = f'{{"conversation_id": "{cid}", "message": "Hi", "stream": {stream}}}'.encode()
        watch.call("POST", "/v1/chat/completions", body)
        assert watch.status == 200
    watch.call("GET", f"/v1/conversations/{cid}/items")

    assert watch.held == []
    wait_until(lambda: not UsageEvent.objects.pending().exists())


def test_an_export_holds_none_between_its_pieces(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "CHUNK_ROWS", 2)
    write_week()
    connection.close()

    for path in ("/admin/analytics/usageevent/export/", "/admin/analytics/analyticsevent/export/"):
        watch.pieces = 0
        watch.call("GET", path)
        assert watch.pieces > 5

    assert watch.held == []


def test_what_fails_leaves_none(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        connection.ensure_connection()
        raise SystemExit

    monkeypatch.setattr("llmapi.health.ReadyView.get", fail)

    with pytest.raises(SystemExit):
        watch.call("GET", "/ready")
    watch.look("afterwards")

    assert watch.held == []


def half_sent(server: Server, number: int) -> socket.socket:
    """A request of the server's client that ends in the midst of its body."""
    sender = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))
    path = ("/v1/chat/completions", "/v1/conversations", "/v1/events")[number % 3]
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
    sender.sendall(f'{head}Authorization: Bearer {server.token}\r\n\r\n{{"items": '.encode())
    return sender


def unread(server: Server, path: str) -> socket.socket:
    """A request whose answer nobody reads."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
    reader.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token}\r\n\r\n".encode())
    return reader


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no pool")
def test_clients_that_do_not_send_or_read_stop_no_other(serve: Callable[..., Server], upstream: OpenAIDouble) -> None:
    server = serve(DATABASE_POOL_SIZE="2", WEB_CONCURRENCY="1", RATE_LIMIT_PER_MIN="0")
    cid = server.conversation()
    conversation = Conversation.objects.get(pk=cid)
    text = "x" * 1_500_000
    Message.objects.bulk_create(
        Message.from_openai({"role": "user", "content": text}, conversation_id=conversation.pk, request_id="")
        for _ in range(4)
    )
    with ExitStack() as stack:
        for number in range(30):
            stack.enter_context(half_sent(server, number))
        for _ in range(12):
            stack.enter_context(unread(server, f"/v1/conversations/{cid}/items")).recv(1)

        with ThreadPoolExecutor(8) as pool:
            turns = [
                pool.submit(server.post, "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]})
            ]
            others = [pool.submit(server.post, "/v1/conversations", {}) for _ in range(40)]
            statuses = {turn.result()[0] for turn in turns}, {other.result()[0] for other in others}

    assert statuses == ({200}, {201})
