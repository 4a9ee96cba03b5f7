"""What `manage.py` prints when something other than the command is wrong."""

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
def test_an_unusable_database_is_reported_in_one_sentence(url: str) -> None:
    done = manage("metrics_report", DATABASE_URL=url)

    assert done.returncode == 1
    assert done.stderr.startswith("llmapi: the database cannot be used: ")
    assert "DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_traceback_option_shows_the_traceback() -> None:
    assert "Traceback" in manage("rollup", "--traceback", DATABASE_URL="sqlite:///:memory:").stderr


def test_a_closed_pipe_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = manage("help", "--commands", out=gone)

    assert (done.returncode, done.stderr) == (1, "")


def test_a_terminal_without_sparklines_shows_question_marks() -> None:
    done = manage("shell", "-v", "0", "-c", "print('▁▂', end='')", PYTHONIOENCODING="ascii")

    assert (done.stdout, done.returncode) == ("??", 0)
