"""manage.py backup and restore, really done: while a server goes on, into another database."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections
from pytest_django import Settings

from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from conftest import ApiClient, Server, environment, running_server, wait_until
from llmapi.backups import contents, postgresql
from llmapi.backups.contents import note_path
from llmapi.launch import ROOT
from llmapi.management.commands.restore import ENGINES

COMPLETIONS = "/v1/chat/completions"


@pytest.fixture
def elsewhere(upstream: OpenAIDouble, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database beside the test's own."""
    if connection.vendor != "postgresql":
        yield f"sqlite:///{tmp_path}/elsewhere.sqlite3"
        return
    url, name = environment(upstream)["DATABASE_URL"], f"elsewhere_{os.getpid()}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            yield f"{url.rpartition('/')[0]}/{name}"
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def manage(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "llmapi.settings", "DATABASE_URL": url}
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)


def rows(url: str, sql: str) -> list[Any]:
    """Ask the database that was restored."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
            found = database.execute(sql).fetchall()
            database.commit()
            return found
    with psycopg.connect(url) as session:
        cursor = session.execute(sql)
        return cursor.fetchall() if cursor.description else []


def talk(server: Server, heard: dict[str, bytes], name: str, is_over: threading.Event) -> None:
    """Say one thing after the other in a conversation, and keep each whole answer by its key."""
    conversation, number = server.conversation(), 0
    while not is_over.is_set():
        key = f"{name}-{number}"
        status, _, body = server.post(COMPLETIONS, {"conversation_id": conversation, "message": key}, key)
        assert status == 200
        heard[key] = body
        number += 1


def test_a_backup_while_turns_run_is_restored_elsewhere(
    server: Server, upstream: OpenAIDouble, elsewhere: str, tmp_path: Path
) -> None:
    heard: dict[str, bytes] = {}
    is_over, gate = threading.Event(), threading.Event()
    upstream.choose = lambda body: Behaviour(gate=gate) if body["messages"][-1]["content"] == "slow" else None
    slow = {"conversation_id": server.conversation(), "message": "slow"}
    path = tmp_path / "backup"
    with ThreadPoolExecutor(4) as pool:
        try:
            talks = [pool.submit(talk, server, heard, f"talk {number}", is_over) for number in range(3)]
            waiting = pool.submit(server.post, COMPLETIONS, slow, "slow")
            wait_until(
                lambda: len(heard) > 6 and UsageEvent.objects.filter(conversation_id=slow["conversation_id"]).exists()
            )
            before = dict(heard)
            call_command("backup", str(path), stdout=StringIO())
            wait_until(lambda: len(heard) > len(before) + 3)
        finally:
            is_over.set()
            gate.set()
    assert [talk.result() for talk in talks] == [None] * 3
    assert waiting.result()[0] == 200

    done = manage(elsewhere, "restore", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    rows(elsewhere, "DELETE FROM messages")
    again = manage(elsewhere, "restore", str(path), "--replace")
    assert (again.returncode, again.stderr) == (0, "")

    # Each completed turn has its messages, and what the provider sold; the one that ran is open.
    turns = dict(rows(elsewhere, "SELECT request_id, total_tokens FROM usage_events WHERE status = 'completed'"))
    assert turns == {name: sold["total_tokens"] for name, sold in upstream.sold_to.items() if name in turns}
    said = rows(elsewhere, "SELECT request_id, role FROM messages ORDER BY id")
    assert sorted(said) == sorted((name, role) for name in turns for role in ("user", "assistant"))
    assert {json.loads(body)["id"] for body in before.values()} <= set(turns)
    noted = json.loads(note_path(path).read_text())
    assert noted["ledger"]["total_tokens"] == sum(turns.values())
    pending = "SELECT count(*) FROM usage_events WHERE status = 'pending' AND conversation_id = '{conversation_id}'"
    assert rows(elsewhere, pending.format(**slow)) == [(1,)]

    # Its process does not renew its lease here, so that the reaper of a server closes it once the lease is over.
    rows(elsewhere, "UPDATE usage_events SET locked_until = '2026-01-01 00:00:00'")
    rows(elsewhere, "UPDATE idempotency_keys SET locked_until = '2026-01-01 00:00:00'")
    rows(elsewhere, "DELETE FROM chores")
    asked = len(upstream.requests)
    with running_server(upstream, DATABASE_URL=elsewhere, WEB_CONCURRENCY="1") as other:
        wait_until(lambda: rows(elsewhere, "SELECT 1 FROM usage_events WHERE status = 'pending'") == [])
        for key, body in before.items():
            conversation = json.loads(body)["conversation_id"]
            status, headers, answer = other.post(COMPLETIONS, {"conversation_id": conversation, "message": key}, key)
            assert (status, headers.get("Idempotent-Replayed"), answer) == (200, "true", body)
        assert len(upstream.requests) == asked
        status, headers, _ = other.post(COMPLETIONS, slow, "slow")
        assert (status, "Idempotent-Replayed" in headers) == (200, False)
        # Nobody restores over a server that runs.
        refused = manage(elsewhere, "restore", str(path), "--replace")
        assert (refused.returncode, "stop the server" in refused.stderr) == (1, True)


def backup(path: Path) -> str:
    out = StringIO()
    call_command("backup", str(path), stdout=out)
    return out.getvalue()


@pytest.fixture
def made(transactional_db: None, upstream: OpenAIDouble, tmp_path: Path) -> Path:
    """A backup of one turn."""
    alice = ApiClient("alice")
    alice.say(alice.conversation(), "Hi", key="k")
    path = tmp_path / "made"
    assert "with 1 conversations, 2 messages and 1 turns" in backup(path)
    return path


def test_a_backup_is_private_and_takes_no_files_place(made: Path) -> None:
    content = made.read_bytes()
    assert {oct(file.stat().st_mode & 0o777) for file in (made, note_path(made))} == {"0o600"}
    with pytest.raises(CommandError, match="is there already"):
        backup(made)
    made.unlink()
    with pytest.raises(CommandError, match=r"made\.json is there already"):
        backup(made)
    made.write_bytes(content)
    assert sorted(file.name for file in made.parent.iterdir()) == ["made", "made.json"]


def restore(path: Path, **options: Any) -> None:
    call_command("restore", str(path), stdout=StringIO(), stderr=StringIO(), **options)


def test_what_was_lost_on_the_way_is_said(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The restore itself does nothing here: the database of the test is as it was."""
    monkeypatch.setattr(ENGINES[connection.vendor], "restore", lambda path: None)
    restore(made, replace=True)
    note = note_path(made)
    noted = json.loads(note.read_text())
    noted["rows"]["messages"], noted["ledger"]["total_tokens"] = 3, noted["ledger"]["total_tokens"] + 1
    note.write_text(json.dumps(noted))

    with pytest.raises(CommandError, match="messages is 2, and was 3; total_tokens is"):
        restore(made, replace=True)


