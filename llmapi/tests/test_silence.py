"""A database that says nothing: whoever waits for it is told so in time, and service resumes by itself."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection
from django.test import Client

from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from chat import postgres
from chat.database import CLIENT, COMMAND, JOB, LANE, PAGE, Patience, waiting_as
from chat.sql import Statement
from chat.tests.silent_proxy import SilentProxy
from chat.turns import connections, lanes
from conftest import Server, environment, wait_until
from llmapi.backends.postgresql.base import DatabaseWrapper
from llmapi.database import POOL_SECONDS

HI = {"messages": [{"role": "user", "content": "Hi"}]}
QUICK = Patience(lock=0.1, statement=0.2, silence=0.3)
POOL = {"min_size": 0, "max_size": 4, "timeout": POOL_SECONDS, "reconnect_timeout": 0}
MADE = ("/v1/conversations", "/v1/events")
SELECT = Statement("select_one", "SELECT 1 FROM {new}", {"n": "int"})
# What a client is promised, and what a slow machine adds.
PROMISED_SECONDS = 10


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/admin/", "/admin/login/", "/metrics", "/v1/conversations/c_1", "/ready"])
def test_a_page_without_a_database_is_a_503(staff: Client, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("The database does not answer.")

    staff.raise_request_exception = False
    monkeypatch.setattr(connection, "cursor", fail)
    answer = staff.get(path, headers={"authorization": "Bearer unknown"})

    assert answer.status_code == 503
    assert answer["Retry-After"] == "1"


@pytest.fixture
def proxy() -> Iterator[SilentProxy]:
    found = connection.settings_dict
    with closing(SilentProxy(found["HOST"] or "127.0.0.1", int(found["PORT"] or 5432))) as proxy:
        yield proxy


postgresql = pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite is no server")


@pytest.fixture
def pooled(proxy: SilentProxy, transactional_db: None) -> Iterator[DatabaseWrapper]:
    """Django's connection to the database through the proxy, with a pool of its own."""
    found = connection.settings_dict
    where = {"HOST": "127.0.0.1", "PORT": proxy.port, "OPTIONS": {**found["OPTIONS"], "pool": {**POOL}}}
    wrapper = DatabaseWrapper({**found, **where}, alias="silent")
    yield wrapper
    proxy.speaks.set()
    wrapper.close()
    wrapper.close_pool()


def ask(wrapper: Any, sql: str = "SELECT 1") -> Any:
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()


def seconds(wait: float | None) -> float:
    assert wait is not None
    return wait


def test_each_kind_of_work_is_told_within_the_promise() -> None:
    """A wait for the pool, and one for the server; or for a lane, and then for the pool."""
    for kind in (CLIENT, PAGE, LANE):
        assert 0 < seconds(kind.lock) < seconds(kind.statement) < seconds(kind.silence)
        assert seconds(kind.silence) < PROMISED_SECONDS - POOL_SECONDS
    assert seconds(LANE.silence) <= lanes.WAIT_SECONDS < PROMISED_SECONDS - POOL_SECONDS
    assert seconds(JOB.silence) > seconds(JOB.statement) > seconds(PAGE.silence)
    assert COMMAND.silence is None


@postgresql
def test_a_silent_statement_ends_and_the_next_connects_anew(proxy: SilentProxy, pooled: DatabaseWrapper) -> None:
    with waiting_as(QUICK):
        assert ask(pooled) == (1,)
        proxy.speaks.clear()
        with pytest.raises(OperationalError, match="does not answer"):
            ask(pooled)
        pooled.close()
        with pytest.raises(OperationalError):
            ask(pooled)
        proxy.speaks.set()

        wait_until(lambda: succeeds(pooled))
        assert ask(pooled) == (1,)


def succeeds(wrapper: DatabaseWrapper) -> bool:
    try:
        return bool(ask(wrapper))
    except OperationalError:
        return False


@postgresql
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_silent_end_of_a_transaction_ends_too(proxy: SilentProxy, pooled: DatabaseWrapper, end: str) -> None:
    with waiting_as(QUICK):
        pooled.set_autocommit(False)
        ask(pooled)
        proxy.speaks.clear()
        with pytest.raises(OperationalError, match="does not answer"):
            pooled.commit() if end == "COMMIT" else pooled.rollback()
        pooled.close()

    assert pooled.connection is None


