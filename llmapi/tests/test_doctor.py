"""manage.py doctor: each of its findings, and what it does where nothing answers."""

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.core.management import call_command
from django.db import OperationalError
from django.utils import timezone
from pytest_django import Settings

from analytics.ledger import partitions
from analytics.models import UsageEvent
from analytics.rollups import schedule
from chat.models import Budget, Chore, ClientToken
from llmapi import health
from llmapi.doctor import certificates, ending, reachable
from llmapi.doctor.findings import Finding

SECRET = "sk-geheim-geheim-geheim-geheim"


@pytest.fixture(autouse=True)
def _nothing_believed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(health, "_written_at", float("-inf"))
    monkeypatch.setenv("ENV_FILE", str(tmp_path / ".env"))


@pytest.fixture
def provider(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A provider that has a list of models."""

    def answer(session: socket.socket) -> None:
        session.recv(65536)
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\nConnection: close"
        session.sendall(f'{head}\r\n\r\n{{"data":[]}}'.encode())

    with listening(answer) as port:
        settings.OPENAI_BASE_URL = f"http://127.0.0.1:{port}/v1"
        yield


def doctor(*arguments: str) -> tuple[int, str]:
    out = StringIO()
    status: Any = 0
    try:
        call_command("doctor", *arguments, stdout=out)
    except SystemExit as stopped:
        status = stopped.code
    return status, out.getvalue()


def wrong() -> list[str]:
    return [line for line in doctor()[1].splitlines() if line.startswith("WRONG")]


def test_a_server_that_is_well(db: None, provider: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)

    status, printed = doctor()

    lines = printed.splitlines()
    assert "OPENAI_API_KEY" in lines[0]
    assert "can be read and written, and has all migrations" in lines[1]
    assert lines[2].startswith("ok     model's provider: it answers in ")
    assert (status, len(lines), SECRET in printed) == (0, 3, False)


def test_json_names_settings_and_no_value(
    db: None, provider: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY={SECRET}\nOPENAI_APIKEY={SECRET}\nHTTPS_PROXY=http://proxy\n")
    (tmp_path / ".env").chmod(0o604)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("OPENAI_MODELS", "a,b")
    monkeypatch.setenv("SYSTEM_PROMPT_FILE", "/run/secrets/prompt")

    status, printed = doctor("--json")

    report = json.loads(printed)
    sources = {name: report["configured"][name] for name in ("OPENAI_API_KEY", "OPENAI_MODELS", "SYSTEM_PROMPT")}
    assert sources == {"OPENAI_API_KEY": ".env", "OPENAI_MODELS": "environment", "SYSTEM_PROMPT": "file"}
    assert [(finding["what"], finding["todo"]) for finding in report["findings"] if not finding["ok"]] == [
        ("OPENAI_APIKEY in .env", "Call it OPENAI_API_KEY, if that is meant."),
        (".env", f"Run chmod 600 {tmp_path}/.env."),
    ]
    assert (status, report["ok"], SECRET in printed) == (1, False, False)


@pytest.mark.parametrize(("status", "is_fine"), [(401, False), (500, False), (404, True)])
def test_a_provider_that_refuses(db: None, settings: Settings, status: int, is_fine: bool) -> None:
    def answer(session: socket.socket) -> None:
        session.recv(65536)
        session.sendall(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    with listening(answer) as port:
        settings.OPENAI_BASE_URL = f"http://127.0.0.1:{port}/v1"
        (found,) = reachable.examine_provider()

    assert (found.is_fine, f"status {status}" in found.why) == (is_fine, True)
    assert "OPENAI_API_KEY" in found.todo or is_fine


def test_works_while_the_database_is_away(provider: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise OperationalError("connection refused\nIs it running?")

    monkeypatch.setattr(reachable, "database_version", fail)

    status, printed = doctor()

    assert status == 1
    assert "database: it cannot be read (OperationalError: connection refused). Check DATABASE_URL" in printed
    assert "ok     model's provider" in printed


def test_a_database_that_takes_no_writes(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OperationalError("database or disk is full")

    monkeypatch.setattr(health, "check_written", fail)
    (found,) = reachable.examine_database()
    assert (found.why, found.is_fine) == ("it cannot be written (OperationalError: database or disk is full)", False)


def test_a_database_that_lacks_migrations(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "missing_migrations", lambda: ["chat.0009"])
    (found,) = reachable.examine_database()
    assert (found.why, found.todo) == ("it lacks migrations (chat.0009)", "Run manage.py migrate.")


def test_unsafe_settings_are_those_of_the_start(db: None, provider: None, settings: Settings) -> None:
    settings.LOOPBACK_ONLY, settings.CLIENT_API_TOKEN = False, "dev-token"
    hint = "Set it to 20 or more random characters, or leave it empty and use manage.py create_client_token."
    assert f"WRONG  settings: CLIENT_API_TOKEN is a sample value or too short. {hint}" in wrong()


def soon(days: float) -> Any:
    return timezone.now() + timedelta(days=days)


def usage(**fields: Any) -> None:
    ids = {"request_id": "r_1", "client_token_id": 1, "user_id": "u", "model": "m"}
    UsageEvent.objects.create(**ids, **fields)


def make_token(db: None) -> None:
    ClientToken.objects.create(name="web", digest="1", expires_at=soon(29))
    ClientToken.objects.create(name="later", digest="2", expires_at=soon(31))
    ClientToken.objects.create(name="gone", digest="3", expires_at=soon(-1))
    ClientToken.objects.create(name="revoked", digest="4", expires_at=soon(1), is_active=False)


def make_budget(db: None) -> None:
    client = ClientToken.objects.create(name="web", digest="1")
    fields = {"client_token": client, "unit": "tokens", "most": 100}
    Budget.objects.create(key="1", used=90, period="2026-11", user_id="ann", resets_at=soon(1), **fields)
    Budget.objects.create(key="2", used=89, period="2026-11", resets_at=soon(1), **fields)
    Budget.objects.create(key="3", used=99, period="2026-10", resets_at=soon(-1), **fields)


def make_job(db: None) -> None:
    Chore.objects.create(name="rollup", due_at=soon(-1))
    Chore.objects.create(name="purge_expired", due_at=soon(0))
    Chore.objects.filter(name=health.PROBE).update(due_at=soon(-9))


def make_pending(db: None) -> None:
    usage(locked_until=soon(-0.01))


@pytest.mark.parametrize(
    ("make", "what", "why"),
    [
        (make_token, "client token web", "it ends on "),
        (make_budget, "budget of web, user ann", "90 of 100 tokens (90%) are used for 2026-11"),
        (make_job, "background jobs", "rollup are due since "),
        (make_pending, "turns", "1 are pending whose process died"),
    ],
)
def test_what_will_end_or_does_not_run(
    db: None, provider: None, make: Callable[[None], None], what: str, why: str
) -> None:
    assert wrong() == []
    make(db)
    (line,) = wrong()
    assert line.startswith(f"WRONG  {what}: {why}")


def test_days_without_figures(db: None, provider: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "due", lambda now: [date(2026, 11, 1), date(2026, 11, 2)])
    (line,) = wrong()
    assert line.startswith("WRONG  figures: 2 days have no rollups, the first 2026-11-01.")


@pytest.mark.parametrize(("last", "count"), [("before", 0), ("month", 0), ("this month", 2)])
def test_a_month_that_is_missing(monkeypatch: pytest.MonkeyPatch, last: str, count: int) -> None:
    today = timezone.now().date()
    this, following, later = (partitions.first_of_month(today, after) for after in (0, 1, 2))
    suffixes = {
        "before": [f"before_{later:%Y_%m}"],
        "month": ["before_2026_01", f"{this:%Y_%m}", f"{following:%Y_%m}"],
        "this month": ["before_2026_01", f"{this:%Y_%m}"],
    }[last]
    monkeypatch.setattr(partitions, "partitions", lambda table: [f"{table}_{suffix}" for suffix in suffixes])
    assert len(list(ending.examine_partitions())) == count


@pytest.mark.parametrize(("free", "count"), [(9, True), (11, False)])
def test_a_disk_that_is_nearly_full(monkeypatch: pytest.MonkeyPatch, free: int, count: bool) -> None:
    class Disk(NamedTuple):
        total: int
        used: int
        free: int

    monkeypatch.setattr("shutil.disk_usage", lambda folder: Disk(100, 100 - free, free))
    assert bool(list(ending.examine_disk())) is count


@pytest.mark.parametrize(("version", "is_told"), [("3.11", False), ("3.9", False), ("14", True)])
def test_versions_past_their_support(version: str, is_told: bool) -> None:
    name = "PostgreSQL" if version == "14" else "Python"
    assert bool(list(ending.unsupported({name: version}))) is (is_told and timezone.now().date() > date(2026, 10, 14))


def test_the_versions_in_use_are_known(db: None) -> None:
    assert ("Django", "5.2") in ending.SUPPORTED_TO
    assert list(ending.examine_versions()) == []


# --- certificates ---


class listening:  # noqa: N801 (a context manager)
    """A server on a port of its own that serves each connection with a function."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self.serve = serve

    def __enter__(self) -> int:
        self.server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()
        port: int = self.server.getsockname()[1]
        return port

    def accept(self) -> None:
        try:
            while True:
                session, _ = self.server.accept()
                with session:
                    self.serve(session)
        except OSError:
            pass  # it is closed

    def __exit__(self, *exc: object) -> None:
        self.server.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], ssl.SSLContext]:
    """`certificate(days)` is the context of a server whose certificate ends then."""
    folder = tmp_path_factory.mktemp("tls")

    def make(days: int) -> ssl.SSLContext:
        key, file = folder / f"{days}.key", folder / f"{days}.pem"
        request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        subject = ["-subj", "/CN=localhost", "-days", str(days), "-keyout", str(key), "-out", str(file)]
        subprocess.run([*request, *subject], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file, key)
        return context

    return make


