"""What `manage.py` says at a terminal where something else is wrong than the command."""

import os
import subprocess
import sys
from typing import IO, Any

import pytest

from llmapi.launch import ROOT


def manage(*arguments: str, out: int | IO[Any] = subprocess.PIPE, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", *arguments]
    settings = {**os.environ, "DJANGO_SETTINGS_MODULE": "llmapi.settings", **env}
    return subprocess.run(
        command, cwd=ROOT, env=settings, stdout=out, stderr=subprocess.PIPE, text=True, encoding="utf-8", check=False
    )


@pytest.mark.parametrize(
    "url", ["postgres://127.0.0.1:1/nowhere", "sqlite:////nowhere/db.sqlite3", "sqlite:///:memory:"]
)
def test_a_database_that_is_away_or_empty(url: str) -> None:
    done = manage("metrics_report", DATABASE_URL=url)

    assert done.returncode == 1
    assert done.stderr.startswith("llmapi: the database cannot be used: ")
    assert "DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_traceback_can_be_had() -> None:
    assert "Traceback" in manage("rollup", "--traceback", DATABASE_URL="sqlite:///:memory:").stderr


def test_a_reader_that_has_gone() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = manage("help", "--commands", out=gone)

    assert (done.returncode, done.stderr) == (1, "")


def test_a_terminal_without_sparklines() -> None:
    done = manage("shell", "-v", "0", "-c", "print('▁▂', end='')", PYTHONIOENCODING="ascii")

    assert (done.stdout, done.returncode) == ("??", 0)
