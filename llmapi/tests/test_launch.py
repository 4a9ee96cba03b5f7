"""What is in the way of a start is one sentence."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench.openai_double import OpenAIDouble
from llmapi.launch import ROOT, CannotStart, banner, check_env_file, check_port, free_port


def test_a_busy_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=f"Port {port} .* PORT={port + 1} make run"):
            check_port(port)
    check_port(free_port())


def test_a_broken_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENV_FILE", str(tmp_path / ".env"))
    (tmp_path / ".env").write_text("# a comment\n\nPORT=1\nexport DEBUG=true\nwhat is this\n")

    with pytest.raises(CannotStart, match=r"Line 5 of \.env"):
        check_env_file()


def test_the_banner_says_what_answers() -> None:
    trial = banner({"CLIENT_API_TOKEN": "t0"}, 8080, is_local=True, password="secret")
    real = banner({"CLIENT_API_TOKEN": "t0", "OPENAI_MODEL": "gpt-4o"}, 8080, is_local=False, password=None)

    assert "135M" in trial
    assert "admin / secret" in trial
    assert "Bearer t0" in trial
    assert "gpt-4o from https://api.openai.com/v1" in real
    assert "Login" not in real


def launched(folder: Path, **settings: str) -> subprocess.Popen[str]:
    """The start command on its first run, which writes its `.env` into `folder`."""
    env = {
        **os.environ,
        "ENV_FILE": str(folder / ".env"),
        "DJANGO_SETTINGS_MODULE": "llmapi.settings",
        "PORT": str(free_port()),
        **settings,
    }
    command = [sys.executable, "-m", "llmapi.launch"]
    return subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("DATABASE_URL", "sqlite:////nowhere/at/all.db"),
        ("RATE_LIMIT_PER_MIN", "many"),
        ("ALLOWED_HOSTS", "*"),
    ],
)
def test_a_setting_in_the_way(tmp_path: Path, name: str, value: str) -> None:
    process = launched(tmp_path, **{name: value})
    _, stderr = process.communicate(timeout=60)

    assert process.returncode == 1
    assert stderr.splitlines()[-1].startswith("llmapi: ")
    assert name in stderr
    assert "Traceback" not in stderr


def test_it_starts_says_so_and_stops(tmp_path: Path, upstream: OpenAIDouble) -> None:
    process = launched(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/first.sqlite3", OPENAI_BASE_URL=upstream.url)
    assert process.stdout
    lines: list[str] = []
    while "Ctrl-C stops it." not in "".join(lines[-1:]):
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        lines.append(line)

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    assert process.returncode == 0
    assert any("Login    admin / " in line for line in lines)
