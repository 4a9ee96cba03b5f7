"""Readers of a stream that another process runs, on this node or on another one. Over PostgreSQL's LISTEN and NOTIFY.

A reader's process asks all processes for the stream. The one that runs it sends the log from its beginning, and then
what is new each TICK_SECONDS, until nobody reads. So a stream that nobody joins costs nothing.

One thread does all of this, with a connection of its own: LISTEN lasts as long as its connection. Where LISTEN does not
work, as behind PgBouncer in transaction mode, a duplicate waits for the end of the turn.
"""

import logging
import secrets
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from weakref import WeakValueDictionary

import psycopg
from django.db import Error, connection
from psycopg import Notify

from analytics.causes import cause
from chat.database import CLIENT, waiting_as
from chat.turns import registry
from chat.turns.connections import connect
from chat.turns.idempotency import Idempotency
from chat.turns.remote import Publication, RemoteLog
from chat.turns.reply_log import ReplyLog

logger = logging.getLogger(__name__)

# All processes listen here for who wants to follow a stream.
QUESTIONS = "llmapi_streams"
# NOTIFY locks the whole database for the moment of its commit, so chunks are sent together, for all streams at once.
TICK_SECONDS = 0.05
# A reply whose process says nothing for so long is looked up in the database.
SILENCE_SECONDS = 3
# A reply that cannot be looked up either ends after this: its lease has ended as well.
GIVE_UP_SECONDS = 60
# Until a search for a duplicate looks whether it still runs.
SEARCH_SECONDS = 0.1
# Between two attempts to connect, and to find out whether LISTEN works after all.
RECONNECT_SECONDS = 1
DEAF_SECONDS = 60
# One's own message, and how long it may take.
ECHO = "echo"
ECHO_SECONDS = 5
IDLE_SECONDS = 30
# At most so many reads of messages before others have their turn.
READS = 50

NOTIFY = "SELECT count(pg_notify(channel, payload)) FROM unnest(%s::text[], %s::text[]) AS m(channel, payload)"


class Deaf(Exception):
    """LISTEN was accepted, and a message did not arrive."""


class Search:
    """Looks for the log of the running duplicate of a request, in this process and in all others."""

    def __init__(self, idempotency: Idempotency | None) -> None:
        self._idempotency = idempotency
        self._elsewhere: RemoteLog | None = None

    def __call__(self, request_id: str) -> ReplyLog | None:
        """Return the log of the turn. None where nobody has said so far that it streams the turn."""
        assert self._idempotency is not None
        log = registry.stream_of(request_id)
        if log and log.idempotency == self._idempotency:
            return log
        if not _listener:
            return None
        if self._elsewhere is None or self._elsewhere.request_id != request_id:
            self._elsewhere = _listener.follow(self._idempotency, request_id)
        if self._elsewhere and self._elsewhere.wait_until_found(SEARCH_SECONDS):
            return self._elsewhere
        return None


