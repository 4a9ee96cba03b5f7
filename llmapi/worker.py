"""gunicorn's worker for greenlets, with bounds on what a connection may take (llmapi/client_socket.py).

A connection may be quiet for `keepalive` seconds, and a head that has begun takes up to twice as long. When connections
run short, whoever has the most of them gives way (llmapi/client_connections.py). Bodies and answers have a least speed,
as with Apache's mod_reqtimeout. gunicorn has none of it, and looks only once a second whether it shall stop.
"""

import math
import time
from contextlib import nullcontext, suppress
from functools import partial
from ssl import SSLContext
from types import SimpleNamespace
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import GeventWorker

from analytics.processor import EBB, processor
from llmapi.client_connections import ClientConnections
from llmapi.client_socket import ClientSocket, drained, has_left, secured, sharing
from llmapi.logging import ServerRefusals

# Connections that are accepted before others have their turn, and the seconds that this may take.
MAX_ACCEPT = 64
ACCEPT_SECONDS = 0.002
# Seconds between two signs of life to the master, and between two looks for what has ended, with the most connections
# that are closed at one.
NOTIFY_SECONDS = 1
LOOK_SECONDS = 0.05
MAX_CLOSE = 8
# Seconds that the server works for a connection by itself: to open and to close it, and to close it at once.
CONNECTION = 0.0003
DROP = 0.0001
# Seconds after which a quiet connection is closed at a stop. One that was used since may have a request under way.
QUIET_SECONDS = 1


class Server(StreamServer):
    """Accepts the connections of one address: at least so many at a time, and more as long as more have come."""

    def __init__(self, *args: Any, least: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._least = self.max_accept = least
        self._until = math.inf

    def _do_read(self) -> None:
        self._until = time.monotonic() + ACCEPT_SECONDS
        try:
            super()._do_read()  # type: ignore[misc]
        finally:
            self._until = math.inf

    def do_read(self) -> Any:
        if time.monotonic() > self._until:
            return None
        accepted = super().do_read()
        self.max_accept = min(2 * self.max_accept, MAX_ACCEPT) if accepted else self._least
        return accepted

    def do_handle(self, connected: Any, address: Any) -> None:
        """Serve a connection, unless many wait and it has been closed already: thousands may come a second."""
        if processor.is_flooded(least=EBB) and has_left(connected):
            processor.charge(sharing().STRANGER, DROP)
            connected.close()
            return
        super().do_handle(connected, address)

    def close(self) -> None:
        """Accept those that have come before the end: the system would reset them with their requests."""
        with suppress(OSError):
            while not self.full() and (accepted := self.do_read()):
                self.do_handle(*accepted)
        super().close()


class Worker(GeventWorker):
    """Serves connections within these bounds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections = ClientConnections(self.worker_connections)
        self._stopping = Event()
        self._tls: SSLContext | None = None

    def init_process(self) -> None:
        self.log.error_log.addFilter(ServerRefusals())
        super().init_process()

    def run(self) -> None:
        """Serve until the stop, and then until the last answer has been sent, at most `graceful_timeout` seconds."""
        # Not for the listener: a client that does not agree on it would have no time limit.
        self._tls = ssl_context(self.cfg) if self.cfg.is_ssl else None
        pool = Pool(self.worker_connections)
        servers = [self._serve(listener, pool) for listener in self.sockets]
        closing = gevent.spawn(self._close_quiet)
        while self.alive:
            self.notify()
            self._stopping.wait(NOTIFY_SECONDS)
        closing.kill()
        for server in servers:
            server.close()
        until = time.monotonic() + self.cfg.graceful_timeout
        while pool and time.monotonic() < until:
            self.notify()
            self._connections.hang_up_quiet(QUIET_SECONDS, most=self.worker_connections)
            pool.join(timeout=LOOK_SECONDS)
        if pool:
            self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
            pool.kill(timeout=1)

    def _serve(self, listener: Any, pool: Pool) -> Server:
        listener.setblocking(1)
        # gunicorn asks for it at each connection, of which the last begin when the listener has been closed.
        address = listener.getsockname()
        named = SimpleNamespace(getsockname=lambda: address)
        # Of several processes each takes one at first: the next is for all.
        least = 1 if self.cfg.workers > 1 else MAX_ACCEPT
        server = Server(listener, partial(self.handle, named), spawn=pool, least=least)
        server.start()
        return server

    def _close_quiet(self) -> None:
        while True:
            gevent.sleep(LOOK_SECONDS)
            self._connections.hang_up_quiet(self.cfg.keepalive, most=MAX_CLOSE)

    def timeout_ctx(self) -> Any:
        """Leave the time of a head to its connection: gunicorn would also end one that is here and waits for a turn."""
        return nullcontext()

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        self._stopping.set()
        # Not in the signal's handler, which may have broken in on whoever writes a line.
        gevent.spawn(self._say_what_runs)

    def _say_what_runs(self) -> None:
        from chat.turns import registry  # by now the application is loaded

        if running := registry.count():
            self.log.warning("stops when %d running %s ended", running, "reply has" if running == 1 else "replies have")

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        try:
            client = secured(client, self._tls, self.cfg.keepalive)
        except OSError:
            client.close()
            return
        connected: Any = ClientSocket(client, self._connections, self.cfg.keepalive)
        self._connections.add(connected)
        processor.charge(sharing().STRANGER, CONNECTION)
        try:
            # Many send nothing, and none shall take much before its turn.
            if connected.wait_for_first():
                super().handle(listener, connected, addr)
        finally:
            connected.end_parsing()
            connected.close()
            self._connections.remove(connected)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> bool:
        sock.begin()
        try:
            answered = super().handle_request(listener_name, req, sock, addr)
            # Whoever still sends what was refused keeps no other away.
            self._connections.quiet(sock)
            if not drained(req.body, sock) or self._connections.has_too_many(sock.owner):
                sock.hang_up()
            return answered
        finally:
            self._connections.busy(sock)
            sock.end()
