"""Group commit: requests of one kind that come at once share a transaction.

Each kind has a lane: a thread with a connection of its own. It commits together what was queued while the last commit
ran, so one request alone waits for nobody, and many cost little more than one. Who waits is told after the commit.

Where a batch fails, nothing of it is written, and a request that cannot be written costs the others little: where it is
known which one it is, the others run again together; where it is not, the batch is halved until it is found. What needs
a look at the database before it goes on, and what is large, runs alone, on its own connection. Where the database has
trouble of its own (a row that somebody has locked), each request runs alone.
"""

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any, Generic, TypeVar

import psycopg
from django.db import OperationalError, transaction

from analytics.causes import cause
from analytics.fair_queue import FairQueue
from analytics.fairness import Owner, outside, working_for
from chat.sql import DjangoSession, Session, retry_deadlocks
from chat.turns.connections import LastingSession, lasting_session

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")

# Requests in one transaction, and the bytes that they write: one that writes more runs alone. So the transaction is
# short enough that nobody waits long for another's.
MAX_BATCH = 100
MAX_BATCH_BYTES = 1024 * 1024
# Transactions that are tried for one batch: those in which one of a hundred is found, and two more.
MAX_TRIES = 16
# Seconds that a request waits till its transaction begins, where nothing is lost if it is sent again later; and till it
# ends. A batch may take LANE.silence of them.
QUEUE_SECONDS = 2
WAIT_SECONDS = 6
# Seconds in which no lane tries to connect to a database that could not be reached.
RETRY_SECONDS = 1
# The database cannot go on, whatever is asked of it: halving a batch would find nobody.
TROUBLE = (psycopg.OperationalError, psycopg.InterfaceError, sqlite3.OperationalError, OperationalError)

_are_open = False


class Alone(Exception):
    """Raised in a batch, or the result of one request of it: this must have a transaction of its own."""


class Apart(Alone):
    """Raised in a batch that can be written without some requests, whose results are known already.

    `results` has them by the identity of the requests: maybe Alone. Where it is empty, the whole batch runs again.
    """

    def __init__(self, results: Mapping[int, Any]) -> None:
        super().__init__()
        self.results = results


