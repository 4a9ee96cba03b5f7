"""What `manage.py` prints when something other than the command is wrong."""

import io
import os
import subprocess
import sys
from typing import IO, Any

import pytest
from django.db import DatabaseError, InterfaceError, OperationalError, ProgrammingError

from llmapi.launch import ROOT
from manage import main


def manage(*arguments: str, out: int | IO[Any] = subprocess.PIPE, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", *arguments]
    settings = {**os.environ, "DJANGO_SETTINGS_MODULE": "llmapi.settings", **env}
    return subprocess.run(
        command, cwd=ROOT, env=settings, stdout=out, stderr=subprocess.PIPE, text=True, encoding="utf-8", check=False
    )


def test_an_unusable_database_is_reported_in_one_sentence() -> None:
    done = manage("metrics_report", DATABASE_URL="postgres://127.0.0.1:1/nowhere")

    assert done.returncode == 1
    assert done.stderr.startswith("llmapi: the database cannot be used: ")
    assert "DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("error", [InterfaceError, OperationalError, ProgrammingError])
def test_errors_of_the_database_show_their_first_line(
    monkeypatch: pytest.MonkeyPatch, error: type[DatabaseError]
) -> None:
    def fail(argv: list[str]) -> None:
        raise error("no such table: usage_events\nLINE 1: SELECT")

    monkeypatch.setattr("manage.execute_from_command_line", fail)
    monkeypatch.setattr("sys.argv", ["manage.py", "rollup"])
    with pytest.raises(SystemExit, match=r"^llmapi: .*: no such table: usage_events\. Check DATABASE_URL"):
        main()

    monkeypatch.setattr("sys.argv", ["manage.py", "rollup", "--traceback"])
    with pytest.raises(error):
        main()


def test_a_closed_pipe_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = manage("help", "--commands", out=gone)

    assert (done.returncode, done.stderr) == (1, "")


def test_a_terminal_without_sparklines_shows_question_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr("manage.execute_from_command_line", lambda argv: print("▁▂", end=""))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, "ascii"))

    main()

    assert shown.getvalue() == b"??"
