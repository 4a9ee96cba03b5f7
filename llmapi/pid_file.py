"""Files that name the running launchers of this folder, so that `make stop` finds them from any terminal.

Each launcher has a file of its own in RUN_DIR, named after its process id. A launcher that was killed leaves its file
behind, and another process may get its id. So a file counts only while that process is a launcher of this folder.
Needs the standard library only: `make stop` works without .venv.
"""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent
RUN_DIR = FOLDER / ".run"
LAUNCHER = "llmapi.launch"


def write_pid_file() -> Path:
    """Name this process in RUN_DIR. In a read-only folder there is no file, and only Ctrl-C stops the launcher."""
    path = RUN_DIR / f"{os.getpid()}.pid"
    with suppress(OSError):
        RUN_DIR.mkdir(exist_ok=True)
        path.touch()
    return path


def running_launchers() -> list[int]:
    """Return the process ids of this folder's launchers, and delete the files of those that have ended."""
    pids = []
    for path in sorted(RUN_DIR.glob("*.pid")):
        if path.stem.isdecimal() and is_launcher(int(path.stem)):
            pids.append(int(path.stem))
        else:
            path.unlink(missing_ok=True)
    return pids


def is_launcher(pid: int) -> bool:
    """Return whether `pid` is a launcher of this folder. A process that has ended and is a zombie is none."""
    process = Path("/proc") / str(pid)
    if not Path("/proc/self/cmdline").exists():  # macOS and BSD
        return LAUNCHER in command_of(pid)
    try:
        arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        return LAUNCHER in arguments and (process / "cwd").resolve() == FOLDER
    except OSError:
        return False


def command_of(pid: int) -> list[str]:
    done = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False)
    return done.stdout.split()
