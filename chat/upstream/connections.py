"""Connections to the model's provider: as many as run at once, kept open between calls, and shut all at once.

urllib3 speaks HTTP. Its pool keeps idle connections in a stack, and looks only at the one that it takes.
"""

import contextlib
import queue
import socket
import threading
import time
from collections import deque
from http.client import HTTPException
from typing import Any
from weakref import WeakSet

import httpx2
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError

CONNECT_SECONDS = 10
# Many servers and balancers close a connection that has been idle for a minute, some earlier.
IDLE_SECONDS = 30


class Sockets:
    """The sockets of a pool, those of running calls among them."""

    def __init__(self) -> None:
        self._opened: WeakSet[socket.socket] = WeakSet()
        self._lock = threading.Lock()
        self._is_shut = False

    def add(self, opened: socket.socket) -> None:
        with self._lock:
            self._opened.add(opened)
        if self._is_shut:
            shut(opened)

    def shut(self) -> None:
        """End every read and write, and those of connections that are made later."""
        self._is_shut = True
        with self._lock:
            opened = list(self._opened)
        for one in opened:
            shut(one)


def shut(connected: socket.socket) -> None:
    """End the reads and writes of other threads."""
    with contextlib.suppress(OSError):  # the connection has ended
        connected.shutdown(socket.SHUT_RDWR)


class Idle:
    """The idle connections of a pool. The one used last is taken first, so that the others can grow old."""

    def __init__(self, maxsize: int = 0) -> None:
        self._kept: deque[tuple[float, HTTPConnection]] = deque()

    def put(self, item: HTTPConnection | None, block: bool = True, timeout: float | None = None) -> None:
        self._drop_old()
        if item is not None:
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

    def __init__(self, *args: Any, sockets: Sockets, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sockets = sockets
        # Stays when `sock` is gone: a connection that ends with its answer gives its socket to the answer.
        self.carrier: socket.socket | None = None

    def connect(self) -> None:
        patience = self.timeout
        self.timeout = CONNECT_SECONDS if patience is None else min(patience, CONNECT_SECONDS)
        try:
            super().connect()
        except (ReadTimeoutError, TimeoutError) as exc:
            raise httpx2.ConnectTimeout(str(exc)) from exc
        except (HTTPError, HTTPException, OSError) as exc:
            is_late = isinstance(exc, ConnectTimeoutError) and not isinstance(exc, NewConnectionError)
            raise (httpx2.ConnectTimeout if is_late else httpx2.ConnectError)(str(exc)) from exc
        finally:
            self.timeout = patience
        self.carrier = self.sock
        self.carrier.settimeout(patience)
        self._sockets.add(self.carrier)

    def request(self, *args: Any, **kwargs: Any) -> None:
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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._sockets = Sockets()
        super().__init__(*args, sockets=self._sockets, **kwargs)

    def close(self) -> None:
        """Close idle connections, and break off every call."""
        super().close()
        self._sockets.shut()


class SecurePool(Pool, HTTPSConnectionPool):
    """The same with TLS."""

    ConnectionCls = SecureConnection
