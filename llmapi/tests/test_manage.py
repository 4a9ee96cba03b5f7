"""What `manage.py` prints as help, and when something other than the command is wrong."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest
from django.db import DatabaseError, IntegrityError, InterfaceError, OperationalError, ProgrammingError, connection
from django.db.backends.base.base import BaseDatabaseWrapper

from chat import database
from llmapi.launch import ROOT
from llmapi.management.commands.restore import ENGINES
from llmapi.management.utility import GROUPS, Utility, first_sentence, own_commands
from manage import main

COMMANDS = own_commands()
# A day of the provider's usage export.
USAGE = {"start_time": 1795651200, "end_time": 1795737600, "results": [{"num_model_requests": 1, "model": "m"}]}


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
    def fail(self: Utility) -> None:
        raise error("no such table: usage_events\nLINE 1: SELECT")

    monkeypatch.setattr("manage.Utility.execute", fail)
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
    monkeypatch.setattr("manage.Utility.execute", lambda self: print("▁▂", end=""))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, "ascii"))

    main()

    assert shown.getvalue() == b"??"


def test_a_bug_of_ours_is_no_state_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Utility) -> None:
        raise IntegrityError("a value")

    monkeypatch.setattr("manage.Utility.execute", fail)
    with pytest.raises(IntegrityError):
        main()


@pytest.fixture
def in_this_process(django_db_setup: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `main` leave the test's process as it is: its log, its patience, and its pool of the test's database."""
    monkeypatch.setattr("django.setup", lambda: None)
    monkeypatch.setattr(database, "_of_process", database._of_process)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.usefixtures("in_this_process")
def test_a_database_that_is_away_says_so_in_its_own_words(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "partition_ledger" and connection.vendor != "postgresql":
        return  # It needs no database to say that only PostgreSQL has partitions.

    def fail(self: BaseDatabaseWrapper) -> None:
        raise OperationalError("connection refused\nIs the server running on that host?")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "usage.json").write_text(json.dumps({"data": [USAGE]}))
    (tmp_path / "llmapi-2026-11-27").write_bytes(ENGINES[connection.vendor].MAGIC)
    if name == "backup":
        (tmp_path / "llmapi-2026-11-27").unlink()
    monkeypatch.setattr(BaseDatabaseWrapper, "ensure_connection", fail)
    monkeypatch.setattr("sys.argv", ["manage.py", name, *COMMANDS[name].examples[0].split()])

    with pytest.raises(SystemExit) as stopped:
        main()

    printed = capsys.readouterr()
    said = f"{stopped.value.code}\n{printed.err}\n{printed.out}"
    assert stopped.value.code not in (0, None)
    assert "OperationalError: connection refused" in said
    assert "Is the server running" not in said


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_examples_that_it_takes(name: str) -> None:
    command = COMMANDS[name]
    parser = command.create_parser("manage.py", name)

    assert command.group in GROUPS
    assert parser.format_help().endswith(f"manage.py {name} {command.examples[-1]}".rstrip() + "\n")
    for example in command.examples:
        parser.parse_args(example.split())


def commands_of(page: str) -> list[list[str]]:
    """Return the arguments of each manage.py in the code of a page, but for Django's own commands."""
    code = "\n".join(re.findall(r"^```\w*\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE))
    found = re.findall(r"manage\.py (\w+[^#)\n|]*)", re.sub(r"\$\([^)]*\)", "x", code))
    return [shlex.split(line) for line in found if line.split()[0] in COMMANDS]


def test_the_commands_of_the_pages_are_taken() -> None:
    pages = ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
    found = {page: commands_of(page) for page in pages}
    for page, commands in found.items():
        for name, *arguments in commands:
            COMMANDS[name].create_parser(page, name).parse_args(arguments)
    assert {words[0] for words in found["docs/backup.md"]} == {"backup", "restore", "metrics_report"}
    assert {words[0] for words in found["docs/upgrade.md"]} == {"backup", "migrate", "doctor"}


def test_help_has_our_commands_first_with_a_line_on_each() -> None:
    text = Utility(["manage.py", "help"]).main_help_text()

    ours, _, others = text.partition("\nDjango's\n")
    listed = [line.split()[0] for line in ours.splitlines() if line.startswith("  ")]
    assert sorted(listed) == sorted(COMMANDS)
    assert {"runserver", "shell"} <= set(others.split())
    assert not set(listed) & set(others.split())
    assert max(map(len, text.splitlines())) <= 125
    assert all(f"{name} " in ours and first_sentence(command) in ours for name, command in COMMANDS.items())


def test_a_command_without_settings_names_the_setting() -> None:
    done = manage("help", ENV_FILE="/dev/null", SECRET_KEY="")

    assert (done.returncode, "SECRET_KEY is not set" in done.stdout) == (0, True)
