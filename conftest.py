"""What every test has: an upstream double, two clients, and real servers."""

import contextlib
import gc
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
import time_machine
from django.conf import settings
from django.core.signals import setting_changed
from django.db import connection, transaction
from django.db.models.functions import Now
from django.dispatch import receiver
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from bench.openai_double import OpenAIDouble
from llmapi.launch import ROOT, wait_for


@pytest.fixture(scope="session")
def double() -> Iterator[OpenAIDouble]:
    """One address for the model's provider, which the process and the shared server talk to all the time."""
    with OpenAIDouble() as double:
        settings.OPENAI_BASE_URL = double.url
        renew_client("OPENAI_BASE_URL")  # a test without the double may have made the client
        yield double


@pytest.fixture
def upstream(double: OpenAIDouble) -> OpenAIDouble:
    """The model's provider as the test finds it: nothing planned, nothing asked, and nothing learnt about it."""
    from chat.upstream import compatibility

    compatibility._known.clear()
    return OpenAIDouble(after=double)


@receiver(setting_changed)
def renew_client(setting: str, **kwargs: Any) -> None:
    """Let the client of the provider follow the settings that it was made with."""
    from chat.upstream.client import client

    if setting in {"OPENAI_API_KEY", "OPENAI_BASE_URL", "UPSTREAM_TIMEOUT_SECONDS"} and client.cache_info().currsize:
        client().close()
        client.cache_clear()


class ApiClient(Client):
    """Django's test client, speaking JSON with a client token."""

    def __init__(self, name: str) -> None:
        from chat.models import ClientToken

        self.token_row = ClientToken(name=name)
        self.token = self.token_row.renew()
        self.token_row.save()
        # Tests see the 500 that a client would see.
        super().__init__(headers={"authorization": f"Bearer {self.token}"}, raise_request_exception=False)

    def send(self, path: str, body: Any, key: str | None = None, **headers: str) -> Any:
        if key is not None:
            headers["Idempotency-Key"] = key
        data = body if isinstance(body, str | bytes) else json.dumps(body)
        return self.post(path, data, content_type="application/json", headers=headers)

    def conversation(self) -> str:
        answer = self.send("/v1/conversations", {})
        assert answer.status_code == 201, answer.content
        conversation_id: str = answer.json()["id"]
        return conversation_id

    def say(self, conversation_id: str, message: str, key: str | None = None, **fields: Any) -> Any:
        body = {"conversation_id": conversation_id, "message": message, **fields}
        return self.send("/v1/chat/completions", body, key)


@contextlib.contextmanager
def kept_rows(blocker: DjangoDbBlocker) -> Iterator[None]:
    """Keep what a fixture of a module writes for each test of it: their own transactions are inside this one.

    Not for a module whose tests commit (`transactional_db`): they would commit into it, and empty its tables.
    """
    with blocker.unblock(), transaction.atomic():
        yield
        transaction.set_rollback(True)


# The instant at which tests with `noon` begin: noon of the Monday that `sample_week` calls today.
NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)


def now_sql(*args: Any, **kwargs: Any) -> tuple[str, list[Any]]:
    """What `Now()` compiles to in tests with `noon`. SQLite keeps milliseconds of it there too."""
    now = timezone.now().astimezone(UTC)
    if connection.vendor == "postgresql":
        return f"'{now.isoformat()}'::timestamptz", []
    return f"'{now.strftime('%Y-%m-%d %H:%M:%S.%f')[:-3]}'", []


@pytest.fixture(scope="module")
def noon() -> Iterator[None]:
    """Begin the module at NOON, for Python and for `Now()` in SQL, so that no result depends on the hour.

    Not for a module whose tests talk to a server: that process has the clock of the machine.
    """
    with pytest.MonkeyPatch.context() as patch, time_machine.travel(NOON):
        patch.setattr(Now, f"as_{connection.vendor}", now_sql)
        yield


@pytest.fixture
def alice(db: None) -> ApiClient:
    return ApiClient("alice")


