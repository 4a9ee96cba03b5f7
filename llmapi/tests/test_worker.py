"""The loop of a server process: what it accepts, and what a stop does."""

import itertools
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import gevent
import pytest
from gevent import socket, ssl
from gevent.pool import Pool

from analytics.processor import processor
from llmapi import worker
from llmapi.client_connections import ClientConnections
from llmapi.client_socket import ClientSocket, secured
from llmapi.worker import ACCEPT_SECONDS, Server


@pytest.fixture
def listener() -> socket.socket:
    """A socket of gevent's, which a server closes."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(200)
    return listener


def test_what_has_come_before_the_end_is_accepted(listener: socket.socket) -> None:
    """The system would reset these connections with the requests that they have sent already."""
    received: list[bytes] = []
    pool = Pool(10)

    def handle(connected: socket.socket, _address: object) -> None:
        received.append(connected.recv(10))

    server = Server(listener, handle, spawn=pool, least=1)
    with socket.create_connection(listener.getsockname()) as first, socket.create_connection(listener.getsockname()):
        first.sendall(b"hello")
        server.close()
        assert len(pool) == 2
    pool.join(timeout=30)

    assert sorted(received) == [b"", b"hello"]


def test_the_more_connections_come_the_more_are_accepted_at_a_time(listener: socket.socket) -> None:
    """Each of several processes takes one, so that the next is for all. In a flood they would come too late."""
    pool = Pool(200)
    server = Server(listener, lambda connected, address: None, spawn=pool, least=1)
    taken: list[int] = []
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        while server.max_accept > 1 or not taken:
            before = len(pool)
            server._do_read()
            taken.append(len(pool) - before)
    server.close()
    pool.join(timeout=30)

    assert taken[0] == 1
    assert sum(taken) == 100
    assert len(taken) < 10


def test_a_batch_takes_little_time(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is connected waits until it has been accepted."""
    clock = itertools.count(step=ACCEPT_SECONDS / 2)
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    pool = Pool(200)
    server = Server(listener, lambda connected, address: None, spawn=pool, least=64)
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        server._do_read()
        assert len(pool) == 2
        # At the end all are taken, however long it takes.
        server.close()
        assert len(pool) == 20
    pool.join(timeout=30)


@pytest.mark.parametrize("is_flooded", [True, False])
def test_in_a_flood_who_has_left_is_not_served(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, is_flooded: bool
) -> None:
    monkeypatch.setattr(processor, "is_flooded", lambda least: is_flooded)
    served: list[object] = []
    pool = Pool(10)

    def handle(connected: socket.socket, _address: object) -> None:
        served.append(connected)

    server = Server(listener, handle, spawn=pool, least=1)
    with socket.create_connection(listener.getsockname()) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with socket.create_connection(listener.getsockname()):
        server.close()
        pool.join(timeout=30)

    assert len(served) == (1 if is_flooded else 2)


def test_a_connection_that_is_closed_while_it_is_quiet_is_at_its_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connections = ClientConnections(10)
        connected = ClientSocket(ours, connections, head_seconds=60)
        connections.add(connected)
        reading = gevent.spawn(connected.recv, 10)
        gevent.sleep(0)
        connections.hang_up_quiet(-1, most=1)

        assert reading.get(timeout=30) == b""


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    make(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def make(certificate: Path, key: Path) -> None:
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", "-x509", "-days", "2", *kind, *files], check=True, capture_output=True)


def test_who_agrees_on_tls_is_served(context: ssl.SSLContext) -> None:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connecting = gevent.spawn(trusting.wrap_socket, theirs)
        with secured(ours, context, 30) as connected, connecting.get(timeout=30) as client:
            client.sendall(b"hello")

            assert connected.recv(10) == b"hello"


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"])
def test_who_does_not_agree_on_tls_is_not_waited_for(context: ssl.SSLContext, sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(sent)

        with pytest.raises(OSError, match=r"timed out|SSL"):
            secured(ours, context, 0.05)
