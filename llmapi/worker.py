"""gunicorn's worker for greenlets, with bounds on what a connection may take: time, bytes, a place among the others.

A head must come within `keepalive` seconds. When connections run short, the one that has waited longest for one is
closed, as nginx does, and others end with their answer. Bodies and answers have a least speed, as with Apache's
mod_reqtimeout. gunicorn has none of it.
"""

import errno
import socket
import ssl
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Any

import gevent
from gunicorn.workers.ggevent import GeventWorker

from analytics.fairness import Owner, Share, outside
from analytics.processor import processor
from llmapi.logging import ServerRefusals

# Seconds that a body may take beside what its bytes take, and the bytes of it that must come in each further second.
BODY_SECONDS = 10
LEAST_BYTES_A_SECOND = 8 * 1024
# An answer is sent in pieces, and a client must take each within so many seconds.
PIECE_BYTES = 64 * 1024
PIECE_SECONDS = 10
# What is read of a body after its request was answered, so that a client which sends all of it first sees the answer.
MAX_UNREAD_BYTES = 32 * 1024 * 1024
# One long body is drained at a time, with a pause after each TURN_BYTES: 50 MB a second.
DRAIN_PAUSE_SECONDS = 0.005
draining = Share(lambda: 1, patience=BODY_SECONDS, most_waiting=100)
# Bytes that may come between two requests: of the next head.
MAX_BYTES_BETWEEN = 1024 * 1024
# Bytes that one connection reads before others have their turn.
TURN_BYTES = 256 * 1024
# The owner of connections that have sent no request yet.
NEWCOMER = "a new connection"
# Connections that are kept free for new ones.
SPARE_CONNECTIONS = 50


def gone(reason: str) -> ConnectionResetError:
    """Make the error that gunicorn takes for a client which has gone away: it logs nothing for each."""
    return ConnectionResetError(errno.ECONNRESET, reason)


class ClientSocket:
    """A connection from a client, which gunicorn reads and writes.

    While a request is under way, what is read is its body, and each wait lets others work.
    """

    def __init__(self, connected: Any, idle: "OrderedDict[ClientSocket, None]") -> None:
        self._socket = connected
        # Those of whose next request nothing has come yet, this one among them for as long.
        self._idle = idle
        # Who sent the request before: nobody knows who sends this one before it is read.
        self.owner: Owner = NEWCOMER
        self._parser: Owner = None
        self._body_until: float | None = None
        self._bytes_between = 0
        self._bytes_in_turn = 0
        self._is_over = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def begin(self) -> None:
        """A head has come: what follows is its body."""
        self.end_parsing()
        self._body_until = time.monotonic() + BODY_SECONDS

    def end(self) -> None:
        """The request has been answered: what follows is the rest of its body, or the next head."""
        self._body_until = None
        self._bytes_between = 0
        if not self._is_over:
            self._socket.settimeout(None)

    def hang_up(self) -> None:
        """End the connection, also for the greenlet that waits for it."""
        self._is_over = True
        with suppress(OSError):  # It has ended already.
            self._socket.shutdown(socket.SHUT_RDWR)

    def recv(self, size: int) -> bytes:
        """Read what is there, or wait for it. Raises TimeoutError for a body that is too slow."""
        if self._is_over:
            return b""
        data = self._body(size) if self._body_until is not None else self._between(size)
        self._bytes_in_turn += len(data)
        if self._bytes_in_turn > TURN_BYTES:
            # What is there already is read without a wait, however much it is.
            self._bytes_in_turn = 0
            gevent.sleep(0)
        return data

    def _body(self, size: int) -> bytes:
        assert self._body_until is not None
        try:
            self._socket.settimeout(0)
            data: bytes = self._socket.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError):
            with outside():
                data = self._wait(size)
        self._body_until += len(data) / LEAST_BYTES_A_SECOND
        return data

    def _wait(self, size: int) -> bytes:
        assert self._body_until is not None
        self._socket.settimeout(max(self._body_until - time.monotonic(), 0.001))
        try:
            data: bytes = self._socket.recv(size)
        except TimeoutError:
            # The rest of the body may still come: no other request can follow it.
            self._is_over = True
            raise
        return data

    def end_parsing(self) -> None:
        if self._parser is not None:
            processor.give_back(self._parser)
            self._parser = None

    def _between(self, size: int) -> bytes:
        self.end_parsing()
        self._idle[self] = None
        try:
            data: bytes = self._socket.recv(size)
        finally:
            self._idle.pop(self, None)
        if not data:
            return data
        # Thousands of heads may come in one moment: they are read in turns, with the requests of all others.
        processor.wait_for_turn(self.owner, is_newest_first=self.owner == NEWCOMER)
        self._parser = self.owner
        self._bytes_between += len(data)
        if self._bytes_between > MAX_BYTES_BETWEEN:
            raise gone("too much was sent beside requests")
        return data

    def sendall(self, data: bytes) -> None:
        """Send in pieces. Raises ConnectionResetError where the client does not take one in time."""
        self._socket.settimeout(PIECE_SECONDS)
        try:
            if len(data) <= PIECE_BYTES:
                self._socket.sendall(data)
            else:
                view = memoryview(data)
                for start in range(0, len(data), PIECE_BYTES):
                    self._socket.sendall(view[start : start + PIECE_BYTES])
        except TimeoutError as exc:
            self._is_over = True
            raise gone("the answer was not taken in time") from exc


class Worker(GeventWorker):
    """Serves connections within these bounds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Those that send nothing that is needed, in the order in which they stopped; and how many are open in all.
        self._idle: OrderedDict[ClientSocket, None] = OrderedDict()
        self._open = 0

    @property
    def is_crowded(self) -> bool:
        return self._open > self.worker_connections - SPARE_CONNECTIONS

    def init_process(self) -> None:
        self.log.error_log.addFilter(ServerRefusals())
        super().init_process()

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        # Not in the signal's handler, which may have broken in on whoever writes a line.
        gevent.spawn(self._say_what_runs)

    def _say_what_runs(self) -> None:
        from chat.turns import registry  # by now the application is loaded

        if running := registry.count():
            self.log.warning("stops when %d running %s ended", running, "reply has" if running == 1 else "replies have")

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        connected: Any = ClientSocket(client, self._idle)
        self._open += 1
        if self.is_crowded and self._idle:
            self._idle.popitem(last=False)[0].hang_up()
        try:
            super().handle(listener, connected, addr)
        finally:
            connected.end_parsing()
            self._open -= 1

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> bool:
        sock.begin()
        try:
            answered = super().handle_request(listener_name, req, sock, addr)
            # Whoever still sends what was refused keeps no other away.
            self._idle[sock] = None
            if not drained(req.body, sock) or self.is_crowded:
                sock.hang_up()
            return answered
        finally:
            self._idle.pop(sock, None)
            sock.end()


def drained(body: Any, sock: ClientSocket) -> bool:
    """Read the rest of a body to its end, in pieces larger than gunicorn's of 1 kB, and tell whether it came to it.

    A connection that is closed while a client sends loses the answer, which says why the body was refused.
    """
    sock.begin()
    with suppress(Exception):  # of gunicorn, which has no class for all of them but Exception
        if len(body.read(PIECE_BYTES)) < PIECE_BYTES:
            return True
        with draining.held("a client"):
            for _ in range(MAX_UNREAD_BYTES // TURN_BYTES):
                gevent.sleep(DRAIN_PAUSE_SECONDS)
                if len(body.read(TURN_BYTES)) < TURN_BYTES:
                    return True
    return False
