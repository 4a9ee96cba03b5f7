"""Processor time and memory of a service: of all processes in its tree (Linux)."""

import contextlib
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 180
# A service that answers may still be starting other workers. It is ready once it has used little of a core for so long.
SETTLE_SECONDS = 2.0
IDLE_CORES = 0.05
STOP_SECONDS = 8.0
PSS = re.compile(r"^Pss:\s+(\d+)", re.MULTILINE)


class NotStarted(Exception):
    """A service that did not start, with the end of its log."""


def stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; none if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def began(pid: int) -> str:
    """Return when a process began, in ticks since the machine did; empty if it has ended."""
    fields = stat(pid)
    return fields[19] if fields and fields[0] != "Z" else ""


def parent_of(pid: int) -> int:
    return int(stat(pid)[1])


def tree_of(root: int) -> list[int]:
    """Return a process and all its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (fields := stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(*roots: int) -> float:
    """Return the processor time that these trees have used, with that of their processes which have ended."""
    # User and system time, then the same of children that have ended: PostgreSQL's backends come and go.
    ticks = sum(sum(map(int, stat(pid)[11:15])) for pid in {pid for root in roots for pid in tree_of(root)})
    return ticks / os.sysconf("SC_CLK_TCK")


def machine_cpu_seconds() -> float:
    """Return the processor time that all programs of the machine have used, and what its host has taken away."""
    # user, nice, system, idle, iowait, irq, softirq, steal
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def roots_of(name: str) -> list[int]:
    """Return the processes of that name whose parents have another."""
    entries = [entry for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    found = {int(entry.name) for entry in entries if name_of(int(entry.name)) == name}
    return [pid for pid in found if (fields := stat(pid)) and int(fields[1]) not in found]


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def pss_mb(root: int) -> float:
    """Return the memory of a tree in MB, each shared page divided by the processes that share it (PSS)."""
    kilobytes = 0
    for pid in tree_of(root):
        with contextlib.suppress(OSError):
            found = PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
            kilobytes += int(found[1]) if found else 0
    return kilobytes / 1024


@dataclass(frozen=True)
class Start:
    """How a service is started. It sees PATH, HOME and `env`, and nothing else of the caller's environment."""

    command: list[str]
    cwd: Path
    port: int
    health: str  # a path that answers 200 once the service is ready
    env: Mapping[str, str]


@contextlib.contextmanager
def running(start: Start, log: Path) -> Iterator[int]:
    """Start a service, and yield its process id. At the end nothing of its tree runs any more."""
    env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    with log.open("wb") as output:
        process = subprocess.Popen(
            start.command,
            cwd=start.cwd,
            env={**env, **start.env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until_ready(process, start, log)
        yield process.pid
    finally:
        stop(process)


def wait_until_ready(process: subprocess.Popen[bytes], start: Start, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{start.port}{start.health}", timeout=5).close()
            wait_until_idle(process.pid, deadline)
            return
        time.sleep(0.3)
    raise NotStarted(f"{start.command[0]} did not start; the end of {log}:\n{log.read_text(errors='replace')[-800:]}")


def wait_until_idle(root: int, deadline: float) -> None:
    is_idle = False
    while not is_idle and time.monotonic() < deadline:
        before = cpu_seconds(root)
        time.sleep(SETTLE_SECONDS)
        is_idle = cpu_seconds(root) - before <= IDLE_CORES * SETTLE_SECONDS


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the tree to end, and kill what still runs after STOP_SECONDS: its turns are worth nothing."""
    began_at = {pid: began(pid) for pid in tree_of(process.pid)}
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    # Another program may have got the number of a process that has ended: its start tells them apart.
    while alive := [pid for pid, instant in began_at.items() if instant and began(pid) == instant]:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    process.wait()
