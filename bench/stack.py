"""A double of OpenAI and a server, each in a process of its own, on a database of their own."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmapi import defaults
from llmapi.launch import ROOT, free_port, wait_for

TOKEN = "token-of-the-benchmark-0123456789"  # noqa: S105


@dataclass(frozen=True)
class Stack:
    upstream: str  # base URLs, with /v1
    server: str
    master: int  # process id of gunicorn

    @property
    def workers(self) -> list[int]:
        return children_of(self.master)


@contextlib.contextmanager
def running(*, chunks: int, pause: float, **settings: str) -> Iterator[Stack]:
    """Start both. Streams have `chunks` chunks, `pause` seconds apart. `settings` name the DATABASE_URL."""
    upstream_port, port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        env = {
            **os.environ,
            "ENV_FILE": os.devnull,
            "DJANGO_SETTINGS_MODULE": "llmapi.settings",
            "SECRET_KEY": "of-a-benchmark-and-of-nothing-else-0123456789",
            "DATABASE_URL": f"sqlite:///{scratch}/bench.sqlite3",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
            "OPENAI_API_KEY": "none",
            "CLIENT_API_TOKEN": TOKEN,
            "RATE_LIMIT_PER_MIN": "0",
            "PORT": str(port),
            **settings,
        }
        double = [
            "-m",
            "bench.openai_double",
            "--port",
            str(upstream_port),
            "--chunks",
            str(chunks),
            "--pause",
            str(pause),
        ]
        stack.enter_context(started(double, env, quiet=True))
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=env, check=True)
        server = stack.enter_context(started(["-m", "gunicorn", "-c", "gunicorn.conf.py"], env, quiet=True))
        wait_for(f"http://127.0.0.1:{port}/ready", server, "The server did not start.")
        yield Stack(f"http://127.0.0.1:{upstream_port}", f"http://127.0.0.1:{port}", server.pid)


@contextlib.contextmanager
def started(arguments: list[str], env: dict[str, str], *, quiet: bool) -> Iterator[subprocess.Popen[bytes]]:
    output = subprocess.DEVNULL if quiet else None
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=env, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def children_of(pid: int) -> list[int]:
    """Return the processes that `pid` started (Linux)."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def ask(message: str) -> bytes:
    body: dict[str, Any] = {
        "model": defaults.OPENAI_MODEL,
        "messages": [{"role": "user", "content": message}],
        "stream": True,
    }
    return json.dumps(body).encode()


def now_ms() -> float:
    return time.monotonic_ns() / 1e6
