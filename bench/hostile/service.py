"""The service under attack: gunicorn as an operator starts it, and the clients' processes beside it."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

from bench.hostile.figures import Window
from bench.hostile.world import World
from bench.peers.processes import Start, began, cpu_seconds, machine_cpu_seconds, pss_mb, roots_of, running
from bench.stack import children_of
from llmapi.launch import ROOT, free_port

SECRET_KEY = "of-a-benchmark-and-of-nothing-else-0123456789"  # noqa: S105
MEMORY_SECONDS = 0.3
# The service is quick again when /health answers in so little, so often in a row.
QUICK_SECONDS, QUICK_ANSWERS = 0.1, 5
RECOVERY_SECONDS = 60


def settings(database_url: str, upstream: int = 9) -> dict[str, str]:
    """Return the environment of a server whose model is the double at that port."""
    return {
        "ENV_FILE": os.devnull,
        "DJANGO_SETTINGS_MODULE": "llmapi.settings",
        "SECRET_KEY": SECRET_KEY,
        "DATABASE_URL": database_url,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream}/v1",
        "OPENAI_API_KEY": "none",
        "OPENAI_MODEL": "gpt-4o-mini",
        "RATE_LIMIT_PER_MIN": "0",
        "CORS_ALLOWED_ORIGINS": "https://chat.example.com",
    }


class Child:
    """A process that does what its lines say, and answers each with a line of JSON."""

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", module, *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, line: object) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        print(line, file=self.process.stdin, flush=True)
        if not (answer := self.process.stdout.readline()):
            raise SystemExit(f"{self.process.args!r} ended; its messages are above.")
        return json.loads(answer)


class Service:
    """A running server: what it takes of the machine, and which of its processes have ended."""

    def __init__(self, root: int, port: int, postmaster: int | None) -> None:
        self.root, self.port, self.postmaster = root, port, postmaster
        self.workers = {pid: began(pid) for pid in children_of(root)}

    def deaths(self) -> int:
        """Return how many of the workers that it began with have ended."""
        return sum(began(pid) != instant for pid, instant in self.workers.items())

    def measure(self, honest: Child, seconds: float, pace: float) -> Window:
        """Let the honest clients ask for so long, at that pace, and add what the service took meanwhile."""
        before, at = self.spent(), time.monotonic()
        with self.watching_memory() as memory:
            window = Window(**honest.ask(f"{seconds} {pace}"))
        lasted = time.monotonic() - at
        cores, database, others = ((now - then) / lasted for now, then in zip(self.spent(), before, strict=True))
        return replace(window, memory=max(memory), cores=cores, database_cores=database, others=max(0.0, others))

    def spent(self) -> tuple[float, float, float]:
        """Return the processor time of the service, of PostgreSQL, and of what has nothing to do with the run."""
        databases = [self.postmaster] if self.postmaster else []
        ours = cpu_seconds(os.getpid(), self.root, *databases, *roots_of("nginx"))
        return cpu_seconds(self.root), cpu_seconds(*databases), machine_cpu_seconds() - ours

    @contextlib.contextmanager
    def watching_memory(self) -> Iterator[list[float]]:
        seen, is_over = [pss_mb(self.root)], threading.Event()

        def look() -> None:
            while not is_over.wait(MEMORY_SECONDS):
                seen.append(pss_mb(self.root))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield seen
        finally:
            is_over.set()
            thread.join()

    def recover(self) -> float:
        """Wait until the service is quick again, RECOVERY_SECONDS at most. Returns how many seconds that took."""
        start, quick = time.monotonic(), 0
        while quick < QUICK_ANSWERS and time.monotonic() - start < RECOVERY_SECONDS:
            at = time.monotonic()
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                quick = quick + 1 if time.monotonic() - at < QUICK_SECONDS else 0
            time.sleep(0.05)
        return time.monotonic() - start


@contextlib.contextmanager
def serving(database_url: str, upstream: int, workers: int, log: Path, postmaster: int | None) -> Iterator[Service]:
    port = free_port()
    env = {**settings(database_url, upstream), "PORT": str(port), "WEB_CONCURRENCY": str(workers)}
    start = Start([sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"], ROOT, port, "/ready", env)
    with running(start, log) as root:
        yield Service(root, port, postmaster)


def make_world(database_url: str) -> World:
    """Make the tokens of a run in a database, by a process of its own."""
    command = [sys.executable, "-m", "bench.hostile.world"]
    env = {**os.environ, **settings(database_url)}
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, check=True)
    return World(**json.loads(done.stdout))


def as_argument(world: World) -> str:
    return json.dumps(asdict(world))
