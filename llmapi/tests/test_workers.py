"""The master loads the application and forks the workers: what they share, and what becomes of one that ends."""

import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.db import connection
from pytest_django import DjangoDbBlocker

from bench.openai_double import Behaviour, OpenAIDouble
from bench.stack import children_of
from conftest import Server, running_server, wait_until

URL = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def two_workers(django_db_setup: None, django_db_blocker: DjangoDbBlocker, double: OpenAIDouble) -> Iterator[Server]:
    with running_server(double, "chat/tests/shared_server.py", WEB_CONCURRENCY="2") as server:
        yield server
    with django_db_blocker.unblock():
        # The last connection that closes removes SQLite's log, which a killed server leaves.
        connection.ensure_connection()


@pytest.fixture
def server(transactional_db: None, upstream: OpenAIDouble, two_workers: Server) -> Server:
    """The workers of the test before have gone, and others are there."""
    return two_workers


def memory_kb(pid: int, kind: str) -> int:
    (found,) = re.findall(rf"^{kind}: +(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found)


def replaced(server: Server, old: list[int]) -> bool:
    """Tell whether two workers run, and none of the `old` ones."""
    workers = children_of(server.process.pid)
    return len(workers) == 2 and not set(workers) & set(old)


def test_workers_share_most_of_their_memory(server: Server) -> None:
    for worker in children_of(server.process.pid):
        assert memory_kb(worker, "Shared_Dirty") > memory_kb(worker, "Private_Dirty")


def test_large_bodies_leave_nothing_behind(server: Server) -> None:
    """Django and DRF keep a body in cycles that are rarely looked through, and glibc keeps what was freed."""
    workers = children_of(server.process.pid)
    before = sum(memory_kb(worker, "Private_Dirty") for worker in workers)
    body = {"messages": [{"role": "user", "content": "x" * 19_000_000}]}

    with ThreadPoolExecutor(2) as pool:
        assert {answer[0] for answer in pool.map(lambda _: server.post(URL, body), range(12))} == {400}

    # Of each of them one body or more would be left.
    after = sum(memory_kb(worker, "Private_Dirty") for worker in workers)
    assert after - before < 40_000


def test_a_killed_worker_is_replaced(server: Server) -> None:
    killed = children_of(server.process.pid)

    for worker in killed:
        os.kill(worker, signal.SIGKILL)

    wait_until(lambda: replaced(server, killed))
    assert server.post(URL, HI)[0] == 200


def test_a_reload_lets_turns_end(server: Server, upstream: OpenAIDouble) -> None:
    old = children_of(server.process.pid)
    gate = threading.Event()
    upstream.default = Behaviour(text="one two three", gate=gate)
    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(server.post, URL, HI)
        wait_until(lambda: len(upstream.requests) == 1)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(set(children_of(server.process.pid)) - set(old)) == 2)
        gate.set()

        assert turn.result()[0] == 200

    wait_until(lambda: replaced(server, old))
