"""The servers of a fault run. Each node is a gunicorn with its workers; all share one database."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.stack import children_of
from llmapi.launch import ROOT, free_port, wait_for


class Node:
    """A server that can be killed, stopped, and started again on its port."""

    def __init__(self, env: dict[str, str]) -> None:
        self.port = free_port()
        self.env = {**env, "PORT": str(self.port)}
        self.clock = Path(env["CLOCKS"]) / str(self.port)  # seconds by which the node's clock is wrong
        self.env["CLOCK"] = str(self.clock)
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "bench.sabotage:application"]
        log = os.environ.get("FAULTS_LOG")
        with open(log, "ab") if log else contextlib.nullcontext(subprocess.DEVNULL) as stderr:
            self.process = subprocess.Popen(command, cwd=ROOT, env=self.env, stderr=stderr)
        wait_for(f"http://127.0.0.1:{self.port}/health", self.process, "A node did not start.")

    def workers(self) -> list[int]:
        return children_of(self.process.pid)

    def kill_worker(self, dice: random.Random) -> None:
        kill(*self.workers()[:: dice.choice([1, -1])][:1])

    def kill_master(self) -> None:
        """Kill the master. Its workers see that they are orphans, and end."""
        orphans = self.workers()
        kill(self.process.pid)
        self.process.wait()
        while any(Path(f"/proc/{pid}").exists() for pid in orphans):
            time.sleep(0.1)
        self.start()

    def kill_all(self) -> None:
        kill(self.process.pid, *self.workers())
        self.process.wait()
        time.sleep(0.5)
        self.start()

    def restart_gracefully(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.start()

    def step_clock(self, seconds: float, *, lasting: float) -> None:
        self.clock.write_text(str(seconds))
        time.sleep(lasting)
        self.clock.write_text("0")

    def fill_disk(self, seconds: float) -> None:
        """Let no process write to a file (RLIMIT_FSIZE). To SQLite that is a full disk."""
        workers = self.workers()
        try:
            for pid in workers:
                limit_file_size(pid, 0)
            time.sleep(seconds)
        finally:
            for pid in workers:
                limit_file_size(pid, resource.RLIM_INFINITY)


def kill(*pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def limit_file_size(pid: int, size: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@contextlib.contextmanager
def cluster(count: int, env: dict[str, str]) -> Iterator[list[Node]]:
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=env, check=True)
    nodes = [Node(env) for _ in range(count)]
    try:
        yield nodes
    finally:
        for node in nodes:
            node.process.terminate()
            node.process.wait(60)
