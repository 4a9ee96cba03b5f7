"""Whatever a provider sends, or does not: a call ends within its time and its bytes, and as one of our errors."""

import gzip
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from chat.exceptions import ApiError, Cancelled, UpstreamError, UpstreamTimeout
from chat.tests.hostile_upstream import (
    CHUNKED,
    EVENTS,
    HEAD,
    JSON,
    HostileProvider,
    Line,
    Script,
    bomb,
    sending,
)
from chat.upstream import client, connections, deadlines, lifetimes
from chat.upstream.deadlines import Cancellation
from chat.upstream.replies import Call, Reply
from conftest import wait_until

Provide = Callable[..., HostileProvider]
# Far more than any call here may take: without a bound they would take for ever.
PATIENCE = 20
MIB = 2**20


@pytest.fixture
def provide(settings: Settings) -> Iterator[Provide]:
    """`provide(*scripts)` makes a hostile provider the upstream, which may be silent for `seconds`."""
    running = []

    def start(*scripts: Script, scheme: str = "http", seconds: float = 0.5) -> HostileProvider:
        provider = HostileProvider(*scripts)
        running.append(serving := provider.serving())
        serving.__enter__()
        settings.UPSTREAM_TIMEOUT_SECONDS = seconds
        settings.OPENAI_BASE_URL = f"{scheme}://127.0.0.1:{provider.port}/v1"
        return provider

    yield start
    for serving in running:
        serving.__exit__(None, None, None)


def new_reply(text: str = "Hi") -> Reply:
    return Reply(Call("r_1", {"model": "m", "messages": [{"role": "user", "content": text}]}, 1))


def ask(*, is_stream: bool, text: str = "Hi", cancellation: Cancellation | None = None) -> str:
    reply = new_reply(text)
    if not is_stream:
        return str(client.complete(reply).message["content"])
    for _ in client.stream(reply, cancellation or Cancellation()):
        pass
    return str(reply.completion().message["content"])


def outcome(**asked: Any) -> str | ApiError:
    """Ask in a thread of its own, which ends in time, and return the text or the error."""

    def run() -> str | ApiError:
        try:
            return ask(**asked)
        except ApiError as exc:
            return exc

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(PATIENCE)


LATE = {
    "an answer that does not come": sending(),
    "a status line that trickles": sending(b"HTTP/1.1 200 ", then="trickle", forever=b"O"),
    "a head that trickles": sending(HEAD + b"X-Word: ", then="trickle", forever=b"a"),
    "header lines that trickle": sending(HEAD, then="trickle", forever=b"X: y\r\n"),
    "100 Continue that trickles": sending(then="trickle", forever=b"HTTP/1.1 100 Continue\r\n\r\n"),
    "silence after the head": sending(CHUNKED),
    "a body that trickles": sending(HEAD + b"Content-Length: 99999\r\n\r\n", then="trickle", forever=b" "),
    "signs of life": sending(CHUNKED, then="trickle", forever=b"8\r\n: ping\n\n\r\n"),
    "a chunk's length that trickles": sending(CHUNKED, then="trickle", forever=b"0"),
    "a chunk's extension that trickles": sending(CHUNKED + b"5;", then="trickle", forever=b"x"),
    "a trailer that trickles": sending(CHUNKED + b"0\r\n", then="trickle", forever=b"X: y\r\n"),
    "a redirect that trickles": sending(b"HTTP/1.1 307 Away\r\nLocation: ", then="trickle", forever=b"a"),
}


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("case", LATE)
def test_what_comes_slowly_ends_with_the_deadline(provide: Provide, case: str, is_stream: bool) -> None:
    provide(LATE[case])

    error = outcome(is_stream=is_stream)

    assert isinstance(error, UpstreamTimeout)
    assert error.is_billed


ENDLESS = {
    "100 Continue": sending(then="flood", forever=b"HTTP/1.1 100 Continue\r\n\r\n"),
    "header lines": sending(HEAD, then="flood", forever=b"X: y\r\n"),
    "a header line": sending(HEAD + b"X: ", then="flood", forever=b"a"),
    "a status line": sending(b"HTTP/1.1 200 ", then="flood", forever=b"O"),
    "a body": sending(HEAD + b"\r\n", then="flood", forever=b" "),
    "signs of life": sending(HEAD + b"\r\n", then="flood", forever=b": ping\n\n"),
    "a chunk's extension": sending(CHUNKED + b"5;", then="flood", forever=b"x"),
    "chunks with extensions": sending(CHUNKED, then="flood", forever=b"1;" + b"x" * 9999 + b"\r\n \r\n"),
    "a trailer": sending(CHUNKED + b"0\r\n", then="flood", forever=b"X: " + b"y" * 999 + b"\r\n"),
}


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("case", ENDLESS)
def test_what_comes_endlessly_ends_with_its_bytes(
    provide: Provide, monkeypatch: pytest.MonkeyPatch, case: str, is_stream: bool
) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", MIB)
    monkeypatch.setattr(connections, "MAX_WIRE_BYTES", 2 * MIB)
    provider = provide(ENDLESS[case], seconds=60)

    error = outcome(is_stream=is_stream)

    assert isinstance(error, UpstreamError)
    assert not isinstance(error, UpstreamTimeout)
    wait_until(lambda: provider.sent > 0)
    assert provider.sent < 20 * MIB  # what the buffers of both sides hold is sent, too


