"""`make run`, `make stop` and `make help`. A start that fails says why in one sentence."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import Mock

import pytest

from bench.openai_double import OpenAIDouble
from conftest import environment, wait_until
from llmapi import local_model, stop
from llmapi.banner import banner
from llmapi.environment import models
from llmapi.launch import (
    ROOT,
    STOP_SECONDS,
    CannotStart,
    check_port,
    end,
    install_local_model,
    start_local_model,
    warm_up,
)
from llmapi.stop import RUN_DIR


def test_a_busy_port_is_reported(port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=f"Port {busy} .* PORT={busy + 1} make run"):
            check_port(busy)
    check_port(port)


BASE = "http://127.0.0.1:8080"


def test_the_banner_names_the_model_and_the_login() -> None:
    answers, no_answer = "answers in 9 ms", "has not answered yet"
    trial = banner(
        {"CLIENT_API_TOKEN": "t0"}, BASE, provider=answers, trial="42 tokens/s on 3 threads", password="secret"
    )
    url = "https://user:password@models.example/v1"
    env = {"OPENAI_MODEL": "gpt-4o", "OPENAI_BASE_URL": url}
    real = banner(env, BASE, provider=no_answer, trial=None, password=None)

    assert "135M parameters on this machine (42 tokens/s on 3 threads)\n" in trial
    assert "It answers whatever model a client names" in trial
    assert "admin / secret" in trial
    assert f"Chat     {BASE}/#token=t0\n" in trial
    assert "Bearer t0" in trial
    assert "gpt-4o from models.example, which has not answered yet\n" in real
    assert f"Chat     {BASE}/\n" in real
    assert "manage.py changepassword admin" in real
    assert "manage.py create_client_token NAME" in real


@pytest.mark.parametrize(
    ("env", "address"),
    [
        ({}, BASE),
        ({"ALLOWED_HOSTS": "chat.example.com, 127.0.0.1"}, BASE),
        ({"ALLOWED_HOSTS": "chat.example.com,localhost"}, "http://localhost:8080"),
        ({"ALLOWED_HOSTS": ".example.com,chat.example.org"}, "https://example.com"),
        ({"ALLOWED_HOSTS": "chat.example.com", "SCRIPT_NAME": "/bot"}, "https://chat.example.com/bot"),
        ({"SCRIPT_NAME": "/bot"}, f"{BASE}/bot"),
    ],
)
def test_the_banner_links_to_where_the_server_answers(env: dict[str, str], address: str) -> None:
    text = banner(env, BASE, provider="answers", trial=None, password=None)

    assert set(re.findall(r"https?://\S+?(?=/(?:docs|admin|metrics|v1|\n))", text)) == {address}


class TrialModel(BaseHTTPRequestHandler):
    """Plays llama.cpp's server: it answers with how fast it was."""

    answer: ClassVar[dict[str, Any]] = {}

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["max_tokens"] <= 16
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(self.answer).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def trial_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), TrialModel) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/chat/completions"
        server.shutdown()


def test_the_trial_model_is_warmed_up(trial_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_model, "physical_cores", lambda: 5)
    monkeypatch.setattr(TrialModel, "answer", {"timings": {"predicted_per_second": 41.6}})
    assert warm_up(trial_url) == "42 tokens/s on 4 threads"
    monkeypatch.setattr(TrialModel, "answer", {"error": "busy"})
    with pytest.raises(CannotStart, match=r"^The trial model does not answer \(KeyError\); stop what keeps"):
        warm_up(trial_url)


def test_the_trial_model_leaves_a_core_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= local_model.physical_cores() <= (os.cpu_count() or 1)
    for cores, threads in ((1, 1), (2, 1), (8, 7)):
        monkeypatch.setattr(local_model, "physical_cores", lambda cores=cores: cores)
        assert local_model.threads() == threads


def test_the_trial_model_answers_to_every_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_MODEL", "OPENAI_MODELS", "OPENAI_CONTEXT_TOKENS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(local_model, "is_installed", lambda: True)
    monkeypatch.setattr("llmapi.launch.spawn", lambda *args, **kwargs: None)
    monkeypatch.setattr("llmapi.launch.wait_for", lambda *args: None)
    monkeypatch.setattr("llmapi.launch.warm_up", lambda url: "9 tokens/s on 1 thread")

    assert start_local_model([]) == "9 tokens/s on 1 thread"

    names, aliases = models([os.environ["OPENAI_MODEL"], os.environ["OPENAI_MODELS"]])
    assert names == [local_model.NAME]
    assert aliases == {"*": local_model.NAME}