@pytest.fixture
def bob(db: None) -> ApiClient:
    return ApiClient("bob")


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`set_clock(at)` stops the clocks of the database and of this process, which `node` may set to another time."""

    def set_to(at: datetime, *, node: datetime | None = None) -> None:
        def as_sql(*args: Any, **kwargs: Any) -> tuple[str, list[Any]]:
            value = str(connection.ops.adapt_datetimefield_value(at))
            return (f"'{value}'::timestamptz" if connection.vendor == "postgresql" else f"'{value}'"), []

        monkeypatch.setattr(Now, f"as_{connection.vendor}", as_sql)
        monkeypatch.setattr(timezone, "now", lambda: node or at)

    return set_to


# What migrations write: tests change none of it, so it need not be made anew after each.
MADE_BY_MIGRATIONS = {"django_content_type", "auth_permission", "django_migrations"}


@pytest.fixture(scope="session", autouse=True)
def quick_flush() -> Iterator[None]:
    """Empty the tables after a test that commits by DELETE, because few have rows: TRUNCATE writes all of them anew."""
    from django.core.management.commands import flush

    tables: list[str] = []

    def sql_flush(style: Any, connection: Any, **options: Any) -> list[str]:
        if not tables:
            names = connection.introspection.django_table_names(only_existing=True)
            tables.extend(connection.ops.quote_name(name) for name in names if name not in MADE_BY_MIGRATIONS)
        return [f"DELETE FROM {table}" for table in tables]  # noqa: S608

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flush, "sql_flush", sql_flush)
        patch.setattr(flush, "emit_post_migrate_signal", lambda *args, **kwargs: None)
        yield


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """Hold a connection to SQLite while tests run, as gunicorn.conf.py does for its processes.

    The last connection that closes writes SQLite's log back and deletes it, and a request closes several.
    """
    with contextlib.ExitStack() as stack:
        if connection.vendor == "sqlite":
            held = stack.enter_context(contextlib.closing(sqlite3.connect(connection.settings_dict["NAME"])))
            held.execute("SELECT count(*) FROM sqlite_master").fetchone()
        yield


@pytest.fixture(scope="session", autouse=True)
def static_files_found_once() -> Iterator[None]:
    """Look for the static files once: each client of a test loads the middleware, which looks at all of them."""
    from whitenoise.middleware import WhiteNoiseMiddleware  # type: ignore[import-untyped]

    find = WhiteNoiseMiddleware.add_files_from_finders
    found: dict[str, dict[str, Any]] = {}

    def add_files(self: WhiteNoiseMiddleware) -> None:
        if self.static_prefix not in found:
            find(self)
            found[self.static_prefix] = self.files
        self.files = found[self.static_prefix]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WhiteNoiseMiddleware, "add_files_from_finders", add_files)
        yield


@pytest.fixture(autouse=True)
def _no_refusals_are_left() -> None:
    """Refusals are counted in the memory of this process, which tests share."""
    from analytics.ledger import refusals

    refusals._counted.clear()


@pytest.fixture(autouse=True)
def _what_is_taken_is_given_back() -> Iterator[None]:
    """A request that is under way after its test counts in the next one: a stream that nobody reads or closes."""
    from chat.api import sharing

    yield
    wait_until(lambda: not sharing.requests.taken, seconds=5)


@pytest.fixture(autouse=True)
def patient_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let readers build every day that is missing, however slow the machine."""
    monkeypatch.setattr("analytics.rollups.coverage.READER_SECONDS", 60)


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.01)


