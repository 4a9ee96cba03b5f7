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
    nodes: list[tuple[str, int]]  # of each server: its base URL, and its master

    @property
    def workers(self) -> list[int]:
        return children_of(self.master)


@contextlib.contextmanager
def running(*, chunks: int, pause: float, nodes: int = 1, **settings: str) -> Iterator[Stack]:
    """Start the double and the servers: `nodes` of them on one database, on ports of their own.

    Streams have `chunks` chunks, `pause` seconds apart. `settings` name the DATABASE_URL.
    """
    upstream_port = free_port()
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
        servers = []
        for port in [free_port() for _ in range(nodes)]:
            own = {**env, "PORT": str(port)}
            server = stack.enter_context(started(["-m", "gunicorn", "-c", "gunicorn.conf.py"], own, quiet=True))
            wait_for(f"http://127.0.0.1:{port}/ready", server, "The server did not start.")
            servers.append((f"http://127.0.0.1:{port}", server.pid))
        yield Stack(f"http://127.0.0.1:{upstream_port}", *servers[0], servers)


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


def processor_seconds(*pids: int) -> float:
    """Return the processor time that these processes have used (Linux)."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def now_ms() -> float:
    return time.monotonic_ns() / 1e6
