"""What is in the way of a start is one sentence."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench.openai_double import OpenAIDouble
from conftest import environment
from llmapi.launch import ROOT, CannotStart, banner, check_env_file, check_port


def test_a_busy_port(port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=f"Port {busy} .* PORT={busy + 1} make run"):
            check_port(busy)
    check_port(port)


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


def launched(folder: Path, env: dict[str, str]) -> subprocess.Popen[str]:
    """The start command on its first run, which writes its `.env` into `folder`."""
    env = {**env, "ENV_FILE": str(folder / ".env")}
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
def test_a_setting_in_the_way(
    tmp_path: Path, transactional_db: None, upstream: OpenAIDouble, port: int, name: str, value: str
) -> None:
    process = launched(tmp_path, environment(upstream, **{"PORT": str(port), name: value}))
    _, stderr = process.communicate(timeout=60)

    assert process.returncode == 1
    assert stderr.splitlines()[-1].startswith("llmapi: ")
    assert name in stderr
    assert "Traceback" not in stderr


def test_it_starts_says_so_and_stops(tmp_path: Path, upstream: OpenAIDouble, port: int) -> None:
    database = f"sqlite:///{tmp_path}/first.sqlite3"
    process = launched(tmp_path, environment(upstream, PORT=str(port), DATABASE_URL=database))
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
