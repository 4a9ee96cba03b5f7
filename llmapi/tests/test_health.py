"""What probes are told, and what the log says of a server that is not ready."""

import logging
import sqlite3
from typing import Any

import psycopg
import pytest
from django.db import IntegrityError, OperationalError
from django.test import Client
from django.utils import timezone

from analytics.causes import cause
from chat.models import Chore
from chat.upstream import contact
from llmapi import health
from llmapi.version import VERSION


@pytest.fixture(autouse=True)
def _nothing_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test begin as a process that has just started."""
    monkeypatch.setattr(health, "_written_at", float("-inf"))
    monkeypatch.setattr(contact, "_words", contact.NOT_ASKED)


@pytest.mark.parametrize("host", ["localhost", "10.0.0.7:8080", "[fd00::7]:8080", "chat.internal"])
def test_probes_may_name_any_host(client: Client, db: None, host: str) -> None:
    assert client.get("/health", headers={"host": host}).json() == {"status": "ok"}
    assert client.get("/ready", headers={"host": host}).json() == {"status": "ready"}
    assert client.get("/v1/models", headers={"host": host}).status_code == (401 if host == "localhost" else 400)


def test_ready_writes_a_row_once_a_second(client: Client, db: None, django_assert_num_queries: Any) -> None:
    client.get("/ready")
    before = Chore.objects.get(name=health.PROBE).due_at

    with django_assert_num_queries(1):
        assert client.get("/ready").status_code == 200

    assert Chore.objects.get(name=health.PROBE).due_at == before <= timezone.now()


@pytest.mark.parametrize("words", ["database or disk is full", "could not connect\nDETAIL: of a client"])
def test_a_database_that_cannot_be_written_is_not_ready(
    client: Client, db: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, words: str
) -> None:
    def fail(*args: Any, **fields: Any) -> None:
        raise OperationalError(words)

    monkeypatch.setattr("django.db.models.QuerySet.update", fail)
    with caplog.at_level(logging.WARNING):
        answer = client.get("/ready")

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    # Probes come every few seconds: one line each.
    own = [record.getMessage() for record in caplog.records if record.name != "django.request"]
    assert own == [f"not ready: OperationalError: {words.splitlines()[0]}"]
    assert "DETAIL" not in caplog.text


def test_a_database_that_lacks_migrations_names_them(client: Client, monkeypatch: pytest.MonkeyPatch, db: None) -> None:
    health.check_migrated.cache_clear()
    monkeypatch.setattr(health, "missing_migrations", lambda: ["a.1", "a.2", "b.1", "b.2", "b.3"])

    answer = client.get("/ready")

    assert answer.status_code == 503
    assert "(a.1, a.2, b.1 and 2 more); run manage.py migrate." in answer.json()["error"]["message"]


def test_verbose_tells_what_the_process_knows(client: Client, db: None) -> None:
    assert client.get("/ready").json() == {"status": "ready"}

    answer = client.get("/ready?verbose").json()

    assert answer["upstream"] == "The model's provider: not asked yet."
    assert answer["running_turns"] == 0
    assert answer["version"] == VERSION


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OperationalError("disk I/O error\nDETAIL: x"), "OperationalError: disk I/O error"),
        (sqlite3.OperationalError("database is locked"), "OperationalError: database is locked"),
        (psycopg.errors.ReadOnlySqlTransaction("cannot execute UPDATE"), "ReadOnlySqlTransaction"),
        (
            psycopg.errors.DiskFull("could not extend file: No space left"),
            "DiskFull: could not extend file: No space left",
        ),
        (OperationalError("a\x1b[31m"), "OperationalError: a [31m"),
        (OperationalError(""), "OperationalError"),
        (IntegrityError('duplicate key "what a client wrote"'), "IntegrityError"),
        (ValueError("what a client wrote"), "ValueError"),
    ],
)
def test_logs_have_the_databases_words_and_no_clients(error: Exception, said: str) -> None:
    assert cause(error) == said
