"""A process that the launcher starts ends with it, however the launcher ends: also by `kill -9`.

The launcher holds one end of a pipe, and its children read the other. The system closes what the launcher holds.
Needs the standard library only.
"""

import _thread
import os
import signal
from collections.abc import Callable
from typing import Any

# In the environment of a child: the file descriptor of its end.
NAME = "LLMAPI_TETHER"


class Tether:
    """The launcher's end."""

    def __init__(self) -> None:
        self.child_end, self._own_end = os.pipe()

    def environment(self) -> dict[str, str]:
        """Return what tells a child of its end, which it inherits by `pass_fds`."""
        return {NAME: str(self.child_end)}


def follow(start_thread: Callable[..., Any] = _thread.start_new_thread) -> None:
    """Let SIGTERM end this process once its launcher has ended, if a launcher has started it.

    `start_thread` starts a thread of the system's: a greenlet would never be woken.
    """
    if number := os.environ.pop(NAME, ""):
        start_thread(_wait, (int(number),))


def _wait(number: int) -> None:
    os.read(number, 1)
    os.kill(os.getpid(), signal.SIGTERM)
