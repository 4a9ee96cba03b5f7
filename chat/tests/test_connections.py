"""Connections to the model's provider: kept open, reused where that is safe, and never a reason to buy twice."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pytest_django import Settings

from bench.openai_double import Behaviour, OpenAIDouble
from chat.exceptions import Cancelled, UpstreamError, UpstreamTimeout
from chat.upstream import client, connections
from chat.upstream.deadlines import Cancellation
from chat.upstream.proxies import proxy_of
from chat.upstream.replies import Call, Reply
from conftest import wait_until

HI = {"messages": [{"role": "user", "content": "Hi"}]}
ANSWER = json.dumps({"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}).encode()


class Provider(ThreadingHTTPServer):
    """Answers each request, and counts connections and requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.connections = self.requests = self.closed = 0
        self.is_closing = False  # after each answer, without a word

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.closed += 1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Provider

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)
        self.close_connection = self.server.is_closing

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def provider(settings: Settings) -> Iterator[Provider]:
    with Provider() as provider:
        threading.Thread(target=provider.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        settings.OPENAI_BASE_URL = provider.url
        yield provider
        provider.shutdown()


@pytest.fixture
def connects(upstream: OpenAIDouble, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were connected to, in a process that has no connection yet."""
    made: list[str] = []
    original = connections.Connection.connect

    def connect(self: connections.Connection) -> None:
        made.append(self.host)
        original(self)

    client.client().close()
    client.client.cache_clear()
    monkeypatch.setattr(connections.Connection, "connect", connect)
    return made


def reply() -> Reply:
    return Reply(Call("r_1", {"model": "gpt-4o-mini", **HI}, 1))


def ask() -> str:
    content: str = client.complete(reply()).message["content"]
    return content


def test_an_idle_connection_that_was_closed_is_not_used(provider: Provider) -> None:
    provider.is_closing = True
    ask()
    wait_until(lambda: provider.closed == 1)

    assert ask() == "Hi"
    assert (provider.connections, provider.requests) == (2, 2)


def test_an_idle_connection_that_is_old_is_not_used(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    ask()
    monkeypatch.setattr(connections, "IDLE_SECONDS", -1)

    assert ask() == "Hi"
    assert (provider.connections, provider.requests) == (2, 2)


def test_all_connections_of_a_hundred_calls_at_once_are_kept(upstream: OpenAIDouble, connects: list[str]) -> None:
    client.client()  # Each thread would make one.
    for _ in range(2):
        gate = threading.Event()
        upstream.default = Behaviour(gate=gate)
        upstream.requests.clear()
        with ThreadPoolExecutor(100) as pool:
            calls = [pool.submit(ask) for _ in range(100)]
            wait_until(lambda: len(upstream.requests) == 100)
            gate.set()
            assert {call.result() for call in calls} == {"echo: Hi"}

    assert len(connects) == 100


def test_a_stream_leaves_its_connection_to_the_next_call(upstream: OpenAIDouble, connects: list[str]) -> None:
    for _ in range(3):
        list(client.stream(reply(), Cancellation()))

    assert len(connects) == 1


def test_a_cancelled_call_leaves_no_connection(upstream: OpenAIDouble, connects: list[str]) -> None:
    cancellation = Cancellation()
    upstream.plan(Behaviour(text="one two", stop_after=1, ending="hang"))
    choices = client.stream(reply(), cancellation)
    next(choices)
    cancellation.request()
    with pytest.raises(Cancelled):
        list(choices)

    assert ask() == "echo: Hi"
    assert len(connects) == 2


def test_an_answer_that_is_not_read_to_its_end_leaves_no_connection(
    upstream: OpenAIDouble, connects: list[str]
) -> None:
    upstream.plan(Behaviour(text="word " * 50, pause=0.02))
    with closing(client.stream(reply(), Cancellation())) as choices:
        next(choices)

    assert ask() == "echo: Hi"
    assert len(connects) == 2


def test_a_refusal_leaves_its_connection_to_the_next_call(upstream: OpenAIDouble, connects: list[str]) -> None:
    upstream.plan(Behaviour(status=500))
    with pytest.raises(UpstreamError):
        ask()

    assert ask() == "echo: Hi"
    assert len(connects) == 1


def test_a_compressed_answer(upstream: OpenAIDouble) -> None:
    upstream.plan(Behaviour(raw=gzip.compress(ANSWER), headers={"Content-Encoding": "gzip"}))

    assert ask() == "Hi"


def test_an_answer_that_ends_with_its_connection(upstream: OpenAIDouble, connects: list[str]) -> None:
    upstream.default = Behaviour(headers={"Connection": "close"})

    assert [ask(), ask()] == ["echo: Hi"] * 2
    assert len(connects) == 2


def test_a_handshake_that_is_not_answered_costs_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        settings.OPENAI_BASE_URL = f"https://127.0.0.1:{deaf.getsockname()[1]}/v1"
        with pytest.raises(UpstreamTimeout) as failed:
            ask()

    assert failed.value.is_billed is False


def test_a_proxy_forwards_calls_without_tls(
    upstream: OpenAIDouble, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("HTTP_PROXY", upstream.url.replace("//", "//user:p%40ss@"))
        settings.OPENAI_BASE_URL = "http://example.invalid/v1"
        assert ask() == "echo: Hi"

    (request,) = upstream.requests
    assert request["path"] == "http://example.invalid/v1/chat/completions"
    assert request["headers"]["host"] == "example.invalid"
    assert request["headers"]["proxy-authorization"] == "Basic dXNlcjpwQHNz"


def test_no_proxy_stands_before_this_machine(
    provider: Provider, settings: Settings, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    settings.OPENAI_BASE_URL = provider.url

    assert ask() == "Hi"


@pytest.mark.parametrize(
    ("host", "is_asked"),
    [
        *(("localhost", False), ("llm.localhost", False), ("127.0.0.2", False), ("[::1]", False), ("::1", False)),
        *(("10.0.0.7", True), ("localhost.example", True), ("models.example", False), ("api.openai.com", True)),
    ],
)
def test_which_hosts_a_proxy_stands_before(host: str, is_asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "models.example")

    assert proxy_of("https", host) == (("ALL_PROXY", "http://proxy.example:3128") if is_asked else None)


def test_no_proxy_stands_before_an_address_of_no_proxy(
    provider: Provider, settings: Settings, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    settings.OPENAI_BASE_URL = provider.url

    assert ask() == "Hi"
