"""A stream that one process runs is read in others, on one node or on several, as soon as it comes. On PostgreSQL."""

import contextlib
import http.client
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from django.db import connection

from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from bench.stack import children_of
from chat.exceptions import Unavailable
from chat.models import IdempotencyKey, Message
from chat.turns.idempotency import Idempotency
from chat.turns.remote import Publication, RemoteLog
from chat.turns.reply_log import ReplyLog
from conftest import ApiClient, Server, running_server, wait_until

Serve = Callable[..., Server]
Ask = Callable[[Server], "Stream"]
URL = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "stream_options": {"include_usage": True}}

on_postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="LISTEN is PostgreSQL's")


class Stepped(Behaviour):
    """Sends each chunk of a stream but the first when it is let."""

    def __init__(self, text: str, **more: Any) -> None:
        self.permits = threading.Semaphore(0)
        super().__init__(text, **more)

    @property
    def pause(self) -> float:
        assert self.permits.acquire(timeout=30)
        return 0

    @pause.setter
    def pause(self, seconds: float) -> None:
        """Take what the dataclass sets."""


class Stream:
    """The events of one answer, read one by one."""

    def __init__(self, server: Server) -> None:
        self.connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
        headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
        self.connection.request("POST", URL, json.dumps(HI), {**headers, "Idempotency-Key": "k"})
        self.answer = self.connection.getresponse()
        self.events: list[Any] = []
        self.is_replay = self.answer.headers["Idempotent-Replayed"] == "true"

    def __iter__(self) -> Iterator[Any]:
        deadline = time.monotonic() + 30
        while line := self.answer.readline():
            assert time.monotonic() < deadline, "nothing comes but heartbeats"
            if line.startswith(b"data: {"):
                self.events.append(json.loads(line[6:]))
                yield self.events[-1]

    @property
    def text(self) -> str:
        deltas = (choice["delta"] for event in self.events for choice in event.get("choices", []))
        return "".join(delta.get("content") or "" for delta in deltas)

    def read_until(self, text: str) -> None:
        assert any(self.text == text for _ in self), self.events

    def read(self) -> str:
        """Read to the end, and return the whole text."""
        for _ in self:
            pass
        return self.text

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


@pytest.fixture
def nodes(serve: Serve) -> list[Server]:
    """Two servers of one process each, on one database."""
    return [serve(WEB_CONCURRENCY="1", UPSTREAM_TIMEOUT_SECONDS="60") for _ in range(2)]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """`ask(server)` sends the same request under the same key, and returns its stream."""
    with contextlib.ExitStack() as stack:

        def ask(server: Server) -> Stream:
            stream = Stream(server)
            stack.callback(stream.close)
            return stream

        yield ask


def cut_listeners() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'llmapi-listener' AND datname = current_database()"
        )
        assert cursor.rowcount >= 2  # the server that tests share listens too


@contextlib.contextmanager
def listening() -> Iterator[Callable[[str], str]]:
    """`heard(channel)` waits for a message on a channel, and returns it."""
    with psycopg.connect(**connection.get_connection_params(), autocommit=True) as listener:

        def heard(channel: str) -> str:
            listener.execute(f"LISTEN {channel}")
            return next(notice.payload for notice in listener.notifies(timeout=30) if notice.channel == channel)

        yield heard


@on_postgresql
def test_a_stream_is_joined_in_any_of_four_processes(serve: Serve, upstream: OpenAIDouble, ask: Ask) -> None:
    server = serve(WEB_CONCURRENCY="4", UPSTREAM_TIMEOUT_SECONDS="60", RATE_LIMIT_PER_MIN="0")
    told = Stepped("one two three four")
    upstream.plan(told)
    told.permits.release(2)
    first = ask(server)
    first.read_until("one two")

    with ThreadPoolExecutor(24) as pool:
        joined = list(pool.map(lambda _: ask(server), range(24)))
        list(pool.map(lambda stream: stream.read_until("one two"), joined))
        told.permits.release(3)
        texts = set(pool.map(lambda stream: stream.read(), joined))

    assert texts == {first.read()} == {"one two three four"}
    assert all(stream.events == first.events for stream in joined)
    assert all(stream.is_replay for stream in joined)
    assert len(upstream.requests) == 1
    assert UsageEvent.objects.count() == 1


