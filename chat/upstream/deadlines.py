"""Until when a call to the upstream may go on, and how another thread ends it: a client, a stop, or the clock.

A call has one deadline, from its first name look-up to its last byte. Each wait of its socket takes at most what is
left of it (`chat.upstream.connections`). What waits often for one answer, such as a TLS record that comes byte by byte
under gevent, is ended by a thread that looks at all calls each second.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from django.conf import settings

from analytics.watch import Watch
from chat.exceptions import Cancelled

LOOK_SECONDS = 1

_running: set["Deadline"] = set()
_is_stopping = threading.Event()
_here = threading.local()


class Deadline:
    """The time `seconds` from now, or from when it was last renewed; UPSTREAM_TIMEOUT_SECONDS if none are given.

    Entered, it is that of a running call, which the clock, a stop and `end` end.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds: float = settings.UPSTREAM_TIMEOUT_SECONDS if seconds is None else seconds
        self.at = time.monotonic() + self.seconds
        self.is_late = False  # The clock has ended the call.
        self._is_ended = False
        self._is_last = False
        self._carrier: socket.socket | None = None
        # A socket that is given back may carry another call the moment after.
        self._carrying = threading.Lock()

    def __enter__(self) -> Self:
        _running.add(self)
        _looking.wake()
        if _is_stopping.is_set():
            self.end()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        _running.discard(self)

    def renew(self) -> None:
        if not self._is_last:
            self.at = time.monotonic() + self.seconds

    def shorten(self, seconds: float) -> None:
        """Let the call go on for so many seconds at most, whatever comes."""
        self._is_last = True
        self.at = min(self.at, time.monotonic() + seconds)

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Let a part of the call take so many seconds at most."""
        at, self.at = self.at, min(self.at, time.monotonic() + seconds)
        try:
            yield
        finally:
            self.at = at

    def left(self) -> float:
        """Return the seconds that are left, for the timeout of a socket. Raises TimeoutError where there are none."""
        seconds = self.at - time.monotonic()
        if seconds <= 0 or self._is_ended:
            raise TimeoutError("the call must end")
        return seconds

    def carry(self, connected: socket.socket | None) -> None:
        """Note the socket that carries the call; None where it may carry another from now on."""
        with self._carrying:
            self._carrier = connected
            if self._is_ended and connected is not None:
                shut(connected)

    def end(self, *, is_late: bool = False) -> None:
        """End the call, from any thread: its reads and writes fail at once, and it gets no other connection."""
        with self._carrying:
            self.is_late = self.is_late or is_late
            self._is_ended = True
            if self._carrier is not None:
                shut(self._carrier)


class Cancellation:
    """Lets another thread stop a stream, whatever it waits for."""

    def __init__(self) -> None:
        self.is_requested = False
        self._deadline: Deadline | None = None

    def arm(self, deadline: Deadline) -> None:
        """Let a request end this call. Raises Cancelled, for which nothing was sold, where it has come already."""
        self._deadline = deadline
        if self.is_requested:
            raise cancelled(is_billed=False)

    def disarm(self) -> None:
        self._deadline = None

    def request(self) -> None:
        self.is_requested = True
        if (deadline := self._deadline) is not None:
            deadline.end()


def cancelled(*, is_billed: bool) -> Cancelled:
    error = Cancelled()
    error.is_billed = is_billed
    return error


def shut(connected: socket.socket) -> None:
    """End the reads and writes of other threads."""
    with contextlib.suppress(OSError):  # the connection has ended
        connected.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def calling(deadline: Deadline) -> Iterator[None]:
    """Make the deadline that of the request that this thread sends."""
    _here.deadline = deadline
    try:
        yield
    finally:
        del _here.deadline


def current() -> Deadline:
    found: Deadline | None = getattr(_here, "deadline", None)
    return found or Deadline()


def is_stopping() -> bool:
    return _is_stopping.is_set()


def end_all() -> None:
    """End every call, and those that begin later."""
    _is_stopping.set()
    for deadline in list(_running):
        deadline.end()


def _look() -> None:
    """End calls whose deadline has passed. Most have noticed by themselves."""
    now = time.monotonic()
    for deadline in list(_running):
        if now > deadline.at:
            deadline.end(is_late=True)


_looking = Watch(_look, lambda: _running, seconds=LOOK_SECONDS)
