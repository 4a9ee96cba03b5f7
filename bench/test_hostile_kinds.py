"""What hostile clients send: as much as they say, with the token of their source, and no more than half of it."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gevent
import pytest

from bench.conftest import OURS, WORLD, Recorder, as_answer, end_of, of
from bench.hostile import kinds, wire
from bench.hostile.attack import Attack, connections_of, make
from bench.hostile.kinds import KINDS, Kind
from bench.hostile.kinds.bodies import PROTOBUF, Body
from bench.hostile.kinds.floods import Login
from bench.hostile.kinds.turns import OneKey
from bench.hostile.report import kinds_table
from bench.hostile.wire import Wire
from llmapi.launch import ROOT
from protos.chat_pb2 import ChatRequest


def test_each_kind_says_what_it_is() -> None:
    for kind in KINDS.values():
        assert kind.__doc__
        assert "\n" not in kind.__doc__
        assert kind.__doc__.endswith(".")
        assert kind.connections > 0
        assert set(kind.sources) <= {"token", "none", "session"}


@pytest.mark.parametrize("name", kinds.names())
def test_sends_the_token_of_its_source_and_no_other(
    name: str, service: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kind, "conversation", lambda self, items, **_: "c_1")
    for body in KINDS.values():
        if issubclass(body, Body):
            monkeypatch.setattr(body, "make", lambda self: b"{}")
    (kind,) = make(of(service), [name])
    kind.prepare()
    jobs = [gevent.spawn(kind.run, number) for number in range(2)]
    assert service.has_request.wait(5)
    gevent.killall(jobs)

    sent = b"".join(service.seen)
    own = getattr(WORLD, kind.credential).encode() if name.endswith("/token") else None
    found = {token for token in OURS if token.encode() in sent}
    assert found == ({own.decode()} if own else set())
    assert (b"Cookie: sessionid=s" in sent) == name.endswith("/session")


def size_of(value: Any) -> int:
    return len(value)


BODIES: dict[str, Callable[[bytes], Any]] = {
    "pictures": lambda body: body.count(b'"url":') == body.count(b'"text":') == 52_000,
    "few-pictures": lambda body: body.count(b'"url":') == body.count(b'"text":') == 5200,
    "texts": lambda body: body.count(b'"text":') == 100_000,
    "empty-lists": lambda body: body.count(b"[]") == 400_000,
    "entries": lambda body: body.count(b'"k') == 150_000,
    "messages": lambda body: body.count(b'"role"') == 20_000,
    "tool-calls": lambda body: body.count(b'"tool_call_id"') == 1000 and body.count(b'"tool_calls"') == 1000,
    "deep": lambda body: body.count(b"[") == 900_000,
    "schemas": lambda body: body.count(b'"properties"') == 40 and body.count(b'"string"') == 50_000,
    "long-text": lambda body: size_of(body) > 19_000_000,
    "long-foreign-text": lambda body: body.count(b"\\u6f22") == 3_100_000,
    "numbers": lambda body: body.count(b"," + b"9" * 3999) == 449,
    "protobuf-messages": lambda body: size_of(ChatRequest.FromString(body).messages) == 900_000,
    "protobuf-parts": lambda body: size_of(ChatRequest.FromString(body).messages[0].parts) == 470_000,
    "protobuf-pictures": lambda body: size_of(ChatRequest.FromString(body).messages[0].parts) == 104_000,
    "protobuf-lists": lambda body: size_of(ChatRequest.FromString(body).tools) == 300_000,
}


@pytest.mark.parametrize("name", [kind.name for kind in KINDS.values() if issubclass(kind, Body)])
def test_a_body_holds_what_it_says(name: str) -> None:
    kind = KINDS[name](WORLD, "token")
    assert isinstance(kind, Body)

    body = kind.make()

    assert size_of(body) < 20 * 1024 * 1024, "a server refuses it unread"
    assert BODIES[name](body)
    assert (kind.media_type == PROTOBUF) == name.startswith("protobuf")


@pytest.mark.parametrize("name", ["half-bodies/token", "half-chunked-bodies/none", "half-heads/none"])
def test_half_a_request_stays_half(name: str, service: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kind, "conversation", lambda self, items: "c_1")
    attack = Attack(make(of(service), [name]), share=0.02)
    attack.prepare()
    attack.start()
    assert service.has_request.wait(5)
    gevent.sleep(0.01)

    assert len(service.seen) == len(attack.jobs) == max(1, round(KINDS[name.partition("/")[0]].connections * 0.02))
    assert all(end_of(bytes(seen)) is None for seen in service.seen)
    assert service.open == len(service.seen)
    attack.stop()


def test_the_end_of_an_attack_closes_its_connections(service: Recorder) -> None:
    attack = Attack(make(of(service), ["half-bodies/none"]), share=0.1)
    attack.prepare()
    attack.start()
    service.has_request.wait(5)
    attack.stop()
    with gevent.Timeout(5):
        while service.open:
            gevent.sleep(0.001)

    assert attack.jobs == []


def test_opens_as_many_connections_for_each_process() -> None:
    idle, burst = make(replace(WORLD, workers=2), ["idle/none", "burst/token"])

    assert connections_of(idle) == 2 * connections_of(make(WORLD, ["idle/none"])[0])
    assert connections_of(burst) == 3000
    assert connections_of(burst, 0.1) == 300


def test_does_not_read_what_it_asked_for(service: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kind, "conversation", lambda self, items: "c_1")
    service.answer = lambda _: as_answer(200, b"x" * 9_000_000)
    attack = Attack(make(of(service), ["unread-items/token"]), share=0.05)
    attack.prepare()
    attack.start()
    with gevent.Timeout(5):
        while service.unsent < 2:
            gevent.sleep(0.001)
    gevent.sleep(0.02)

    assert service.unsent == 2
    attack.stop()


def test_a_dripping_body_is_sent_a_byte_at_a_time(service: Recorder) -> None:
    with Wire(service.port) as connection:
        connection.drip(b"abcd", 0.001)
        assert service.has_request.wait(5)
        gevent.sleep(0.01)

    assert service.seen == [bytearray(b"abcd")]


def test_stops_dripping_once_it_is_answered(service: Recorder) -> None:
    request = wire.request("GET", "/health")
    with Wire(service.port) as connection, pytest.raises(OSError, match="answered"):
        connection.drip(request + b"more" * 1000, 0.001)

    assert len(service.seen[0]) < len(request) + 1000


def test_guesses_passwords_with_the_token_of_the_form(service: Recorder) -> None:
    kind = Login(of(service), "none")
    job = gevent.spawn(kind.run, 0)
    with gevent.Timeout(5):
        while kind.answers["200"] < 4:
            gevent.sleep(0)
    job.kill()

    sent = bytes(service.seen[0])
    tried = re.findall(rb"csrfmiddlewaretoken=secret&username=warden&password=(\w+)", sent)
    assert len(set(tried)) == len(tried) >= 3
    assert sent.count(b"Cookie: csrftoken=c\r\n") == len(tried)


def test_two_hundred_connections_share_a_key() -> None:
    kind = OneKey(WORLD, "token")
    kind.prepare()
    sent = b"".join(kind.request(number) for number in range(401))

    assert list(Counter(re.findall(rb"Idempotency-Key: (\S+)", sent)).values()) == [200, 200, 1]


def test_the_page_lists_every_kind() -> None:
    assert kinds_table() in (ROOT / "docs/hostile.md").read_text()