@on_postgresql
def test_chunks_come_one_by_one_on_another_node(nodes: list[Server], upstream: OpenAIDouble, ask: Ask) -> None:
    told = Stepped("one two three")
    upstream.plan(told)
    first, joined = ask(nodes[0]), ask(nodes[1])

    for text in ("one", "one two", "one two three"):
        told.permits.release()
        joined.read_until(text)
    assert UsageEvent.objects.pending().count() == 1
    told.permits.release()

    assert joined.read() == first.read()
    assert joined.events == first.events
    assert joined.events[-1]["usage"]["completion_tokens"] == 4
    assert (first.is_replay, joined.is_replay) == (False, True)


@on_postgresql
def test_a_chunk_longer_than_a_payload_arrives_whole(nodes: list[Server], upstream: OpenAIDouble, ask: Ask) -> None:
    pieces = ["aé€😀\n" * 5000, "x" * 20_000, "é"]
    told = Stepped("", pieces=pieces)
    upstream.plan(told)
    first = ask(nodes[0])
    told.permits.release(2)
    first.read_until("".join(pieces[:2]))
    joined = ask(nodes[1])
    joined.read_until("".join(pieces[:2]))
    told.permits.release(2)

    assert joined.read() == first.read() == "".join(pieces)


@on_postgresql
def test_a_lost_connection_loses_no_text(nodes: list[Server], upstream: OpenAIDouble, ask: Ask) -> None:
    words = [f"word{n}" for n in range(20)]
    told = Stepped(" ".join(words))
    upstream.plan(told)
    told.permits.release()
    first, joined = ask(nodes[0]), ask(nodes[1])
    joined.read_until("word0")

    for end in range(2, 20, 3):
        cut_listeners()
        told.permits.release(3)
        first.read_until(" ".join(words[: end + 2]))
        joined.read_until(" ".join(words[: end + 2]))
    told.permits.release(20)

    assert joined.read() == first.read() == told.text
    assert joined.events == first.events


@on_postgresql
def test_an_error_reaches_those_who_joined(nodes: list[Server], upstream: OpenAIDouble, ask: Ask) -> None:
    told = Stepped("one two three", stop_after=2, ending="error")
    upstream.plan(told)
    told.permits.release(2)
    first, joined = ask(nodes[0]), ask(nodes[1])
    joined.read_until("one two")
    told.permits.release()

    first.read()
    joined.read()

    assert joined.events == first.events
    assert joined.events[-1]["error"]["code"] == "upstream_error"


@on_postgresql
def test_a_failure_before_the_first_chunk_is_a_status(nodes: list[Server], upstream: OpenAIDouble, ask: Ask) -> None:
    gate = threading.Event()
    upstream.plan(Behaviour(status=400, gate=gate))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(nodes[0].post, URL, HI, "k")
        wait_until(lambda: len(upstream.requests) == 1)
        with listening() as heard:
            joined = pool.submit(nodes[1].post, URL, HI, "k")
            _, channel, _, _ = heard("llmapi_streams").split(" ")
            heard(channel)
        gate.set()

    assert joined.result()[0] == first.result()[0] == 400
    assert joined.result()[2] == first.result()[2]


@on_postgresql
def test_a_stream_is_cancelled_from_another_node(nodes: list[Server], upstream: OpenAIDouble, ask: Ask) -> None:
    upstream.plan(Behaviour(text="one two three", stop_after=2, ending="hang"))
    first, joined = ask(nodes[0]), ask(nodes[1])
    joined.read_until("one two")

    status, _, _ = nodes[1].post(f"{URL}/{joined.events[0]['request_id']}/cancel", {})

    assert status == 200
    assert joined.read() == first.read() == "one two"
    assert joined.events == first.events
    assert joined.events[-2]["cancelled"] is True


