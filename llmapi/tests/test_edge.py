"""What a connection may take of the server: time for its head and body, bytes, and a place among the others."""

import contextlib
import functools
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection
from pytest_django import DjangoDbBlocker

from analytics.fairness import Busy
from analytics.processor import FLOOD, processor
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import ClientToken
from conftest import Server, running_server, wait_until
from llmapi import client_socket
from llmapi.client_connections import ClientConnections
from llmapi.client_socket import ClientSocket

Serve = Callable[..., Server]
HI = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()
COMPLETIONS = "/v1/chat/completions"


@pytest.fixture(scope="module")
def servers(django_db_setup: None, django_db_blocker: DjangoDbBlocker, double: OpenAIDouble) -> Iterator[Serve]:
    """`servers(config, **settings)` starts a server when the first test asks for it, which all tests then share.

    A test leaves to it only connections that have ended, so that it has the same room for the next.
    """
    with contextlib.ExitStack() as stack:
        yield functools.cache(lambda config, **bounds: stack.enter_context(running_server(double, config, **bounds)))
    with django_db_blocker.unblock():
        # The last connection that closes removes SQLite's log, which a killed server leaves.
        connection.ensure_connection()


@pytest.fixture
def hasty(transactional_db: None, upstream: OpenAIDouble, servers: Serve) -> Server:
    return servers("llmapi/tests/hasty_server.py")


@pytest.fixture
def small(transactional_db: None, upstream: OpenAIDouble, servers: Serve) -> Server:
    """A server with two connections to the database, and room for nine turns."""
    bounds = {"DATABASE_POOL_SIZE": "2", "MAX_RUNNING_TURNS": "9", "RATE_LIMIT_PER_MIN": "0"}
    return servers("chat/tests/shared_server.py", WEB_CONCURRENCY="1", **bounds)


@contextlib.contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    address = urlsplit(server.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=30) as opened:
        yield opened


def head(server: Server, length: int | None = None, token: str | None = None) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = (
        f"POST {COMPLETIONS} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {token or server.token}",
        "Content-Type: application/json",
        framing,
    )
    return "\r\n".join([*lines, "", ""]).encode()


def answer(opened: socket.socket) -> bytes:
    """Read to the end of the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := opened.recv(65536):
            received += piece
    return received


def answers(server: Server, sent: list[bytes]) -> list[bytes]:
    """Send each of these on a connection of its own, all of them at once, and read to the end of each."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(server)) for _ in sent]
        for opened, data in zip(connections, sent, strict=True):
            opened.sendall(data)
        return [answer(opened) for opened in connections]


def test_a_head_that_does_not_come_is_not_waited_for(hasty: Server) -> None:
    sent = [b"", b"POST /v1/cha", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "]

    assert answers(hasty, sent) == [b""] * 3


def test_a_body_that_does_not_come_is_not_waited_for(hasty: Server) -> None:
    sent = [head(hasty, length) + HI[:5] for length in (len(HI), 5_000_000)]
    sent.append(head(hasty) + b"5\r\n{")

    for received in answers(hasty, sent):
        assert received.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"request_timeout"' in received


def test_a_body_that_trickles_is_not_waited_for(hasty: Server) -> None:
    """Each byte comes in time, and all of them would take half a minute."""
    with connected(hasty) as opened:
        opened.sendall(head(hasty, 1000))
        opened.settimeout(0.03)
        received = b""
        for _ in range(1000):
            with contextlib.suppress(TimeoutError):
                received += opened.recv(65536)
                break
            opened.sendall(b" ")

    assert received.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_comes_fast_enough_may_take_its_time(hasty: Server) -> None:
    body = HI + b" " * 5000
    with connected(hasty) as opened:
        opened.sendall(head(hasty, len(body)))
        for start in range(0, len(body), 250):
            opened.sendall(body[start : start + 250])
            time.sleep(0.1)

        assert opened.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_half_sent_bodies_stop_nobody(small: Server) -> None:
    """More of them than connections to the database, and than requests at work."""
    with contextlib.ExitStack() as stack:
        for _ in range(150):
            opened = stack.enter_context(connected(small))
            opened.sendall(head(small, 500) + HI[:5])

        assert [small.post(COMPLETIONS, json.loads(HI))[0] for _ in range(10)] == [200] * 10


def test_connections_that_say_nothing_make_room(hasty: Server) -> None:
    """There are more than the server has room for. The oldest are closed, and the newest are served."""
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connected(hasty)) for _ in range(150)]

        assert hasty.post(COMPLETIONS, json.loads(HI))[0] == 200
        assert idle[0].recv(1) == b""


def test_a_request_that_has_come_is_not_closed_for_a_new_one(hasty: Server, upstream: OpenAIDouble) -> None:
    """More connections than are kept without a need, and all of them wait for an answer."""
    gate = threading.Event()
    upstream.default = Behaviour(gate=gate)
    with ThreadPoolExecutor(29) as pool:
        running = []
        for count in range(1, 30):
            running.append(pool.submit(hasty.post, COMPLETIONS, json.loads(HI)))
            wait_until(lambda count=count: len(upstream.requests) == count)  # type: ignore[misc]
        gate.set()

        assert Counter(one.result()[0] for one in running) == {200: 29}


