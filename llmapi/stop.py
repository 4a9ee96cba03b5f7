"""`make stop`: stop what `make run` of this folder started, and wait until it is gone.

Each launcher locks a file of its own in RUN_DIR, named after its process id. The system ends the lock with the process,
even with one that is killed. So a launcher is found from any terminal, and no other process is taken for one.
Needs the standard library only: `make stop` works without .venv.
"""

import fcntl
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from llmapi.env_file import ROOT

RUN_DIR = ROOT / ".run"
# A launcher waits up to 40 seconds for the server, and then as long for the trial model.
STOP_SECONDS = 90


def write_pid_file() -> Path:
    """Name this process in RUN_DIR. In a read-only folder there is no file, and only Ctrl-C stops the launcher."""
    path = RUN_DIR / f"{os.getpid()}.pid"
    with suppress(OSError):
        RUN_DIR.mkdir(exist_ok=True)
        # Never closed, so it is locked until the process ends.
        fcntl.flock(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), fcntl.LOCK_EX)
    return path


def note_port(port: int) -> None:
    """Write down on which port this launcher serves."""
    with suppress(OSError):
        (RUN_DIR / f"{os.getpid()}.pid").write_text(f"{port}\n")


def process_on(port: int) -> int | None:
    """Return the process id of the launcher of this folder that serves on a port."""
    for path in RUN_DIR.glob("*.pid"):
        if path.read_text().strip() == str(port) and is_running(path):
            return int(path.stem)
    return None


def is_running(path: Path) -> bool:
    """Return whether the launcher that wrote this file still runs."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def stop_launcher(path: Path) -> None:
    """Ask one launcher to stop its server and itself, and wait until it has ended."""
    pid = int(path.stem)
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError:
        sys.exit(f"llmapi: process {pid} belongs to another user; run make stop as that user.")
    deadline = time.monotonic() + STOP_SECONDS
    while is_running(path):
        if time.monotonic() > deadline:
            sys.exit(f"llmapi: process {pid} still runs after {STOP_SECONDS} seconds; end it with kill {pid}.")
        time.sleep(0.1)


def main() -> None:
    paths = set(RUN_DIR.glob("*.pid"))
    running = {path for path in paths if is_running(path)}
    if not running:
        print("Nothing runs here.")
    for path in running:
        stop_launcher(path)
        print("llmapi has stopped.")
    # A launcher that was killed leaves its file behind.
    for path in paths - running:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