class Listener(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="broadcast", daemon=True)
        self.channel = f"llmapi_{secrets.token_hex(8)}"
        self._is_listening = False
        self._publications: dict[str, Publication] = {}
        # A log lives as long as a request reads it.
        self._followed: WeakValueDictionary[str, RemoteLog] = WeakValueDictionary()
        self._lock = threading.Lock()
        self._rescuer: threading.Thread | None = None
        self._due_at = 0.0  # when what is new is sent next (monotonic seconds)
        # Ends the wait of the thread.
        self._bell, self._door = socket.socketpair()
        self._bell.setblocking(False)
        self._door.setblocking(False)

    def follow(self, idempotency: Idempotency, request_id: str) -> RemoteLog | None:
        """Return the log of a stream that runs elsewhere, and ask for it; None where this process hears nothing."""
        if not self._is_listening:
            return None
        with self._lock:
            log = self._followed.get(request_id)
            if log is None or log.is_closed:
                log = self._followed[request_id] = RemoteLog(idempotency, request_id)
        with suppress(BlockingIOError):  # It has been rung often enough.
            self._bell.send(b".")
        return log

    def is_read(self) -> bool:
        """Tell whether anybody reads the stream of another process here."""
        return bool(self._open_logs())

    def break_off(self) -> None:
        """End all logs of other processes' streams by an error: this process stops."""
        for log in self._open_logs():
            log.break_off()

    def flush(self, seconds: float) -> None:
        """Wait until the ends of all streams are sent."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not all(one.is_sent() for one in list(self._publications.values())):
            time.sleep(0.01)

    def run(self) -> None:
        pause = 0
        while True:
            try:
                time.sleep(pause)
                self._rescue()
                with connect(application_name="llmapi-listener") as own:
                    self._listen(own)
                    pause = 0
                    self._serve(own)
            except Deaf:
                logger.warning("LISTEN does not work here: streams of other processes cannot be joined")
                pause = DEAF_SECONDS
            except (psycopg.Error, Error, OSError) as exc:
                if self._is_listening:
                    logger.warning("the connection that listens was lost: %s", cause(exc))
                pause = 0 if self._is_listening else RECONNECT_SECONDS
            except Exception:
                logger.exception("broadcast failed")
                pause = RECONNECT_SECONDS
            finally:
                self._is_listening = False

    def _listen(self, own: psycopg.Connection) -> None:
        """Listen, and hear a message that another connection sends. Raises Deaf where it does not arrive."""
        own.execute(f"LISTEN {QUESTIONS}")
        own.execute(f"LISTEN {self.channel}")
        try:
            with waiting_as(CLIENT), connection.cursor() as cursor:
                cursor.execute("SELECT pg_notify(%s, %s)", [self.channel, ECHO])
        finally:
            connection.close()
        with closing(own.notifies(timeout=ECHO_SECONDS)) as notices:
            # A process that this one followed before may send frames to it meanwhile.
            if not any((notice.channel, notice.payload) == (self.channel, ECHO) for notice in notices):
                raise Deaf

    def _serve(self, own: psycopg.Connection) -> None:
        """Pass messages on, both ways, until the connection is lost."""
        self._is_listening = True
        has_sent = False
        # What arrives while a statement runs.
        inbox: deque[Notify] = deque()
        own.add_notify_handler(inbox.append)
        with selectors.DefaultSelector() as selector:
            selector.register(own.fileno(), selectors.EVENT_READ)
            selector.register(self._door, selectors.EVENT_READ)
            while True:
                # With the answer to a statement, messages may have been read: the next look must not wait for others.
                selector.select(0 if has_sent else self._seconds_to_wait())
                with suppress(BlockingIOError):
                    self._door.recv(4096)
                asked = set()
                for channel, payload in heard(own, inbox):
                    try:
                        if channel == QUESTIONS:
                            asked.add(self._answer(*payload.split(" ")))
                        elif payload != ECHO:
                            self._receive(*payload.split(" ", 2))
                    except (TypeError, ValueError):
                        logger.warning("a message on %s is none of ours", channel)
                self._rescue()
                has_sent = self._send(own, asked)

    def _seconds_to_wait(self) -> float:
        if self._publications:
            return max(self._due_at - time.monotonic(), 0)
        return TICK_SECONDS if self._followed else IDLE_SECONDS

    def _answer(self, request_id: str, channel: str, attempt: str, position: str) -> str:
        """Subscribe the channel, if this process runs the stream. Returns its id."""
        publication = self._publications.get(request_id)
        if publication is None and (log := registry.stream_of(request_id)):
            publication = self._publications[request_id] = Publication(request_id, log)
        if publication:
            publication.subscribe(channel, int(attempt), int(position))
        return request_id

    def _receive(self, request_id: str, offset: str, data: str) -> None:
        if log := self._followed.get(request_id):
            log.receive(int(offset), data.encode())

    def _send(self, own: psycopg.Connection, asked: set[str]) -> bool:
        """Send what is to be asked, what was `asked` for, and all that is new if it is time.

        Tell whether there was anything to send.
        """
        questions = [(log, log.question()) for log in self._open_logs()]
        messages = [(QUESTIONS, f"{log.request_id} {self.channel} {asking}") for log, asking in questions if asking]
        now = time.monotonic()
        is_due = now >= self._due_at
        due = [one for one in self._publications.values() if is_due or one.request_id in asked]
        for publication in due:
            publication.gather()
            messages += publication.frames()
        if messages:
            own.execute(NOTIFY, [[channel for channel, _ in messages], [payload for _, payload in messages]])
        for publication in due:
            publication.mark_sent()
        if is_due:
            self._due_at = now + TICK_SECONDS
            self._publications = {one.request_id: one for one in self._publications.values() if one.is_wanted()}
        return bool(messages)

    def _open_logs(self) -> list[RemoteLog]:
        with self._lock:
            return [log for log in self._followed.values() if not log.is_closed]

    def _rescue(self) -> None:
        """Look those replies up whose process says nothing. In a thread: the database may take its time."""
        since = time.monotonic() - SILENCE_SECONDS
        silent = [log for log in self._open_logs() if log.is_found and max(log.heard_at, log.looked_up_at) < since]
        if silent and not (self._rescuer and self._rescuer.is_alive()):
            self._rescuer = threading.Thread(target=rescue, args=(silent,), name="rescuer", daemon=True)
            self._rescuer.start()


def heard(own: psycopg.Connection, inbox: deque[Notify]) -> Iterator[tuple[str, str]]:
    """Yield channel and payload of all messages that have arrived. One read brings 16 KiB at most, so it reads on."""
    for _ in range(READS):
        while inbox:
            notice = inbox.popleft()
            yield notice.channel, notice.payload
        own.pgconn.consume_input()
        is_dry = True
        while arrived := own.pgconn.notifies():
            is_dry = False
            yield arrived.relname.decode(), arrived.extra.decode()
        if is_dry:
            return


def rescue(silent: Iterable[RemoteLog]) -> None:
    """End the replies that have ended. One whose turn still runs may go on: its process may only be slow."""
    try:
        for log in silent:
            log.looked_up_at = time.monotonic()
            try:
                with waiting_as(CLIENT):
                    answer, is_running = log.idempotency.outcome(log.request_id)
            except Error:
                answer, is_running = None, time.monotonic() - log.heard_at < GIVE_UP_SECONDS
            if answer:
                log.finish(answer)
            elif not is_running:
                log.break_off()
    finally:
        connection.close()


_listener: Listener | None = None


def start() -> None:
    """Let this process join streams of others, and others join its own. Without it, or on SQLite, none can."""
    global _listener
    if connection.vendor == "postgresql":
        _listener = Listener()
        _listener.start()


def watch(is_serving: Callable[[], bool], seconds: float) -> None:
    """Once the server is told to stop, let readers of other processes' streams go on for `seconds`; then tell them.

    They come back, and join elsewhere.
    """
    while is_serving():
        time.sleep(0.5)
    deadline = time.monotonic() + seconds
    while _listener and _listener.is_read() and time.monotonic() < deadline:
        time.sleep(0.1)
    if _listener:
        _listener.break_off()


def flush(seconds: float) -> None:
    """Wait until other processes have been sent the ends of the streams of this one."""
    if _listener:
        _listener.flush(seconds)
