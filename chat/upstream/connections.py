"""Connections to the model's provider: as many as run at once, and kept open between calls.

urllib3 speaks HTTP. Its pool keeps idle connections in a stack, and looks only at the one that it takes.
"""

import contextlib
import io
import queue
import socket
import time
from collections import deque
from http.client import HTTPException, HTTPResponse
from typing import Any

import httpx2
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)

from chat.upstream.deadlines import Deadline, current

# For all addresses of a name, the way through a proxy, and the handshake.
CONNECT_SECONDS = 10
# Of an answer's head, and of what comes before it.
MAX_HEAD_BYTES = 256 * 1024
# Of an answer as it comes over the wire: its chunks may take more than what is in them.
MAX_WIRE_BYTES = 64 * 1024 * 1024
# So much is read before others get their turn of the processor.
PAUSE_BYTES = 16 * 1024
# Many servers and balancers close a connection that has been idle for a minute, some earlier.
IDLE_SECONDS = 30


class Wire(io.RawIOBase):
    """What the upstream sends over a connection: for as long, and as much, as its call may take."""

    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        self._connected = connected
        self._raw = connected.makefile("rb", 0)
        self._deadline = deadline
        self.most = MAX_HEAD_BYTES
        self._until_pause = PAUSE_BYTES

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return what `http.client` reads, which asks a socket for it."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connected.settimeout(self._deadline.left())
        size = self._raw.readinto(buffer) or 0
        if not size:
            self._deadline.left()  # The end of a call that was ended is not the end of its answer.
        self.most -= size
        if self.most < 0:
            raise HTTPException("the answer is longer than any")
        self._until_pause -= size
        if self._until_pause < 0:
            self._until_pause = PAUSE_BYTES
            time.sleep(0)  # What is always there to be read would keep all others waiting.
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class Answer(HTTPResponse):
    """An answer whose head is bounded more closely than all of it."""

    def __init__(self, wire: Wire, *args: Any, **kwargs: Any) -> None:
        super().__init__(wire, *args, **kwargs)  # type: ignore[arg-type]  # It has of a socket what is used.
        self._wire = wire

    def begin(self) -> None:
        super().begin()
        self._wire.most = MAX_WIRE_BYTES


class Idle:
    """The idle connections of a pool. The one used last is taken first, so that the others can grow old."""

    def __init__(self, maxsize: int = 0) -> None:
        self._kept: deque[tuple[float, HTTPConnection]] = deque()

    def put(self, item: HTTPConnection | None, block: bool = True, timeout: float | None = None) -> None:
        self._drop_old()
        if item is not None:
            if isinstance(item, Connection):
                item.deadline.carry(None)
            self._kept.append((time.monotonic(), item))

    def get(self, block: bool = True, timeout: float | None = None) -> HTTPConnection:
        self._drop_old()
        try:
            return self._kept.pop()[1]
        except IndexError:
            raise queue.Empty from None

    def _drop_old(self) -> None:
        with contextlib.suppress(IndexError):  # Another thread has taken the last one.
            while self._kept[0][0] < time.monotonic() - IDLE_SECONDS:
                self._kept.popleft()[1].close()


class Connection(HTTPConnection):
    """A connection whose failures before a request is sent are httpx2's errors: then nothing was sold."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deadline = current()

    def connect(self) -> None:
        self.deadline = current()
        with contextlib.ExitStack() as handles, self.deadline.within(CONNECT_SECONDS):
            self._handles = handles
            try:
                super().connect()
            except (ReadTimeoutError, TimeoutError) as exc:
                raise httpx2.ConnectTimeout(str(exc)) from exc
            except (HTTPError, HTTPException, OSError) as exc:
                is_late = isinstance(exc, ConnectTimeoutError) and not isinstance(exc, NewConnectionError)
                is_late = is_late or self.deadline.is_late
                raise (httpx2.ConnectTimeout if is_late else httpx2.ConnectError)(str(exc)) from exc
            self.deadline.carry(self.sock)

    def _new_conn(self) -> socket.socket:
        """Connect to the first address of the name that answers."""
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, 0, socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise NameResolutionError(self.host, self, exc) from exc  # type: ignore[arg-type]
        failure: HTTPError = NewConnectionError(self, "no address")
        for position, (family, kind, protocol, _, address) in enumerate(found):
            opened = socket.socket(family, kind, protocol)
            try:
                self._reach(opened, address, self.deadline.left() / (len(found) - position))
            except TimeoutError as exc:
                failure = ConnectTimeoutError(self, str(exc))
            except OSError as exc:
                failure = NewConnectionError(self, str(exc))
            else:
                return opened
            opened.close()
        raise failure

    def _reach(self, opened: socket.socket, address: Any, seconds: float) -> None:
        for option in self.socket_options or ():
            opened.setsockopt(*option)
        # TLS takes the socket over, and leaves no hold on it while it shakes hands.
        self.deadline.carry(self._handles.enter_context(opened.dup()))
        opened.settimeout(seconds)
        opened.connect(address)
        opened.settimeout(self.deadline.left())

    def send(self, data: Any) -> None:
        """Send bytes; an upstream that does not read them is not waited for beyond the deadline."""
        if self.sock is None:
            self.connect()
        left = memoryview(data)
        while left:
            self.sock.settimeout(self.deadline.left())
            left = left[self.sock.send(left) :]

    def response_class(self, connected: socket.socket, *args: Any, **kwargs: Any) -> HTTPResponse:  # type: ignore[override]
        return Answer(Wire(connected, self.deadline), *args, **kwargs)

    def request(self, *args: Any, **kwargs: Any) -> None:
        self.deadline = current()
        self.deadline.carry(self.sock)
        try:
            super().request(*args, **kwargs)
        except ValueError as exc:  # A header that cannot be written; the head is sent as a whole.
            raise httpx2.LocalProtocolError(str(exc)) from exc

    @property
    def is_connected(self) -> bool:
        """Tell whether the connection can carry another request.

        An idle connection has nothing to read. What can be read is its end, or an answer that nobody has asked for.
        The socket is asked directly: a `poll` is a round through the event loop under gevent.
        """
        if self.sock is None:
            return False
        self.sock.settimeout(0)  # `request` sets it anew.
        try:
            socket.socket.recv(self.sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


class SecureConnection(Connection, HTTPSConnection):
    """The same with TLS."""


class Pool(HTTPConnectionPool):
    """The connections to one server."""

    ConnectionCls = Connection
    QueueCls = Idle  # type: ignore[assignment]  # It has of a queue what the pool uses.


class SecurePool(Pool, HTTPSConnectionPool):
    """The same with TLS."""

    ConnectionCls = SecureConnection
