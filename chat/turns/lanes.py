"""Group commit: requests of one kind that come at once share a transaction.

Each kind has a lane: a thread with a connection of its own. It commits together what was queued while the last commit
ran, so one request alone waits for nobody, and many cost little more than one. Who waits is told after the commit.

Where a batch fails, nothing of it is written, and each request runs again alone, on its own connection: so one that
cannot be written spoils no other, and what needs a look at the database before it goes on has it there.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Generic, TypeVar

from django.db import OperationalError, transaction

from chat.sql import DjangoSession, Session
from chat.turns.connections import LastingSession, lasting_session

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")

# Requests in one transaction. It is short enough that nobody waits long for another's.
MAX_BATCH = 100
# Seconds that a request waits for its transaction. A batch may take LANE.silence of them.
WAIT_SECONDS = 6
# Seconds in which no lane tries to connect to a database that could not be reached.
RETRY_SECONDS = 1

_are_open = False


class Alone(Exception):
    """Raised in a batch for a request that must have a transaction of its own."""


class Ticket(Generic[Item, Result]):
    """A request in the queue of a lane, and what came of it."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.is_given_up = False
        # A lock is the lightest thing that a thread can wait for.
        self.done = threading.Lock()
        self.done.acquire()

    def wait(self) -> Result:
        if not self.done.acquire(timeout=WAIT_SECONDS):
            self.is_given_up = True
            raise OperationalError("The database did not answer in time.")
        if self.error:
            raise self.error
        return self.result  # type: ignore[return-value]


class Lane(Generic[Item, Result]):
    """Runs `work` for many requests in one transaction, in the order in which they came.

    `work` returns one result for each. It raises an exception where not all of them can be written together.
    """

    def __init__(
        self, name: str, work: Callable[[Session, Sequence[Item]], list[Result]], *, is_atomic: bool = True
    ) -> None:
        self.name = name
        self.work = work
        self.is_atomic = is_atomic
        self._queue: queue.SimpleQueue[Ticket[Item, Result]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed_until = 0.0

    def run(self, item: Item) -> Result:
        """Return what came of one request, once it is committed. Raises what `work` raises for this request alone."""
        if _are_open and time.monotonic() >= self._closed_until:
            with suppress(Alone):
                return self._queued(item)
        with transaction.atomic() if self.is_atomic else nullcontext():
            return self.work(DjangoSession(), [item])[0]

    def _queued(self, item: Item) -> Result:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._serve, name=f"lane-{self.name}", daemon=True)
                    self._thread.start()
        ticket: Ticket[Item, Result] = Ticket(item)
        self._queue.put(ticket)
        return ticket.wait()

    def _serve(self) -> None:
        session = lasting_session(self.name)
        while True:
            tickets = [self._queue.get()]
            with suppress(queue.Empty):
                while len(tickets) < MAX_BATCH:
                    tickets.append(self._queue.get_nowait())
            # Nobody takes the result of one that was given up in the queue.
            tickets = [ticket for ticket in tickets if not ticket.is_given_up]
            if tickets:
                self._commit(session, tickets)
            for ticket in tickets:
                ticket.done.release()

    def _commit(self, session: LastingSession, tickets: list[Ticket[Item, Result]]) -> None:
        """Run a batch, and note with each ticket what came of it. Whether a commit was made that fails is unknown."""
        results = None
        try:
            with session.transaction(is_atomic=self.is_atomic):
                results = self.work(session, [ticket.item for ticket in tickets])
        except Exception as exc:
            if not isinstance(exc, Alone):
                logger.warning("%s: a batch of %d failed: %s", self.name, len(tickets), type(exc).__name__)
            if not session.is_connected:
                self._closed_until = time.monotonic() + RETRY_SECONDS
            for ticket in tickets:
                ticket.error = (
                    Alone() if results is None and not session.is_in_doubt else OperationalError("The commit failed.")
                )
            return
        for ticket, result in zip(tickets, results, strict=True):
            ticket.result = result


def open_all() -> None:
    """Let requests of this process share transactions. Until then each has its own, or is a part of its caller's."""
    global _are_open
    _are_open = True
