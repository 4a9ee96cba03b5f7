"""The folder in which the processes of one server count for Prometheus (`analytics.instruments`).

`prometheus_client` learns of it when it is imported, so nothing here imports that. A folder is locked as long as a
process of its server lives. So the next server removes what one has left that was killed.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "llmapi-counts-"
NAME = "PROMETHEUS_MULTIPROC_DIR"
_lock: int | None = None


def open_folder() -> None:
    """Make the folder, or keep the one that there is.

    After a reload (SIGHUP) and in an upgrade (SIGUSR2), which runs two servers side by side for a while, counts go on.
    """
    global _lock
    if _lock is not None:
        return
    if NAME not in os.environ or "GUNICORN_PID" not in os.environ:
        remove_left(Path(tempfile.gettempdir()))
        os.environ[NAME] = tempfile.mkdtemp(prefix=PREFIX)
    _lock = os.open(os.environ[NAME], os.O_RDONLY)
    fcntl.flock(_lock, fcntl.LOCK_SH)


def close_folder() -> None:
    """Remove the folder, unless the other server of an upgrade counts there."""
    if _lock is not None:
        remove(os.environ[NAME], _lock)


def remove_left(folders: Path) -> None:
    for folder in folders.glob(f"{PREFIX}*"):
        with suppress(OSError):  # It is somebody else's, or has gone.
            lock = os.open(folder, os.O_RDONLY)
            try:
                remove(str(folder), lock)
            finally:
                os.close(lock)


def remove(folder: str, lock: int) -> None:
    with suppress(BlockingIOError):  # Somebody counts there.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
