"""More turns than a process can hold, and a database that is away: a 503 at once."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from conftest import Server, wait_until

Serve = Callable[..., Server]
URL = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "Hi"}]}


def refuses_connections(server: Server) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(server.url.rpartition(":")[2]))) != 0


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
        answers = [answer.result() for answer in pending]

    assert Counter(status for status, _, _ in answers) == {200: 5, 503: 35}
    refused = [(headers["Retry-After"], json.loads(body)["error"]["code"]) for s, headers, body in answers if s == 503]
    assert set(refused) == {("1", "unavailable")}
    assert server.post(URL, HI)[0] == 200
    assert UsageEvent.objects.count() == 6
