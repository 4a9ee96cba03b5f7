"""SQLite: who waits for its one lock lets everybody else run, and its files are for their owner alone."""

import io
import os
import sqlite3
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, transaction

from bench.openai_double import OpenAIDouble
from chat import database
from chat.database import Patience, wait_for_lock, waiting_as
from chat.models import ClientToken, Conversation
from chat.sql import Statement
from chat.turns.connections import SQLiteSession
from conftest import Server
from llmapi.backends.sqlite3.base import DatabaseWrapper, keep_private
from llmapi.files import make_private
from llmapi.launch import ROOT

pytestmark = pytest.mark.skipif("connection.vendor != 'sqlite'", reason="of SQLite alone")
WRITE = Statement("touch", "UPDATE client_tokens SET name = name || new.n FROM {new}", {"n": "int"})
QUICK = Patience(lock=0.1, statement=None, silence=None)


@contextmanager
def locked() -> Iterator[sqlite3.Connection]:
    """Another process that writes."""
    with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each wait was told to sleep: a sleep is what lets other greenlets run."""
    told: list[float] = []
    monkeypatch.setattr("chat.database.time.sleep", told.append)
    return told


def write_alone() -> None:
    ClientToken.objects.update(name="new")


def write_in_a_transaction() -> None:
    with transaction.atomic():
        write_alone()


def admit() -> None:
    session = SQLiteSession()
    with session.transaction(is_atomic=False):
        session.run((WRITE, [{"n": 1}]))


def begin() -> None:
    with SQLiteSession().transaction(is_atomic=True):
        pass


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("write", [write_alone, write_in_a_transaction, admit, begin])
def test_each_wait_for_the_lock_sleeps(write: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    write()
    with locked() as other:
        looks = []

        def sleep(seconds: float) -> None:
            looks.append(seconds)
            if len(looks) == 20:
                other.execute("ROLLBACK")

        monkeypatch.setattr("chat.database.time.sleep", sleep)
        write()

    assert len(looks) == 20
    assert max(looks) == database.LONGEST_PAUSE_SECONDS


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("write", [write_alone, write_in_a_transaction])
def test_the_wait_for_the_lock_has_an_end(write: Callable[[], None]) -> None:
    with locked(), waiting_as(QUICK), pytest.raises(OperationalError, match="locked"):
        write()


def test_only_a_lock_that_may_be_free_soon_is_waited_for(pauses: list[float]) -> None:
    failures = iter([sqlite3.OperationalError("no such table")])

    def fail() -> None:
        raise next(failures)

    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        wait_for_lock(fail, 10)

    assert pauses == []


@pytest.mark.django_db(transaction=True)
def test_a_transaction_that_has_read_what_is_old_does_not_wait(pauses: list[float]) -> None:
    """Its snapshot stays old for as long as it waits."""
    connection.ensure_connection()
    connection.connection.execute("BEGIN")
    assert not Conversation.objects.exists()
    with closing(sqlite3.connect(connection.settings_dict["NAME"])) as other, other:
        other.execute("INSERT INTO client_tokens (name, digest) SELECT 'x', 'y' WHERE 0")
        other.execute("UPDATE django_content_type SET model = model")

    with pytest.raises(OperationalError, match="locked"):
        write_alone()
    connection.connection.execute("ROLLBACK")

    assert pauses == []


def test_others_run_while_writers_wait(serve: Callable[..., Server], upstream: OpenAIDouble) -> None:
    """The lock is free only after others were answered: if they waited too, the writers would be refused."""
    server = serve(RATE_LIMIT_PER_MIN="1000")
    server.conversation()
    with ThreadPoolExecutor(8) as pool:
        with locked() as other:
            writers = [pool.submit(server.post, "/v1/conversations", {}) for _ in range(4)]
            for _ in range(3):
                with urllib.request.urlopen(server.url + "/health", timeout=60) as answer:
                    assert answer.status == 200
            assert not any(writer.done() for writer in writers)
            other.execute("ROLLBACK")
        assert {writer.result()[0] for writer in writers} == {201}


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.fixture
def wrapper(tmp_path: Path, db: None) -> Iterator[Any]:
    keep_private.cache_clear()
    found = DatabaseWrapper({**connection.settings_dict, "NAME": str(tmp_path / "db.sqlite3")}, alias="private")
    before = os.umask(0)
    yield found
    os.umask(before)
    found.close()


def use(wrapper: Any) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS t (n)")


def test_a_new_database_is_for_its_owner_alone(wrapper: Any, tmp_path: Path) -> None:
    use(wrapper)

    assert modes(tmp_path) == dict.fromkeys(("db.sqlite3", "db.sqlite3-wal", "db.sqlite3-shm"), 0o600)


@pytest.mark.parametrize(("mode", "expected"), [(0o644, 0o600), (0o666, 0o600), (0o640, 0o640), (0o400, 0o400)])
def test_a_database_that_all_can_read_is_taken_from_them(
    wrapper: Any, tmp_path: Path, mode: int, expected: int
) -> None:
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"db.sqlite3{suffix}").touch(mode)
        (tmp_path / f"db.sqlite3{suffix}").chmod(mode)
    keep_private(str(tmp_path / "db.sqlite3"))

    assert set(modes(tmp_path).values()) == {expected}


@pytest.mark.parametrize(("mode", "expected"), [(0o644, 0o600), (0o640, 0o640), (0o600, 0o600)])
def test_the_settings_file_is_taken_from_all(tmp_path: Path, mode: int, expected: int) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("SECRET_KEY=of-a-test\n")
    env_file.chmod(mode)
    code = "import llmapi.settings"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "ENV_FILE": str(env_file)}, check=True)

    assert modes(tmp_path) == {".env": expected}


def test_a_device_is_left_alone() -> None:
    assert not make_private(os.devnull)


@pytest.mark.django_db
def test_an_export_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    call_command("export", "conversations", "--output", str(tmp_path / "rows.csv"), stdout=io.StringIO())
    os.umask(before)

    assert modes(tmp_path) == {"rows.csv": 0o600}