@postgresql
def test_what_the_pool_holds_is_forgotten_with_the_first_that_is_silent(
    proxy: SilentProxy, pooled: DatabaseWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them would be waited for in its turn."""
    other = DatabaseWrapper(pooled.settings_dict, alias=pooled.alias)
    with waiting_as(QUICK):
        ask(pooled), ask(other)
        other.close()
        monkeypatch.setattr(postgres, "connections", SimpleNamespace(all=lambda: [pooled]))
        proxy.speaks.clear()
        with pytest.raises(OperationalError, match="does not answer"):
            ask(pooled)

    assert not pooled.pool._pool


@postgresql
def test_the_server_gives_up_what_is_only_slow(pooled: DatabaseWrapper) -> None:
    with waiting_as(QUICK):
        with pytest.raises(OperationalError, match="statement timeout"):
            ask(pooled, "SELECT pg_sleep(30)")
        assert ask(pooled) == (1,)


@postgresql
def test_a_connection_serves_work_of_another_kind(pooled: DatabaseWrapper) -> None:
    told = []
    for kind in (CLIENT, PAGE, JOB, COMMAND, CLIENT):
        with waiting_as(kind):
            told.append(ask(pooled, "SHOW statement_timeout")[0])
        pooled.close()

    assert told == ["4s", "7s", "1min", "0", "4s"]


@postgresql
def test_a_connection_closed_in_a_transaction_serves_work_of_another_kind(pooled: DatabaseWrapper) -> None:
    with waiting_as(CLIENT):
        pooled.set_autocommit(False)
        ask(pooled)
        pooled.close()
    with waiting_as(PAGE):
        assert ask(pooled) == (1,)
        assert pooled.get_autocommit()


@postgresql
def test_a_connection_that_was_ended_is_not_given_out(pooled: DatabaseWrapper) -> None:
    (pid,) = ask(pooled, "SELECT pg_backend_pid()")
    pooled.close()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    assert ask(pooled) == (1,)


@postgresql
@pytest.mark.parametrize("is_last", [True, False])
def test_a_silent_lane_says_whether_it_may_have_committed(
    proxy: SilentProxy, monkeypatch: pytest.MonkeyPatch, transactional_db: None, is_last: bool
) -> None:
    found = connection.settings_dict
    monkeypatch.setitem(found, "HOST", "127.0.0.1")
    monkeypatch.setitem(found, "PORT", proxy.port)
    monkeypatch.setattr(connections, "LANE", QUICK)
    session = connections.PostgreSQLSession("test")
    with session.transaction(is_atomic=True):
        session.run((SELECT, [{"n": 1}]))
    proxy.speaks.clear()

    with pytest.raises(psycopg.OperationalError, match="does not answer"), session.transaction(is_atomic=True):
        session.run((SELECT, [{"n": 1}]), is_last=is_last)

    assert (session.is_connected, session.is_in_doubt) == (False, is_last)
    proxy.speaks.set()
    with session.transaction(is_atomic=True):
        assert session.run((SELECT, [{"n": 1}])) == [[(1,)]]
    assert session._connection
    session._connection.close()


KINDS: dict[str, tuple[str, str, Any]] = {
    "turn": ("POST", "/v1/chat/completions", HI),
    "stream": ("POST", "/v1/chat/completions", {**HI, "stream": True}),
    "new conversation": ("POST", "/v1/conversations", {}),
    "conversation": ("GET", "/v1/conversations/c_1", None),
    "events": ("POST", "/v1/events", {"events": [{"name": "opened"}]}),
    "usage": ("GET", "/v1/usage", None),
    "models": ("GET", "/v1/models", None),
    "metrics": ("GET", "/metrics", None),
    "ready": ("GET", "/ready", None),
}


def timed(server: Server, method: str, path: str, body: Any) -> tuple[int, float]:
    began = time.monotonic()
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
            status = answer.status
    except urllib.error.HTTPError as exc:
        with exc:
            status = exc.code
    return status, time.monotonic() - began


@postgresql
def test_a_server_outlives_a_silent_database(
    serve: Callable[..., Server], upstream: OpenAIDouble, proxy: SilentProxy
) -> None:
    url = environment(upstream)["DATABASE_URL"].rpartition("/")[2]
    server = serve(
        DATABASE_URL=f"postgres://127.0.0.1:{proxy.port}/{url}",
        WEB_CONCURRENCY="1",
        RATE_LIMIT_PER_MIN="0",
        METRICS_PUBLIC="true",
    )
    for kind in KINDS.values():
        timed(server, *kind)
    gate = threading.Event()
    upstream.default = Behaviour(gate=gate)
    with ThreadPoolExecutor(200) as pool:
        paid = [pool.submit(timed, server, *KINDS[name]) for name in ("turn", "stream")]
        wait_until(lambda: len(upstream.requests) == 4)
        proxy.speaks.clear()
        gate.set()
        for _ in range(2):
            asked = [(name, pool.submit(timed, server, *kind)) for name, kind in KINDS.items() for _ in range(10)]
            found = [(name, *answer.result()) for name, answer in asked]
            assert {(name, status) for name, status, _ in found} == {(name, 503) for name in KINDS}
            assert max(seconds for _, _, seconds in found) < PROMISED_SECONDS
        assert not any(answer.done() for answer in paid)
        proxy.speaks.set()

        assert [answer.result()[0] for answer in paid] == [200, 200]
        wait_until(lambda: timed(server, *KINDS["turn"])[0] == 200)
    for name, kind in KINDS.items():
        assert timed(server, *kind)[0] == (404 if name == "conversation" else 201 if kind[1] in MADE else 200), name
    assert not UsageEvent.objects.pending().exists()