def test_a_trial_model_that_cannot_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is whole where pip fails by itself. Without `made`, the next `make run` makes it anew."""
    (tmp_path / "requirements-trial.lock").write_text("not a requirement\n")
    (tmp_path / "made").touch()
    monkeypatch.setattr("llmapi.launch.ROOT", tmp_path)
    monkeypatch.setattr("sys.prefix", str(tmp_path))

    with pytest.raises(CannotStart, match="cannot be installed; pip says why, above"):
        install_local_model()

    assert (tmp_path / "made").exists()

    monkeypatch.setattr(subprocess, "run", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        install_local_model()
    assert not (tmp_path / "made").exists()


def launched(folder: Path, env: dict[str, str]) -> subprocess.Popen[str]:
    """Start the launcher for the first time. It writes its `.env` into `folder`."""
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
def test_a_bad_setting_is_reported(
    tmp_path: Path, transactional_db: None, upstream: OpenAIDouble, port: int, name: str, value: str
) -> None:
    process = launched(tmp_path, environment(upstream, **{"PORT": str(port), name: value}))
    _, stderr = process.communicate(timeout=60)

    assert process.returncode == 1
    assert stderr.splitlines()[-1].startswith("llmapi: ")
    assert name in stderr
    assert "Traceback" not in stderr


def wait_until_ready(process: subprocess.Popen[str]) -> list[str]:
    """Read what the launcher prints, up to its last line."""
    assert process.stdout
    lines: list[str] = []
    while "stops it." not in "".join(lines[-1:]):
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        lines.append(line)
    return lines


def test_starts_and_stops_by_ctrl_c(tmp_path: Path, upstream: OpenAIDouble, port: int) -> None:
    database = f"sqlite:///{tmp_path}/first.sqlite3"
    # By a name alone, which the launcher's own requests do not have.
    public = {"ALLOWED_HOSTS": "chat.example.com", "METRICS_PUBLIC": "", "SECRET_KEY": "secret-key" * 5}
    public |= {"CLIENT_API_TOKEN": "a-token-that-is-long-enough"}
    process = launched(tmp_path, environment(upstream, PORT=str(port), DATABASE_URL=database, **public))
    lines = wait_until_ready(process)
    path = RUN_DIR / f"{process.pid}.pid"
    assert path.exists()

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    assert process.returncode == 0
    assert any("https://chat.example.com/admin/   admin / " in line for line in lines)
    assert not path.exists()


def test_make_stop_ends_the_launcher_and_its_server(
    tmp_path: Path,
    transactional_db: None,
    upstream: OpenAIDouble,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    process = launched(tmp_path, environment(upstream, PORT=str(port)))
    wait_until_ready(process)
    # A folder with this launcher only, so that other launchers keep running.
    monkeypatch.setattr(stop, "RUN_DIR", tmp_path)
    path = RUN_DIR / f"{process.pid}.pid"
    (tmp_path / path.name).symlink_to(path)

    stop.main()

    check_port(port)
    assert capsys.readouterr().out == "llmapi has stopped.\n"
    process.communicate(timeout=10)
    assert process.returncode == 0
    stop.main()
    assert capsys.readouterr().out == "Nothing runs here.\n"


def test_what_a_killed_launcher_started_ends_with_it(tmp_path: Path, upstream: OpenAIDouble, port: int) -> None:
    database = f"sqlite:///{tmp_path}/first.sqlite3"
    process = launched(tmp_path, environment(upstream, PORT=str(port), DATABASE_URL=database))
    wait_until_ready(process)
    with pytest.raises(CannotStart, match=f"runs on port {port} already, as process {process.pid}; make stop stops it"):
        check_port(port)

    process.kill()
    process.communicate(timeout=60)

    wait_until(lambda: not is_served(port))


def is_served(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_second_ctrl_c_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[subprocess.Popen[bytes]] = []
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout
    child.stdout.readline()
    children.append(child)
    wait = child.wait

    def interrupted(timeout: float | None = None) -> int:
        if timeout == STOP_SECONDS:
            raise KeyboardInterrupt
        return wait(timeout)

    monkeypatch.setattr(child, "wait", interrupted)
    end(children)

    assert wait(10) == -signal.SIGKILL
    child.communicate()


def named_as_launcher(cwd: str | None = None) -> subprocess.Popen[str]:
    """Start a process whose arguments name the launcher, and wait until it runs."""
    command = [sys.executable, "-c", "print(flush=True); input()", "llmapi.launch"]
    process = subprocess.Popen(command, cwd=cwd, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    return process


def test_a_stale_pid_file_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stale files name another process, a launcher of another folder, or no process."""
    monkeypatch.setattr(stop, "RUN_DIR", tmp_path)
    elsewhere = named_as_launcher(cwd="/")
    for pid in (os.getpid(), elsewhere.pid, 2**22 + 1):
        (tmp_path / f"{pid}.pid").touch()

    stop.main()

    assert capsys.readouterr().out == "Nothing runs here.\n"
    assert elsewhere.poll() is None
    assert list(tmp_path.iterdir()) == []
    elsewhere.communicate("\n")


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = next(line for line in makefile.splitlines() if line.startswith(".PHONY: ")).split()[1:]

    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)

    assert [line.split()[:2] for line in done.stdout.splitlines()] == [["make", target] for target in targets]