@on_postgresql
def test_a_plain_request_waits_for_the_end_of_the_stream(nodes: list[Server], upstream: OpenAIDouble, ask: Ask) -> None:
    told = Stepped("one two")
    upstream.plan(told)
    first = ask(nodes[0])
    with ThreadPoolExecutor(1) as pool:
        plain = pool.submit(nodes[1].post, URL, {"messages": HI["messages"]}, "k")
        told.permits.release(3)

        assert json.loads(plain.result()[2])["choices"][0]["message"]["content"] == first.read() == "one two"
    assert plain.result()[1]["Idempotent-Replayed"] == "true"


@on_postgresql
def test_a_reader_outlives_the_process_that_ran_the_stream(
    nodes: list[Server], upstream: OpenAIDouble, ask: Ask
) -> None:
    """It is told to send the request again, and that one takes the turn over."""
    told = Stepped("one two three")
    upstream.plan(told)
    told.permits.release(2)
    ask(nodes[0]).read_until("one two")
    joined = ask(nodes[1])
    joined.read_until("one two")

    (worker,) = children_of(nodes[0].process.pid)
    os.kill(worker, signal.SIGKILL)
    # Its lease ends, as it does by itself after 45 seconds.
    IdempotencyKey.objects.update(locked_until="2020-01-01T00:00:00Z")

    assert joined.read() == "one two"
    assert joined.events[-1]["error"]["code"] == "unavailable"
    again = ask(nodes[1])
    assert again.read() == "echo: Hi"
    assert not again.is_replay
    assert sorted(UsageEvent.objects.values_list("status", flat=True)) == ["abandoned", "completed"]


@on_postgresql
def test_the_rest_comes_from_the_database_if_the_process_is_silent(
    nodes: list[Server], upstream: OpenAIDouble, ask: Ask
) -> None:
    """Its process is stopped, as one whose network is gone, and the turn is complete all the same."""
    told = Stepped("one two three")
    upstream.plan(told)
    told.permits.release(2)
    ask(nodes[0]).read_until("one two")
    joined = ask(nodes[1])
    joined.read_until("one two")
    (worker,) = children_of(nodes[0].process.pid)
    os.kill(worker, signal.SIGSTOP)
    message = {"role": "assistant", "content": "one two three", "refusal": None}
    head = joined.events[0]
    answer = {
        **{name: head[name] for name in ("id", "created", "model", "request_id", "conversation_id")},
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"total_tokens": 7},
    }
    IdempotencyKey.objects.update(response_json=json.dumps(answer))

    assert joined.read() == "one two three"
    assert joined.events[-2]["choices"][0]["finish_reason"] == "stop"
    assert joined.events[-1]["usage"] == {"total_tokens": 7}


@on_postgresql
def test_a_stop_sends_the_end_to_those_who_joined(nodes: list[Server], upstream: OpenAIDouble, ask: Ask) -> None:
    told = Stepped("one two")
    upstream.plan(told)
    told.permits.release(1)
    first, joined = ask(nodes[0]), ask(nodes[1])
    joined.read_until("one")
    nodes[0].process.terminate()
    told.permits.release(2)

    assert joined.read() == first.read() == "one two"
    assert joined.events == first.events
    assert nodes[0].process.wait(30) == 0


@pytest.mark.usefixtures("transactional_db")
def test_where_nothing_is_heard_a_duplicate_waits(upstream: OpenAIDouble, ask: Ask) -> None:
    """On SQLite, and behind a pooler that swallows what LISTEN is for."""
    told = Stepped("one two")
    upstream.plan(told)
    told.permits.release(1)
    deaf = {
        "config": "chat/tests/deaf_server.py",
        "WEB_CONCURRENCY": "1",
        "IDEMPOTENCY_WAIT_SECONDS": "1",
        "UPSTREAM_TIMEOUT_SECONDS": "60",
    }
    with running_server(upstream, **deaf) as here, running_server(upstream, **deaf) as there:
        first = ask(here)
        first.read_until("one")

        status, headers, body = there.post(URL, HI, "k")

        assert (status, headers["Retry-After"]) == (409, "1")
        assert json.loads(body)["error"]["code"] == "idempotency_in_progress"
        told.permits.release(2)
        assert first.read() == "one two"
        assert ask(there).read() == "one two"
    assert not Message.objects.exists()