def test_the_database_of_the_test_is_not_empty(made: Path) -> None:
    with pytest.raises(CommandError, match="is not empty"):
        restore(made)


def test_a_damaged_backup_is_refused(made: Path) -> None:
    with open(made, "r+b") as file:
        file.seek(5000)
        file.write(b"\xff\x00\xff")
    with pytest.raises(CommandError, match="not as it was when it was made"):
        restore(made, replace=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"migrations": ["chat.0001_initial", "chat.9999_later"]}, r"of a later version \(chat\.9999_later\)"),
        ({"sha256": "0"}, "not as it was"),
    ],
)
def test_a_note_that_does_not_fit_is_refused(made: Path, change: dict[str, Any], said: str) -> None:
    note = note_path(made)
    note.write_text(json.dumps(json.loads(note.read_text()) | change))
    with pytest.raises(CommandError, match=said):
        restore(made, replace=True)
    note.write_text("{")
    with pytest.raises(CommandError, match="cannot be read; put back"):
        restore(made, replace=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"what is this", "is no backup"),
        (b"PGDMP" if connection.vendor == "sqlite" else b"SQLite format 3\0", "set DATABASE_URL to a database of"),
        (None, "No such file or directory"),
    ],
)
def test_another_file_is_refused(db: None, tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CommandError, match=said):
        restore(path)


def test_a_folder_that_cannot_be_written_is_said(db: None, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"cannot be written \(No such file or directory\)"):
        backup(tmp_path / "missing" / "backup")


class TestPostgresPrograms:
    """Without a server: what is run, and what is said where it cannot be."""

    @pytest.fixture(autouse=True)
    def _login(self, monkeypatch: pytest.MonkeyPatch) -> None:
        login = {"NAME": "chat", "USER": "llmapi", "PASSWORD": "geheim", "HOST": "db", "PORT": "5432", "OPTIONS": {}}
        monkeypatch.setattr(connections["default"], "settings_dict", {**connection.settings_dict, **login})

    def test_a_missing_program_says_what_to_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        with pytest.raises(contents.BackupError) as said:
            postgresql.run("pg_dump", "--file=b")
        assert str(said.value).endswith("pg_dump -U llmapi -h db -p 5432 --dbname=chat --file=b")
        assert "geheim" not in str(said.value)

    def test_the_password_is_in_no_argument(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        program = tmp_path / "pg_dump"
        program.write_text('#!/bin/sh\necho "arguments $* password $PGPASSWORD" >&2\nexit 1\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        with pytest.raises(contents.BackupError, match="--dbname=chat password geheim"):
            postgresql.run("pg_dump")

    def test_a_pooler_is_refused(self, settings: Settings) -> None:
        settings.PGBOUNCER = True
        with pytest.raises(contents.BackupError, match="PGBOUNCER=false"):
            postgresql.refuse_pooler()
