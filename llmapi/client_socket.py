"""A connection from a client, with bounds on what it may take: time, bytes, a place among the others."""

import errno
import random
import socket
import ssl
import time
from contextlib import suppress
from typing import Any

import gevent

from analytics.fairness import Busy, Owner, Share, outside
from analytics.processor import EBB, processor
from llmapi.client_connections import ClientConnections

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
# Bytes that are read of a head at first. gunicorn reads as many.
HEAD_BYTES = 8192
# States of a connection that the other side has closed, or reset: TCP_CLOSE and TCP_CLOSE_WAIT (tcp_states.h of Linux).
TCP_ENDS = {7, 8}
# The owner of connections that have sent no request yet.
NEWCOMER = "a new connection"


def sharing() -> Any:
    """The rules of the application, which is not loaded yet when gunicorn loads this module."""
    from chat.api import sharing

    return sharing


def gone(reason: str) -> ConnectionResetError:
    """Make the error that gunicorn takes for a client which has gone away: it logs nothing for each."""
    return ConnectionResetError(errno.ECONNRESET, reason)


def has_left(connected: Any) -> bool:
    """Tell whether the client has closed its side, also where it has sent something before. Only Linux knows.

    It may still read, but nginx, too, takes it for one that has left.
    """
    try:
        state = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except (AttributeError, OSError):  # another system, or a socket of another kind
        return False
    return state in TCP_ENDS


def secured(connected: Any, context: ssl.SSLContext | None, seconds: float) -> Any:
    """Agree with the client on TLS, where the server has it. Raises OSError where that takes longer, or fails."""
    if context is None:
        return connected
    connected.settimeout(seconds)
    return context.wrap_socket(connected, server_side=True)


class ClientSocket:
    """A connection from a client, which gunicorn reads and writes.

    While a request is under way, what is read is its body, and each wait lets others work.
    """

    def __init__(self, connected: Any, among: ClientConnections, head_seconds: float) -> None:
        self._socket = connected
        self._among = among
        self._head_seconds = head_seconds
        # Who seems to have sent the request: as the bytes of its head say, and then its parsed head.
        self.owner: Owner = NEWCOMER
        # The same while a head is parsed.
        self._parser: Owner = None
        self._body_until: float | None = None
        self._head_until = 0.0
        self._early = b""
        self._bytes_between = 0
        self._bytes_in_turn = 0
        self._is_over = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def belong_to(self, owner: Owner) -> None:
        """Note who has sent the request that is under way."""
        if owner != self.owner:
            self._among.give(self, owner)
            self.owner = owner

    def begin(self) -> None:
        """A head has come: what follows is its body."""
        self.end_parsing()
        self._body_until = time.monotonic() + BODY_SECONDS

    def end(self) -> None:
        """The request has been answered: what follows is the rest of its body, or the next head."""
        self._body_until = None
        self._bytes_between = 0

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

    def wait_for_first(self) -> bool:
        """Wait for the first bytes and for a turn to parse them, and tell whether anything came."""
        with suppress(OSError):
            self._early = self._between(HEAD_BYTES)
        return bool(self._early)

    def _between(self, size: int) -> bytes:
        if data := self._early:
            self._early = b""
            return data
        self.end_parsing()
        data = self._head(size)
        if data:
            self._bytes_between += len(data)
            if self._bytes_between > MAX_BYTES_BETWEEN:
                raise gone("too much was sent beside requests")
            self._take_turn()
        return data

    def _head(self, size: int) -> bytes:
        """Wait for bytes of the next head, and return none where it does not come in time.

        As long as nothing has come, the worker ends the wait: thousands of timers would end in one moment.
        """
        is_first = not self._bytes_between
        now = time.monotonic()
        if is_first:
            # Not all in one moment that came in one.
            self._head_until = now + self._head_seconds * random.uniform(1, 2)  # noqa: S311 no secret
        self._socket.settimeout(None if is_first else max(self._head_until - now, 0.001))
        self._among.quiet(self)
        try:
            data: bytes = self._socket.recv(size)
        except TimeoutError:
            return b""
        except OSError:
            # gevent also raises where it was hung up meanwhile.
            if self._is_over:
                return b""
            raise
        finally:
            self._among.busy(self)
        if is_first and data:
            self.belong_to(sharing().owner_of_head(data))
        return data

    def _take_turn(self) -> None:
        """Thousands of heads may come in one moment: they are parsed in turns, with the requests of all others.

        Raises ConnectionResetError where there was no turn in time, or the client has not waited for it.
        """
        if processor.is_flooded(self.owner):
            self._require_client()
        try:
            processor.wait_for_turn(self.owner, is_newest_first=self.owner in sharing().CROWDS)
        except Busy as exc:
            self._socket.settimeout(0)
            with suppress(OSError):
                self._socket.sendall(sharing().busy_answer())
                # What is not read resets the connection, and the answer is lost.
                self._socket.recv(PIECE_BYTES)
            raise gone("its head was not parsed in time") from exc
        self._parser = self.owner
        if processor.is_flooded(self.owner, least=EBB):
            self._require_client()

    def _require_client(self) -> None:
        """Raises ConnectionResetError where the client has left."""
        if has_left(self._socket):
            raise gone("it did not wait for its turn")

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