def test_what_follows_a_refusal_is_not_read_for_ever(hasty: Server) -> None:
    with connected(hasty) as opened:
        opened.sendall(head(hasty, 1_000_000_000, token="wrong"))

        with pytest.raises(ConnectionError):
            opened.sendall(b" " * 50_000_000)


def test_who_sends_what_was_refused_makes_room(hasty: Server) -> None:
    """The bodies come fast enough, and for as long as there is room."""
    with contextlib.ExitStack() as stack:
        for _ in range(68):
            opened = stack.enter_context(connected(hasty))
            opened.sendall(head(hasty, 200_000, token="wrong") + HI)
            assert opened.recv(65536).startswith(b"HTTP/1.1 401 ")

        for _ in range(20):
            assert hasty.post(COMPLETIONS, json.loads(HI))[0] == 200


def test_a_burst_is_told_to_come_back(small: Server, upstream: OpenAIDouble) -> None:
    """One client leaves places to others."""
    other = ClientToken(name="other")
    token = other.renew()
    other.save()
    gate = threading.Event()
    upstream.default = Behaviour(gate=gate)
    with ThreadPoolExecutor(41) as pool:
        greedy = [pool.submit(small.post, COMPLETIONS, json.loads(HI)) for _ in range(40)]
        wait_until(lambda: sum(one.done() for one in greedy) + len(upstream.requests) == 40)
        modest = pool.submit(Server(small.url, token, small.process).post, COMPLETIONS, json.loads(HI))
        wait_until(lambda: len(upstream.requests) == 9)
        gate.set()

        assert Counter(one.result()[0] for one in greedy) == {200: 8, 503: 32}
        assert modest.result()[0] == 200


# --- the socket by itself ---


@pytest.fixture
def pair() -> Iterator[tuple[ClientSocket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname(), timeout=30)
        ours, _ = listener.accept()
    with ours, theirs:
        connections = ClientConnections(100)
        connected = ClientSocket(ours, connections, 5)
        connections.add(connected)
        yield connected, theirs


def test_an_answer_that_is_not_taken_ends_the_connection(
    pair: tuple[ClientSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_socket, "PIECE_SECONDS", 0.01)
    ours, _ = pair

    with pytest.raises(ConnectionResetError):
        ours.sendall(b" " * 10_000_000)
    assert ours.recv(1) == b""


def test_an_answer_that_is_taken_slowly_is_sent_whole(
    pair: tuple[ClientSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each piece has its time, so that the whole may take longer."""
    timeouts: list[Any] = []
    ours, theirs = pair
    sent = bytes(range(256)) * 4000

    class Slow:
        def settimeout(self, seconds: float | None) -> None:
            timeouts.append(seconds)

        def sendall(self, data: bytes) -> None:
            assert len(data) <= client_socket.PIECE_BYTES
            original.sendall(data)

    original = ours._socket
    ours._socket = Slow()
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(lambda: b"".join(iter(lambda: theirs.recv(65536), b"")))
        ours.sendall(sent)
        original.close()

        assert received.result() == sent
    assert timeouts == [client_socket.PIECE_SECONDS]


def test_others_have_their_turn_while_much_is_read(
    pair: tuple[ClientSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[float] = []
    monkeypatch.setattr("llmapi.client_socket.gevent.sleep", turns.append)
    ours, theirs = pair
    ours.begin()
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(theirs.sendall, b" " * 1_500_000)
        read = 0
        while read < 1_500_000:
            read += len(ours.recv(50_000))
        sending.result()

    assert len(turns) >= 1_500_000 // (client_socket.TURN_BYTES + 50_000)


HEAD = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", HEAD])
def test_who_has_left_is_known_whatever_was_sent_before(pair: tuple[ClientSocket, socket.socket], sent: bytes) -> None:
    ours, theirs = pair
    theirs.sendall(sent)
    assert not client_socket.has_left(ours)

    theirs.close()

    wait_until(lambda: client_socket.has_left(ours))


def test_of_another_kind_of_socket_it_is_not_known() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.close()

        assert not client_socket.has_left(ours)


@pytest.fixture
def flooded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "is_flooded", lambda owner, least=FLOOD: True)


def test_who_has_left_is_not_waited_for(pair: tuple[ClientSocket, socket.socket], flooded: None) -> None:
    """A flood of clients that send a request and vanish would keep the others waiting."""
    ours, theirs = pair
    theirs.sendall(HEAD)
    theirs.close()
    wait_until(lambda: client_socket.has_left(ours))

    with pytest.raises(ConnectionResetError):
        ours.recv(8192)


def test_who_waits_has_a_turn(pair: tuple[ClientSocket, socket.socket], flooded: None) -> None:
    ours, theirs = pair
    theirs.sendall(HEAD)

    assert ours.recv(8192) == HEAD
    ours.end_parsing()


def test_without_a_flood_a_client_may_leave_before_its_turn(pair: tuple[ClientSocket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(HEAD)
    theirs.shutdown(socket.SHUT_WR)

    assert ours.recv(8192) == HEAD
    ours.end_parsing()


def test_a_head_without_a_turn_is_told_so(
    pair: tuple[ClientSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(owner: object, *, is_newest_first: bool) -> None:
        raise Busy

    monkeypatch.setattr(processor, "wait_for_turn", refuse)
    ours, theirs = pair
    theirs.sendall(HEAD)

    with pytest.raises(ConnectionResetError):
        ours.recv(8192)

    assert theirs.recv(8192).startswith(b"HTTP/1.1 503 ")