@contextlib.contextmanager
def reserved_port(wanted: int = 0) -> Iterator[int]:
    """Hold a free port, or the one that is wanted, so that nobody else is given it before our server has it.

    It is bound and not listened on: another socket with SO_REUSEADDR, as all servers set it, may listen there.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", wanted))
        port: int = holder.getsockname()[1]
        yield port


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


@dataclass
class Server:
    """A gunicorn on the database of the test."""

    url: str
    token: str
    process: subprocess.Popen[bytes]

    def post(self, path: str, body: Any, key: str | None = None) -> tuple[int, dict[str, str], bytes]:
        """On a new connection, so that the kernel deals requests to all processes."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        if key:
            headers["Idempotency-Key"] = key
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, dict(answer.headers.items()), answer.read()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, dict(exc.headers.items()), exc.read()

    def conversation(self) -> str:
        status, _, body = self.post("/v1/conversations", {})
        assert status == 201
        conversation_id: str = json.loads(body)["id"]
        return conversation_id


def environment(upstream: OpenAIDouble, **settings: str) -> dict[str, str]:
    """What a server process is told: the test's database, and the double for OpenAI."""
    database = connection.settings_dict
    url = f"sqlite:///{database['NAME']}"
    if connection.vendor == "postgresql":
        login = ":".join(quote(part, safe="") for part in (database["USER"], database["PASSWORD"]) if part)
        host = f"{database['HOST'] or '127.0.0.1'}:{database['PORT'] or 5432}"
        url = f"postgres://{login}{'@' if login else ''}{host}/{database['NAME']}"
    return {
        # The tests' own settings module is theirs alone.
        **{name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"},
        "DATABASE_URL": url,
        "OPENAI_BASE_URL": upstream.url,
        "IDEMPOTENCY_WAIT_SECONDS": "20",
        **settings,
    }


@contextlib.contextmanager
def running_server(
    upstream: OpenAIDouble,
    config: str = "gunicorn.conf.py",
    probe: str = "/ready",
    output: Any = None,
    **settings: str,
) -> Iterator[Server]:
    """Start a server, wait until it is ready, and kill it in the end: it has nothing to save once its test is over.

    `output`: a file that takes all that it prints.
    """
    with reserved_port(int(settings.pop("PORT", "0"))) as port:
        env = environment(upstream, PORT=str(port), **settings)
        command = [sys.executable, "-m", "gunicorn", "-c", config]
        ended, inherited = os.pipe()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            start_new_session=True,
            pass_fds=[inherited],
            stdout=output,
            stderr=output,
        )
        os.close(inherited)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(url + probe, process, "The server did not start.")
            yield Server(url, env["CLIENT_API_TOKEN"], process)
        finally:
            with contextlib.suppress(ProcessLookupError):  # the test has ended it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.read(ended, 1)  # returns when the last process of the group has closed its end
            os.close(ended)


@pytest.fixture
def serve(transactional_db: None, upstream: OpenAIDouble) -> Iterator[Callable[..., Server]]:
    """`serve(WEB_CONCURRENCY="2")` starts a server of the test's own with these settings."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(running_server(upstream, **settings))


@pytest.fixture(scope="session")
def shared_server(django_db_setup: None, django_db_blocker: DjangoDbBlocker, double: OpenAIDouble) -> Iterator[Server]:
    with running_server(double, "chat/tests/shared_server.py", WEB_CONCURRENCY="2") as server:
        yield server
    with django_db_blocker.unblock():
        # The last connection that closes removes SQLite's log, which a killed server leaves.
        connection.ensure_connection()


@pytest.fixture
def server(transactional_db: None, upstream: OpenAIDouble, shared_server: Server) -> Iterator[Server]:
    """A server of two processes that tests share, for all that hold with the default settings.

    Its client's row is there, so that a test may set the client's limits.
    """
    from analytics.models import UsageEvent
    from chat.models import ClientToken

    ClientToken.objects.create(name="CLIENT_API_TOKEN", is_setting=True)
    yield shared_server
    # A turn whose client has gone is settled all the same, and not in the next test.
    wait_until(lambda: not UsageEvent.objects.pending().exists())


def pytest_collection_finish() -> None:
    """Keep the garbage collector away from what is loaded by now: it takes a tenth of the processor's time of a run."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores: many tests wait for a server or for a thread."""
    return (os.cpu_count() or 1) + 1
