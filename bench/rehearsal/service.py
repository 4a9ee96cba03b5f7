"""Nodes of the service: servers of a tree with an environment, which are started, stopped and killed."""

import subprocess
import sys
from pathlib import Path
from typing import IO

from bench.nodes import kill
from bench.stack import children_of
from llmapi.launch import free_port, loopback, wait_for

# More than gunicorn waits for running turns.
STOP_SECONDS = 60


class Node:
    """A server on a port that it keeps, of whatever tree and settings it is started with."""

    def __init__(self, name: str, log: Path) -> None:
        self.name, self.log = name, log
        self.port = free_port()
        self.tree = Path()
        self.env: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, tree: Path, env: dict[str, str]) -> None:
        self.tree, self.env = tree, {**env, "PORT": str(self.port)}
        with self.log.open("ab") as log:
            self.process = launch(self.tree, self.env, log)
        wait_for(f"{self.url}/ready", self.process, f"Node {self.name} did not start.")

    def stop(self) -> None:
        """Stop gracefully: running turns end first."""
        self.process.terminate()
        self.process.wait(STOP_SECONDS)

    def restart(self, tree: Path, env: dict[str, str]) -> None:
        self.stop()
        self.start(tree, env)

    def kill(self) -> None:
        kill(self.process.pid, *children_of(self.process.pid))
        self.process.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            self.stop()

    def says(self) -> str:
        """Return what `/ready?verbose` answers."""
        with loopback.open(f"{self.url}/ready?verbose", timeout=10) as answer:
            said: str = answer.read().decode()
        return said


def launch(tree: Path, env: dict[str, str], stderr: IO[bytes] | int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"]
    return subprocess.Popen(command, cwd=tree, env=env, stdout=subprocess.DEVNULL, stderr=stderr)


def refusal(tree: Path, env: dict[str, str]) -> str:
    """Start a server that must refuse to serve. Returns what it says."""
    process = launch(tree, {**env, "PORT": str(free_port())}, subprocess.PIPE)
    try:
        said = process.communicate(timeout=60)[1].decode()
    finally:
        process.kill()
    return said if process.returncode else ""


def manage(tree: Path, env: dict[str, str], *arguments: str) -> str:
    """Run a command of `manage.py`. Ends the rehearsal where it fails."""
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"manage.py {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
