"""What happens when there is too much to do, too little to do it with, or an end to it."""

import http.client
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from bench.stack import children_of
from chat.models import IdempotencyKey, Message
from conftest import Server, wait_until

Serve = Callable[..., Server]
URL = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "Hi"}]}


def test_past_what_a_process_can_hold_it_says_so(serve: Serve, upstream: OpenAIDouble) -> None:
    server = serve(MAX_RUNNING_TURNS="2", WEB_CONCURRENCY="1")
    gate = threading.Event()
    upstream.default = Behaviour(gate=gate)
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(server.post, URL, HI) for _ in range(2)]
        wait_until(lambda: len(upstream.requests) == 2)

        status, headers, body = server.post(URL, HI)
        gate.set()
        assert [turn.result()[0] for turn in running] == [200, 200]

    assert status == 503
    assert headers["Retry-After"] == "1"
    assert json.loads(body)["error"]["code"] == "unavailable"
    assert server.post(URL, HI)[0] == 200
    assert UsageEvent.objects.count() == 3


def test_a_database_that_is_away_is_an_error_at_once(serve: Serve, port: int) -> None:
    """Two rounds of requests that waited ten seconds each for a connection would take twenty."""
    away = f"postgres://127.0.0.1:{port}/nothing"
    server = serve(probe="/health", DATABASE_URL=away, WEB_CONCURRENCY="1")
    began = time.monotonic()

    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: server.post(URL, HI), range(80)))

    assert time.monotonic() - began < 15
    assert Counter(status for status, _, _ in answers) == {503: 80}
    assert {headers["Retry-After"] for _, headers, _ in answers} == {"1"}
    assert {json.loads(body)["error"]["code"] for _, _, body in answers} == {"unavailable"}


def test_a_process_holds_no_more_turns_than_it_may(serve: Serve, upstream: OpenAIDouble) -> None:
    server = serve(MAX_RUNNING_TURNS="5", WEB_CONCURRENCY="1", RATE_LIMIT_PER_MIN="0")
    gate = threading.Event()
    upstream.default = Behaviour(gate=gate)
    with ThreadPoolExecutor(40) as pool:
        pending = [pool.submit(server.post, URL, {**HI, "stream": n % 2 == 0}) for n in range(40)]
        wait_until(lambda: sum(answer.done() for answer in pending) + len(upstream.requests) == 40)
        gate.set()
        statuses = Counter(answer.result()[0] for answer in pending)

    assert statuses == {200: 5, 503: 35}


def refuses_connections(server: Server) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(server.url.rpartition(":")[2]))) != 0


def test_a_stop_lets_turns_end(serve: Serve, upstream: OpenAIDouble) -> None:
    server = serve(WEB_CONCURRENCY="1")
    gate = threading.Event()
    upstream.default = Behaviour(text="one two three four five", gate=gate)
    with ThreadPoolExecutor(2) as pool:
        turns = [pool.submit(server.post, URL, {**HI, "stream": is_stream}) for is_stream in (False, True)]
        wait_until(lambda: len(upstream.requests) == 2)
        server.process.terminate()
        wait_until(lambda: refuses_connections(server))
        gate.set()
        answers = [turn.result() for turn in turns]

    assert [status for status, _, _ in answers] == [200, 200]
    assert all(b"five" in body for _, _, body in answers)
    assert server.process.wait(30) == 0
    assert [row.status for row in UsageEvent.objects.all()] == ["completed", "completed"]


def test_a_stop_settles_what_does_not_end_in_time(serve: Serve, upstream: OpenAIDouble) -> None:
    """A plain turn, a streamed one, and one whose client has gone."""
    server = serve(WEB_CONCURRENCY="1", GUNICORN_CMD_ARGS="--graceful-timeout 4")
    conversation_id = server.conversation()

    def ask(user: str, *, is_stream: bool) -> dict[str, Any]:
        return {"conversation_id": conversation_id, "message": "Hi", "stream": is_stream, "user": user}

    hanging = Behaviour(text="one two three", stop_after=1, ending="hang")
    upstream.choose = lambda body: hanging if body.get("stream") else Behaviour(delay=30)
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    connection.request("POST", URL, json.dumps(ask("gone", is_stream=True)), headers)
    connection.getresponse().readline()
    connection.close()
    with ThreadPoolExecutor(2) as pool:
        plain = pool.submit(server.post, URL, ask("plain", is_stream=False), "plain")
        streamed = pool.submit(server.post, URL, ask("streamed", is_stream=True), "streamed")
        wait_until(lambda: len(upstream.requests) == 3)
        server.process.terminate()

        status, headers, body = plain.result()
        events = streamed.result()[2]

    assert (status, headers["Retry-After"], json.loads(body)["error"]["code"]) == (503, "1", "unavailable")
    assert json.loads(events.split(b"data: ")[-2])["error"]["code"] == "unavailable"
    server.process.wait(30)
    rows = {row.user_id: row for row in UsageEvent.objects.all()}
    assert rows.keys() == {"plain", "streamed", "gone"}
    for row in rows.values():
        assert (row.status, row.error_code, row.is_estimated) == ("failed", "unavailable", True)
        assert row.prompt_tokens > 0
    assert {user for user, row in rows.items() if row.completion_tokens} == {"streamed", "gone"}
    assert not IdempotencyKey.objects.exists()
    assert not Message.objects.exists()


def test_a_rolling_restart_under_load_loses_nothing(serve: Serve, upstream: OpenAIDouble) -> None:
    """Both workers are replaced (SIGHUP) while 20 clients talk: each message is answered at its first try."""
    server = serve(WEB_CONCURRENCY="2", RATE_LIMIT_PER_MIN="0")
    upstream.default = Behaviour(delay=0.2)
    stopped = threading.Event()

    def talk(number: int) -> list[int]:
        statuses = []
        while not stopped.is_set():
            body = {"messages": [{"role": "user", "content": str(number)}], "stream": number % 2 == 0}
            statuses.append(server.post(URL, body)[0])
        return statuses

    with ThreadPoolExecutor(20) as pool:
        talking = [pool.submit(talk, number) for number in range(20)]
        wait_until(lambda: len(upstream.requests) > 40)
        before = set(children_of(server.process.pid))
        os.kill(server.process.pid, signal.SIGHUP)
        wait_until(lambda: not before & set(children_of(server.process.pid)))
        stopped.set()
        statuses = Counter(status for turn in talking for status in turn.result())

    assert statuses.keys() == {200}
    wait_until(lambda: not UsageEvent.objects.pending().exists())
    assert UsageEvent.objects.filter(status="completed").count() == statuses[200] == len(upstream.sold)