def packed(status: bytes, data: bytes) -> bytes:
    return b"%b\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (status, len(data), data)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("status", ["200 OK", "500 Broken", "302 Away\r\nLocation: /v1/there", "304 Same"])
def test_a_compressed_answer_is_bounded_by_what_is_in_it(
    provide: Provide, monkeypatch: pytest.MonkeyPatch, status: str, is_stream: bool
) -> None:
    seen = []
    original = client.pieces_of

    def counted(response: Any) -> Iterator[bytes]:
        for piece in original(response):
            seen.append(len(piece))
            yield piece

    monkeypatch.setattr(client, "pieces_of", counted)
    provide(sending(packed(f"HTTP/1.1 {status}".encode(), bomb())), seconds=60)

    assert isinstance(outcome(is_stream=is_stream), UpstreamError)
    assert sum(seen) <= client.MAX_ANSWER_BYTES + MIB
    assert max(seen, default=0) <= MIB


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_good_answer_may_be_compressed(provide: Provide, is_stream: bool) -> None:
    provide(sending(packed(HEAD.strip(), gzip.compress(EVENTS if is_stream else JSON))))

    assert outcome(is_stream=is_stream) == "Hi"


@pytest.mark.parametrize("then", ["trickle", "flood", "wait"])
@pytest.mark.parametrize("forever", [b"data: {}\n\n", b"0\r\n\r\n"])
def test_what_comes_after_a_reply_is_not_waited_for(provide: Provide, then: str, forever: bytes) -> None:
    provide(sending(HEAD + b"\r\n" + EVENTS, then=then, forever=forever), seconds=60)

    assert outcome(is_stream=True) == "Hi"


