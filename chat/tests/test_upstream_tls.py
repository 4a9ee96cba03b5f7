"""Calls over TLS: one handshake for each connection, through proxies, and ended when they must end."""

import contextlib
import json
import socket
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from bench.openai_double import Behaviour, OpenAIDouble
from chat.upstream import client, proxies
from chat.upstream.replies import Call, Reply
from conftest import Server, wait_until

Serve = Callable[..., Server]
COMPLETIONS = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of 127.0.0.1, and its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    subprocess.run(["openssl", "req", "-x509", "-days", "2", *key, *names, *files], check=True, capture_output=True)
    with path.open("ab") as both:
        both.write(path.with_suffix(".crt").read_bytes())
    return path


@pytest.fixture
def tls(certificate: Path) -> Iterator[tuple[OpenAIDouble, ssl.SSLContext]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    double = OpenAIDouble()
    double.server.socket = context.wrap_socket(double.server.socket, server_side=True)
    with double:
        yield double, context


def secure(serve: Serve, double: OpenAIDouble, certificate: Path, **settings: str) -> Server:
    url = double.url.replace("http:", "https:")
    return serve(OPENAI_BASE_URL=url, SSL_CERT_FILE=str(certificate), WEB_CONCURRENCY="1", **settings)


def test_turns_at_once_make_a_handshake_each_and_later_ones_none(
    serve: Serve, tls: tuple[OpenAIDouble, ssl.SSLContext], certificate: Path
) -> None:
    double, context = tls
    server = secure(serve, double, certificate)
    # As it starts, the server asks for the models: whether they are there, and until when.
    wait_until(lambda: handshakes(context) >= 1)

    with ThreadPoolExecutor(5) as pool:
        asked = [{**HI, "stream": number % 2 == 0} for number in range(30)]
        answers = list(pool.map(lambda body: server.post(COMPLETIONS, body), asked))

    assert {status for status, _, _ in answers} == {200}
    assert len(double.requests) == 30
    assert 2 <= handshakes(context) <= 2 + 5


def handshakes(context: ssl.SSLContext) -> int:
    return context.session_stats()["accept_good"]


def test_a_stream_over_tls_is_cancelled(
    serve: Serve, tls: tuple[OpenAIDouble, ssl.SSLContext], certificate: Path
) -> None:
    double, _ = tls
    double.plan(Behaviour(text="one two three", stop_after=2, ending="hang"))
    server = secure(serve, double, certificate, UPSTREAM_TIMEOUT_SECONDS="20")

    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    body = json.dumps({**HI, "stream": True}).encode()
    with urllib.request.urlopen(urllib.request.Request(server.url + COMPLETIONS, body, headers), timeout=5) as answer:
        while b"two" not in answer.readline():
            pass
        cancelled, _, _ = server.post(f"{COMPLETIONS}/{answer.headers['x-request-id']}/cancel", {})
        rest = answer.read()

    assert cancelled == 200
    assert b'"cancelled":true' in rest
    assert "hang" in double.hung_up


def test_a_stop_breaks_off_a_call_over_tls(
    serve: Serve, tls: tuple[OpenAIDouble, ssl.SSLContext], certificate: Path
) -> None:
    double, _ = tls
    double.default = Behaviour(delay=30)
    server = secure(serve, double, certificate, GUNICORN_CMD_ARGS="--graceful-timeout 2")

    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(server.post, COMPLETIONS, HI)
        wait_until(lambda: len(double.requests) == 1)
        server.process.terminate()
        status, _, body = turn.result()

    assert (status, json.loads(body)["error"]["code"]) == (503, "unavailable")


class Tunnel(BaseHTTPRequestHandler):
    """A proxy that lets TLS through."""

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as target:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=self.pump, args=(target, self.connection))
            back.start()
            self.pump(self.connection, target)
            back.join()

    def pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):  # one side has gone
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def log_message(self, format: str, *args: Any) -> None:
        """Note the request in place of a log."""
        tunnelled: list[str] = self.server.tunnelled  # type: ignore[attr-defined]
        tunnelled.append(self.path)


def test_a_proxy_tunnels_calls_with_tls(
    tls: tuple[OpenAIDouble, ssl.SSLContext], certificate: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    double, context = tls
    with ThreadingHTTPServer(("127.0.0.1", 0), Tunnel) as proxy, monkeypatch.context() as patch:
        proxy.daemon_threads = True
        proxy.tunnelled = []  # type: ignore[attr-defined]
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        # The certificate is that of an address to which no proxy leads.
        patch.setattr(proxies, "is_this_machine", lambda host: False)
        patch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.server_port}")
        patch.setenv("SSL_CERT_FILE", str(certificate))
        settings.OPENAI_BASE_URL = double.url.replace("http:", "https:")
        for _ in range(2):
            answer = client.complete(Reply(Call("r_1", {"model": "gpt-4o-mini", **HI}, 1)))
            assert answer.message["content"] == "echo: Hi"
        client.client().close()
        proxy.shutdown()

    address = double.url.removeprefix("http://").removesuffix("/v1")
    assert proxy.tunnelled == [address]  # type: ignore[attr-defined]
    assert handshakes(context) == 1