@pytest.mark.parametrize("is_postgresql", [False, True])
@pytest.mark.parametrize(("days", "count"), [(29, 1), (40, 0)])
def test_a_certificate_that_ends(
    certificate: Callable[[int], ssl.SSLContext], days: int, count: int, is_postgresql: bool
) -> None:
    context = certificate(days)

    def serve(session: socket.socket) -> None:
        if is_postgresql:
            assert session.recv(8) == certificates.SSL_REQUEST
            session.sendall(b"S")
        context.wrap_socket(session, server_side=True).close()

    with listening(serve) as port:
        found = list(certificates.examine("database", "127.0.0.1", port, is_postgresql=is_postgresql))
        ends_at = certificates.end_of_certificate("127.0.0.1", port, is_postgresql=is_postgresql)

    assert len(found) == count
    assert ends_at is not None
    assert abs(ends_at - soon(days)) < timedelta(minutes=5)
    assert all(f"it ends on {ends_at:%Y-%m-%d}" in finding.why for finding in found)


def test_a_server_without_tls_shows_no_certificate() -> None:
    with listening(lambda session: session.sendall(b"N")) as port:
        assert list(certificates.examine("database", "127.0.0.1", port, is_postgresql=True)) == []


def test_which_databases_are_asked_for_a_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def examine(*where: Any, **kwargs: Any) -> list[Finding]:
        asked.append(where)
        return []

    monkeypatch.setattr(certificates, "examine", examine)
    tcp = {"ENGINE": "llmapi.backends.postgresql", "HOST": "db.example.com", "PORT": "", "OPTIONS": {}}
    for config in (tcp, {**tcp, "HOST": "/run/postgresql"}, {**tcp, "OPTIONS": {"sslmode": "disable"}}):
        assert list(certificates.examine_database("database", config)) == []
    assert asked == [("database", "db.example.com", 5432)]


def test_a_finding_is_one_line() -> None:
    assert str(Finding("disk", "it is full", "Free some.")) == "WRONG  disk: it is full. Free some."
    assert str(Finding("disk", "it is well")) == "ok     disk: it is well."
