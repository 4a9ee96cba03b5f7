"""A server that is told to stop lets its turns end, and settles those that do not."""

import http.client
import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from bench.stack import children_of
from chat.models import IdempotencyKey, Message
from conftest import Server, wait_until

Serve = Callable[..., Server]
URL = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "Hi"}]}


def refuses_connections(server: Server) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(server.url.rpartition(":")[2]))) != 0


def test_a_stop_lets_turns_end(serve: Serve, upstream: OpenAIDouble, capfd: pytest.CaptureFixture[str]) -> None:
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
    assert "stops when 2 running replies have ended" in capfd.readouterr().err


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