def test_frames_that_are_lost_or_doubled_are_noticed(alice: ApiClient) -> None:
    """A hundred replies over a line that loses, doubles and delays frames arrive as they were sent."""
    dice = random.Random(5)  # noqa: S311
    for _ in range(100):
        log = ReplyLog()
        publication = Publication("r_1", log)
        remote = RemoteLog(Idempotency(alice.token_row, "k", "h"), "r_1")
        chunks = [{"n": n, "text": dice.choice("aé€😀\n") * dice.randint(0, 3000)} for n in range(dice.randint(0, 9))]
        waiting = list(chunks)
        while not remote.is_closed:
            if waiting:
                log.append(waiting.pop(0))
            elif not log.since(0)[1]:
                log.close(usage={"total": 1})
            # What has not been answered for long is asked anew.
            remote.resume()
            if (asked := remote.question()) and dice.random() < 0.8:
                publication.subscribe("c", *map(int, asked.split()))
            publication.gather()
            frames = [payload for _, payload in publication.frames() if dice.random() < 0.7]
            publication.mark_sent()
            for payload in dice.sample(frames, len(frames)) + frames[:1]:
                assert len(payload.encode()) < 8000
                _, offset, data = payload.split(" ", 2)
                remote.receive(int(offset), data.encode())

        assert [json.loads(chunk) for fresh in remote.read() for chunk in fresh] == chunks
        assert remote.usage == b'{"total":1}'


def test_an_error_arrives_as_it_was_raised(alice: ApiClient) -> None:
    log = ReplyLog()
    publication = Publication("r_1", log)
    publication.subscribe("c", 1, 0)
    log.close(error=Unavailable("Later.", param="model"))
    publication.gather()
    remote = RemoteLog(Idempotency(alice.token_row, "k", "h"), "r_1")

    for _, payload in publication.frames():
        remote.receive(int(payload.split(" ")[1]), payload.split(" ", 2)[2].encode())
    with pytest.raises(Exception) as raised:
        list(remote.read())

    error: Any = raised.value
    assert (error.status_code, error.default_code, str(error.detail)) == (503, "unavailable", "Later.")
    assert (error.param, error.retry_after) == ("model", 1)


def test_a_reader_that_comes_back_asks_anew(alice: ApiClient) -> None:
    """Else the process that runs the stream would take it for the one that has left, which has read everything."""
    idempotency = Idempotency(alice.token_row, "k", "hash")
    log = ReplyLog(idempotency)
    log.append({"choices": []})
    publication = Publication("r_1", log)

    sent = []
    for _ in range(2):
        question = RemoteLog(idempotency, "r_1").question()
        assert question
        attempt, position = question.split()
        publication.subscribe("channel", int(attempt), int(position))
        sent.append([frame for _, frame in publication.frames()])
        publication.mark_sent()

    assert sent[0] == sent[1] != []


@on_postgresql
def test_a_message_that_is_none_of_ours_ends_nothing(nodes: list[Server], upstream: OpenAIDouble, ask: Ask) -> None:
    upstream.plan(behaviour := Stepped("one two three"))
    first = threading.Thread(target=lambda: ask(nodes[0]).read())
    first.start()
    wait_until(lambda: len(upstream.requests) == 1)
    behaviour.permits.release(1)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify('llmapi_streams', 'what'), pg_notify('llmapi_streams', '1 2 3 4 5 6')")

    joined = ask(nodes[1])
    behaviour.permits.release(9)

    assert joined.read() == "one two three"
    first.join()
