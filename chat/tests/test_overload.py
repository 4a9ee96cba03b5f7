"""What happens when there is too much to do, too little to do it with, or an end to it."""

import http.client
import json
import os
import signal
import threading
import time
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
from llmapi.launch import free_port

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


def test_a_database_that_is_away_is_an_error_at_once(serve: Serve, upstream: OpenAIDouble) -> None:
    """Two rounds of requests that waited ten seconds each for a connection would take twenty."""
    away = f"postgres://127.0.0.1:{free_port()}/nothing"
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


def test_a_stop_settles_a_stream_whose_client_has_gone(serve: Serve, upstream: OpenAIDouble) -> None:
    server = serve(WEB_CONCURRENCY="1", GUNICORN_CMD_ARGS="--graceful-timeout 8")
    upstream.default = Behaviour(text="one two three", stop_after=1, ending="hang")
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    connection.request("POST", URL, json.dumps({**HI, "stream": True}), headers)
    connection.getresponse().readline()
    connection.close()

    server.process.terminate()
    server.process.wait(30)

    row = UsageEvent.objects.get()
    assert (row.status, row.error_code) == ("failed", "unavailable")
    assert row.total_tokens > 0


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_stop_lets_turns_end(serve: Serve, upstream: OpenAIDouble, is_stream: bool) -> None:
    server = serve(WEB_CONCURRENCY="1")
    upstream.default = Behaviour(text="one two three four five", delay=1, pause=0.3)
    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(server.post, URL, {**HI, "stream": is_stream})
        wait_until(lambda: len(upstream.requests) == 1)
        server.process.terminate()

        status, _, body = turn.result()

    assert status == 200
    assert b"five" in body
    assert server.process.wait(30) == 0
    assert UsageEvent.objects.get().status == "completed"


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_stop_settles_what_does_not_end_in_time(serve: Serve, upstream: OpenAIDouble, is_stream: bool) -> None:
    server = serve(WEB_CONCURRENCY="1", GUNICORN_CMD_ARGS="--graceful-timeout 4")
    conversation_id = json.loads(server.post("/v1/conversations", {})[2])["id"]
    body = {"conversation_id": conversation_id, "message": "Hi", "stream": is_stream}
    upstream.default = Behaviour(stop_after=1, ending="hang") if is_stream else Behaviour(delay=30)
    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(server.post, URL, body, "k")
        wait_until(lambda: len(upstream.requests) == 1)
        server.process.terminate()

        status, headers, answer = turn.result()

    said: Any = json.loads(answer.split(b"data: ")[-2]) if is_stream else json.loads(answer)
    assert said["error"]["code"] == "unavailable"
    if not is_stream:
        assert status == 503
        assert headers["Retry-After"] == "1"
    server.process.wait(30)
    row = UsageEvent.objects.get()
    assert (row.status, row.error_code, row.is_estimated) == ("failed", "unavailable", True)
    assert row.prompt_tokens > 0
    assert (row.completion_tokens > 0) == is_stream
    assert not IdempotencyKey.objects.exists()
    assert not Message.objects.exists()


def test_a_rolling_restart_under_load_loses_nothing(serve: Serve, upstream: OpenAIDouble) -> None:
    """Workers are replaced one by one (SIGHUP) while 20 clients talk: each message is answered at its first try."""
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
        for _ in range(2):
            upstream.requests.clear()
            wait_until(lambda: len(upstream.requests) > 40)
            before = set(children_of(server.process.pid))
            os.kill(server.process.pid, signal.SIGHUP)
            wait_until(lambda old=before: not old & set(children_of(server.process.pid)))  # type: ignore[misc]
        stopped.set()
        statuses = Counter(status for turn in talking for status in turn.result())

    assert statuses.keys() == {200}
    wait_until(lambda: not UsageEvent.objects.pending().exists())
    assert UsageEvent.objects.filter(status="completed").count() == statuses[200] == len(upstream.sold)