class Ticket(Generic[Item, Result]):
    """A request in the queue of a lane, and what came of it."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.result: Result | None = None
        self.error: BaseException | None = None
        # A lock is the lightest thing that a thread can wait for.
        self.done = threading.Lock()
        self.done.acquire()
        # Who acquires this has the request: the lane, or the request itself once it has waited too long.
        self.begun = threading.Lock()

    def wait(self, patience: float) -> Result:
        """Return the result. Raises OperationalError where the queue stands still, or the database does not answer."""
        with outside():
            if not self.done.acquire(timeout=patience):
                if self.begun.acquire(blocking=False):
                    raise OperationalError("The queue for the database did not move.")
                if not self.done.acquire(timeout=max(WAIT_SECONDS - patience, 0)):
                    raise OperationalError("The database did not answer in time.")
        if self.error:
            raise self.error
        return self.result  # type: ignore[return-value]

    def tell(self, result: Any) -> None:
        if isinstance(result, Alone):
            self.error = result
        else:
            self.result = result


class Lane(Generic[Item, Result]):
    """Runs `work` for many requests in one transaction: of all clients in turn, and of each client in their order.

    `work` returns one result for each. It raises an exception where not all of them can be written together.
    `owner_of` says whose a request is, where its thread does not say it. `bytes_of` says how much a request writes.
    `patience`: seconds that a request waits in the queue.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Session, Sequence[Item]], Sequence[Result | Alone]],
        *,
        is_atomic: bool = True,
        owner_of: Callable[[Item], Owner] | None = None,
        bytes_of: Callable[[Item], int] | None = None,
        patience: float = QUEUE_SECONDS,
    ) -> None:
        self.name = name
        self.work = work
        self.is_atomic = is_atomic
        self.owner_of = owner_of
        self.bytes_of = bytes_of
        self.patience = patience
        self._queue: FairQueue[Ticket[Item, Result]] = FairQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed_until = 0.0

    @property
    def waiting(self) -> int:
        """How many requests are in the queue."""
        return len(self._queue)

    def run(self, item: Item) -> Result:
        """Return what came of one request, once it is committed. Raises what `work` raises for this request alone."""
        if _are_open and time.monotonic() >= self._closed_until and not self._is_large(item):
            with suppress(Alone):
                return self._queued(item)
        return retry_deadlocks(lambda: self._alone(item))

    def _alone(self, item: Item) -> Result:
        with transaction.atomic() if self.is_atomic else nullcontext():
            (result,) = self.work(DjangoSession(), [item])
        if isinstance(result, Alone):
            raise result
        return result

    def _is_large(self, item: Item) -> bool:
        return self.bytes_of is not None and self.bytes_of(item) > MAX_BATCH_BYTES

    def _queued(self, item: Item) -> Result:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._serve, name=f"lane-{self.name}", daemon=True)
                    self._thread.start()
        ticket: Ticket[Item, Result] = Ticket(item)
        self._queue.put(ticket, self.owner_of(item) if self.owner_of else working_for())
        return ticket.wait(self.patience)

    def _serve(self) -> None:
        session = lasting_session(self.name)
        while True:
            if tickets := self._next_batch():
                self._commit(session, tickets)
            for ticket in tickets:
                ticket.done.release()

    def _next_batch(self) -> list[Ticket[Item, Result]]:
        """Take what is queued, at most MAX_BATCH and twice MAX_BATCH_BYTES, but nothing whose client has been told."""
        tickets: list[Ticket[Item, Result]] = []
        left, ticket = MAX_BATCH_BYTES, self._queue.get()
        with suppress(queue.Empty):
            while True:
                if ticket.begun.acquire(blocking=False):
                    tickets.append(ticket)
                    left -= self.bytes_of(ticket.item) if self.bytes_of else 0
                if left <= 0 or len(tickets) >= MAX_BATCH:
                    break
                ticket = self._queue.get(block=False)
        return tickets

    def _commit(self, session: LastingSession, tickets: list[Ticket[Item, Result]]) -> None:
        """Run a batch, and note with each ticket what came of it."""
        batches, tries = [tickets], 0
        while batches and tries < MAX_TRIES:
            tries += 1
            batches += [left for left in self._try(session, batches.pop()) if left]
            if not session.is_connected:
                break
        for batch in batches:
            for ticket in batch:
                ticket.tell(Alone())

    def _try(self, session: LastingSession, batch: list[Ticket[Item, Result]]) -> list[list[Ticket[Item, Result]]]:
        """Run a batch. Returns those that are to be tried next. Whether a commit was made that fails is unknown."""
        results = None
        try:
            with session.transaction(is_atomic=self.is_atomic):
                results = self.work(session, [ticket.item for ticket in batch])
        except Apart as apart:
            for ticket in batch:
                if id(ticket.item) in apart.results:
                    ticket.tell(apart.results[id(ticket.item)])
            return [[ticket for ticket in batch if id(ticket.item) not in apart.results]]
        except Exception as exc:
            if not isinstance(exc, Alone):
                logger.warning("%s: a batch of %d failed: %s", self.name, len(batch), cause(exc))
            if not session.is_connected:
                self._closed_until = time.monotonic() + RETRY_SECONDS
            is_in_doubt = results is not None or session.is_in_doubt
            if not is_in_doubt and len(batch) > 1 and session.is_connected and not isinstance(exc, (Alone, *TROUBLE)):
                return [batch[len(batch) // 2 :], batch[: len(batch) // 2]]
            for ticket in batch:
                ticket.error = OperationalError("The commit failed.") if is_in_doubt else Alone()
            return []
        for ticket, result in zip(batch, results, strict=True):
            ticket.tell(result)
        return []


def open_all() -> None:
    """Let requests of this process share transactions. Until then each has its own, or is a part of its caller's."""
    global _are_open
    _are_open = True
