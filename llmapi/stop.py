"""`make stop`: stop what `make run` of this folder started, and wait until it is gone."""

import os
import signal
import sys
import time

from llmapi.pid_file import is_launcher, running_launchers

# A launcher waits up to 40 seconds for the server, and then as long for the trial model.
STOP_SECONDS = 90


def main() -> None:
    pids = running_launchers()
    if not pids:
        print("Nothing runs here.")
    for pid in pids:
        stop_launcher(pid)
        print("llmapi has stopped.")


def stop_launcher(pid: int) -> None:
    """Ask one launcher to stop its server and itself, and wait until it has ended."""
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError:
        sys.exit(f"llmapi: process {pid} belongs to another user; run make stop as that user.")
    deadline = time.monotonic() + STOP_SECONDS
    while is_launcher(pid):
        if time.monotonic() > deadline:
            sys.exit(f"llmapi: process {pid} still runs after {STOP_SECONDS} seconds; end it with kill {pid}.")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