@pytest.mark.parametrize("then", ["trickle", "flood", "wait"])
def test_an_error_is_told_without_its_endless_body(
    provide: Provide, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    monkeypatch.setattr(client, "ERROR_BODY_SECONDS", 0.2)
    provide(sending(b"HTTP/1.1 429 Slow down\r\n\r\n", then=then), seconds=60)

    error = outcome(is_stream=True)

    assert isinstance(error, UpstreamError)
    assert (error.status_code, error.is_billed) == (429, False)


@pytest.mark.parametrize("status", ["302", "307"])
def test_redirects_come_to_an_end(provide: Provide, status: str) -> None:
    away = f"HTTP/1.1 {status} Away\r\nLocation: /v1/again\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
    provider = provide(sending(away, then="close"), seconds=60)

    error = outcome(is_stream=False)

    assert isinstance(error, UpstreamError)
    assert error.is_billed is False
    assert provider.connections == client.MAX_REDIRECTS + 1


@pytest.mark.parametrize("then", ["trickle", "flood"])
def test_the_body_of_a_redirect_is_not_read(provide: Provide, then: str) -> None:
    away = b"HTTP/1.1 307 Away\r\nLocation: /v1/there\r\n\r\n"
    provide(sending(away, then=then), sending(HEAD + b"\r\n" + JSON, then="close"), seconds=60)

    assert outcome(is_stream=False) == "Hi"


LARGE = "x" * (20 * MIB)


def reading_slowly(line: Line) -> None:
    while line.connected.recv(1):
        if line.provider.stopped.wait(0.02):
            return


@pytest.mark.parametrize("script", [Line.wait, reading_slowly])
def test_a_request_that_is_not_read_ends_with_the_deadline(provide: Provide, script: Script) -> None:
    provide(script)

    assert isinstance(outcome(is_stream=False, text=LARGE), UpstreamTimeout)


def shaking_hands_slowly(line: Line) -> None:
    """Answer the first word of TLS with a record of 16 KB that comes byte by byte."""
    line.connected.recv(65536)
    line.provider.asked.set()
    line.send(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")
    line.trickle(b"\x03")


def test_a_handshake_that_trickles_costs_nothing(provide: Provide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECT_SECONDS", 0.5)
    provide(shaking_hands_slowly, scheme="https", seconds=60)

    error = outcome(is_stream=False)

    assert isinstance(error, UpstreamTimeout)
    assert error.is_billed is False


def test_what_no_read_notices_is_ended_by_the_clock(provide: Provide, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under gevent a read over TLS waits anew for each byte of a record: the timeout of its socket never comes."""
    monkeypatch.setattr(deadlines, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(deadlines.Deadline, "left", lambda self: 1000.0)
    provide(sending())

    assert isinstance(outcome(is_stream=False), UpstreamTimeout)


# Where a call waits, and what a cancelled one costs there.
WAITING: dict[str, tuple[Script, str, bool]] = {
    "for the handshake": (shaking_hands_slowly, "https", False),
    "for the head": (sending(), "http", True),
    "in the head": (sending(HEAD + b"X: ", then="trickle"), "http", True),
    "for the first chunk": (sending(CHUNKED), "http", True),
    "in signs of life": (sending(HEAD + b"\r\n", then="trickle", forever=b": ping\n\n"), "http", True),
}


def ask_and_wait(provider: HostileProvider, cancellation: Cancellation, pool: ThreadPoolExecutor) -> Future[str]:
    asked = pool.submit(ask, is_stream=True, cancellation=cancellation)
    assert provider.asked.wait(PATIENCE)
    return asked


@pytest.mark.parametrize("where", WAITING)
def test_a_cancel_ends_a_call_wherever_it_waits(provide: Provide, where: str) -> None:
    script, scheme, is_billed = WAITING[where]
    provider, cancellation = provide(script, scheme=scheme, seconds=600), Cancellation()
    with ThreadPoolExecutor(1) as pool:
        asked = ask_and_wait(provider, cancellation, pool)

        cancellation.request()

        with pytest.raises(Cancelled) as error:
            asked.result(connections.CONNECT_SECONDS - 2)
    assert error.value.is_billed is is_billed


def test_a_cancel_ends_a_request_that_is_not_read(provide: Provide) -> None:
    started = threading.Event()

    def deaf(line: Line) -> None:
        line.connected.recv(1)
        started.set()
        line.wait()

    provide(deaf, seconds=600)
    cancellation = Cancellation()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, is_stream=True, cancellation=cancellation, text=LARGE)
        assert started.wait(PATIENCE)

        cancellation.request()

        with pytest.raises(Cancelled):
            asked.result(PATIENCE)


def test_a_cancel_before_the_call_costs_nothing(provide: Provide) -> None:
    provider, cancellation = provide(sending()), Cancellation()
    cancellation.request()

    with pytest.raises(Cancelled) as error:
        ask(is_stream=True, cancellation=cancellation)

    assert error.value.is_billed is False
    assert provider.connections == 0


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("where", WAITING)
def test_a_stop_ends_a_call_wherever_it_waits(
    provide: Provide, monkeypatch: pytest.MonkeyPatch, where: str, is_stream: bool
) -> None:
    monkeypatch.setattr(deadlines, "_is_stopping", threading.Event())
    script, scheme, is_billed = WAITING[where]
    provider = provide(script, scheme=scheme, seconds=600)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, is_stream=is_stream)
        assert provider.asked.wait(PATIENCE)

        client.hang_up()

        with pytest.raises(ApiError, match="being restarted") as error:
            asked.result(connections.CONNECT_SECONDS - 2)
        assert error.value.is_billed is is_billed
        with pytest.raises(ApiError, match="being restarted") as error:
            ask(is_stream=is_stream)
        assert error.value.is_billed is False


def test_a_call_that_has_ended_ends_no_other(provide: Provide) -> None:
    """Its connection is the next call's."""
    second = threading.Event()

    def answering_twice(line: Line) -> None:
        answer = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(JSON), JSON)
        line.read_request()
        line.send(answer)
        line.read_request()
        second.set()
        line.provider.asked.wait(PATIENCE)
        line.send(answer)

    provider = provide(answering_twice, seconds=60)
    with deadlines.Deadline() as first:
        with client.post(new_reply().call, new_reply().call.body, first) as response:
            b"".join(client.read(response, first))
        provider.asked.clear()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask, is_stream=False)
            assert second.wait(PATIENCE)
            first.end()
            provider.asked.set()

            assert asked.result(PATIENCE) == "Hi"
    assert provider.connections == 1


@pytest.mark.parametrize("script", [sending(packed(HEAD.strip(), bomb())), LATE["a body that trickles"]])
def test_a_hostile_list_of_models_changes_nothing(
    provide: Provide, monkeypatch: pytest.MonkeyPatch, script: Script
) -> None:
    monkeypatch.setattr(lifetimes, "ASK_SECONDS", 0.5)
    provide(script, seconds=60)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lifetimes.ask_upstream, timezone.now()).result(PATIENCE) == 0


def test_the_client_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    create = ssl.create_default_context
    gate = threading.Barrier(20)

    def counted(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        made.append(1)
        return create(*args, **kwargs)

    def first() -> int:
        gate.wait()
        return id(client.client())

    client.client.cache_clear()
    monkeypatch.setattr("chat.upstream.transport.httpx2.create_ssl_context", counted)
    with ThreadPoolExecutor(20) as pool:
        clients = {asked.result() for asked in [pool.submit(first) for _ in range(20)]}
    client.client.cache_clear()

    assert (len(clients), len(made)) == (1, 1)
