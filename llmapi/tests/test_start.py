"""gunicorn, started as an operator does without `make run`: it refuses what is not safe, and what cannot work."""

import subprocess
import sys
from pathlib import Path

import pytest
from pytest_django import Settings

from bench.openai_double import OpenAIDouble
from conftest import environment
from llmapi.checks import refuse_dangers
from llmapi.launch import ROOT


def started(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Start a server that ends by itself."""
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_public_server_refuses_unsafe_values(upstream: OpenAIDouble, db: None, port: int) -> None:
    unsafe = {"SECRET_KEY": "abc", "CLIENT_API_TOKEN": "test", "METRICS_PUBLIC": "true", "DEBUG": "true"}
    done = started(environment(upstream, PORT=str(port), ALLOWED_HOSTS="chat.example.com", **unsafe))

    assert done.returncode == 1
    assert {name for name in unsafe if f"\n{name}" in f"\n{done.stderr}"} == set(unsafe)
    assert "These settings are not safe for a server" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("address", "is_refused"),
    [
        (("127.0.0.1", 8080), False),
        (("::1", 8080, 0, 0), False),
        (("localhost", 8080), False),
        ("/run/llmapi.sock", False),
        (("0.0.0.0", 8080), True),  # noqa: S104
        (("::", 8080, 0, 0), True),
        (("10.0.0.7", 8080), True),
        (("chat.example.com", 8080), True),
    ],
)
def test_unsafe_values_are_refused_where_others_reach_the_server(
    address: object, is_refused: bool, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.SECRET_KEY = "abc"
    try:
        refuse_dangers([address])
    except SystemExit:
        assert is_refused
        assert "SECRET_KEY is shorter than 40 characters." in capsys.readouterr().err
    else:
        assert not is_refused


def test_a_database_without_migrations_is_refused(upstream: OpenAIDouble, db: None, port: int, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/empty.sqlite3"
    done = started(environment(upstream, PORT=str(port), DATABASE_URL=database, WEB_CONCURRENCY="1"))

    assert done.returncode == 3
    assert done.stderr.startswith("llmapi: The database lacks migrations (contenttypes.0001_initial, ")
    assert "; run manage.py migrate.\n" in done.stderr
