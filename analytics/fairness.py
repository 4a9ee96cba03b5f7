"""What all clients of a process share, and how much of it one of them may take.

Each share has a bound. One owner may take of it as much as is left for others, or a multiple of that: so whoever comes
next finds something, and nobody has to know how many will come. This is the dynamic threshold of A. Choudhury and
E. Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches" (1998). Who finds nothing waits a stated
time at most, and owners that wait are served in turns, however many requests of one of them wait.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from django.db import connections

Owner = Hashable

# Seconds: the longest that one piece of a large request makes the next piece wait.
MAX_PAUSE = 0.1


class Busy(Exception):
    """Nothing was left for the owner in time."""


class Waiter:
    """A request that waits for an amount of a share."""

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.is_served = False
        # A lock is the lightest thing that a thread can wait for.
        self.bell = threading.Lock()
        self.bell.acquire()


class Share:
    """`capacity` of something, of which an owner may hold at most `factor` times what is free then.

    `patience`: seconds that a request waits for its amount. Of one owner, at most `most_waiting` requests wait.
    `is_paced`: who works with it pauses between two pieces for as long as the last one took.
    """

    def __init__(
        self,
        capacity: Callable[[], int],
        *,
        factor: int = 1,
        patience: float = 0,
        most_waiting: int = 0,
        is_paced: bool = False,
    ) -> None:
        self.capacity = capacity
        self.is_paced = is_paced
        self.factor = factor
        self.patience = patience
        self.most_waiting = most_waiting
        self._held: Counter[Owner] = Counter()
        self._taken = 0
        self._waiting: dict[Owner, deque[Waiter]] = {}
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        return self._taken

    def take(self, owner: Owner, amount: int = 1) -> None:
        """Take an amount, once it is there. Raises Busy where it is not there in time."""
        with self._lock:
            waiting = self._waiting.get(owner)
            if not waiting and self._fits(owner, amount):
                self._add(owner, amount)
                return
            if (len(waiting) if waiting else 0) >= self.most_waiting or amount > self.capacity():
                raise Busy
            waiter = Waiter(amount)
            self._waiting.setdefault(owner, deque()).append(waiter)
        close_connection()
        with outside():
            is_served = waiter.bell.acquire(timeout=self.patience)
        if is_served:
            return
        with self._lock:
            if waiter.is_served:  # while it gave up
                return
            waiting = self._waiting[owner]
            waiting.remove(waiter)
            if not waiting:
                del self._waiting[owner]
        raise Busy

    @contextmanager
    def held(self, owner: Owner, amount: int = 1) -> Iterator[None]:
        """Hold an amount. Raises Busy."""
        self.take(owner, amount)
        try:
            yield
        finally:
            self.give_back(owner, amount)

    def resume(self, owner: Owner) -> None:
        """Take one again, before those of this owner that have not begun, and however long it takes."""
        with self._lock:
            if self._fits(owner, 1):
                self._add(owner, 1)
                return
            waiter = Waiter(1)
            self._waiting.setdefault(owner, deque()).appendleft(waiter)
        waiter.bell.acquire()

    def force(self, owner: Owner, amount: int = 1) -> None:
        """Take an amount without asking: what has begun is to be ended."""
        with self._lock:
            self._add(owner, amount)

    def give_back(self, owner: Owner, amount: int = 1) -> None:
        with self._lock:
            self._taken -= amount
            self._held[owner] -= amount
            if not self._held[owner]:
                del self._held[owner]
            if self._waiting:
                self._serve()

    def _fits(self, owner: Owner, amount: int) -> bool:
        free = self.capacity() - self._taken
        held = self._held.get(owner, 0)
        # The first of an owner is small beside the share, or the share is meant for one at a time.
        return amount <= free and (not held or held + amount <= self.factor * free)

    def _add(self, owner: Owner, amount: int) -> None:
        self._taken += amount
        self._held[owner] += amount

    def _serve(self) -> None:
        """Give what is free to those who wait: one request of each owner in turn, until nothing fits any of them."""
        refused = 0
        while refused < len(self._waiting):
            owner, waiting = next(iter(self._waiting.items()))
            del self._waiting[owner]
            if self._fits(owner, waiting[0].amount):
                waiter = waiting.popleft()
                self._add(owner, waiter.amount)
                waiter.is_served = True
                waiter.bell.release()
                refused = 0
            else:
                refused += 1
            if waiting:
                self._waiting[owner] = waiting


class Work(threading.local):
    """What this thread holds only while it works, and since when it has worked without a break (monotonic seconds)."""

    def __init__(self) -> None:
        self.held: list[tuple[Share, Owner]] = []
        self.since = 0.0


_work = Work()


@contextmanager
def working(share: Share, owner: Owner) -> Iterator[None]:
    """Hold one of a share while this thread works, but not while it waits in `outside`. Raises Busy."""
    share.take(owner)
    _work.held.append((share, owner))
    _work.since = time.monotonic()
    try:
        yield
    finally:
        _work.held.pop()
        share.give_back(owner)


class outside:  # noqa: N801 a context manager, of which a turn has many: a generator takes twice as long
    """Let others work while this thread waits: for a client, the database, the upstream or another request."""

    __slots__ = ("_held",)

    def __enter__(self) -> None:
        self._held = _work.held
        if self._held:
            _work.held = []
            for share, owner in self._held:
                share.give_back(owner)

    def __exit__(self, *_: object) -> None:
        if self._held:
            # The scarcest first. Whoever waited for it with a turn of the processor would keep that from its holder.
            for share, owner in reversed(self._held):
                share.resume(owner)
            _work.held = self._held
            _work.since = time.monotonic()


def breathe() -> None:
    """Let others work before the next piece of a request.

    Large requests let them work for as long as their own last piece took: so all large ones together take half of the
    processor's time at most while others want it.
    """
    is_paced = any(share.is_paced for share, _ in _work.held)
    seconds = min(time.monotonic() - _work.since, MAX_PAUSE) if is_paced else 0
    with outside():
        time.sleep(seconds)


def close_connection() -> None:
    """Give the connection back to the pool, unless a transaction is open: before waiting for anything else."""
    for found in connections.all(initialized_only=True):
        # A request asks this several times, and mostly there is none.
        if found.connection is not None and not found.in_atomic_block:
            found.close()
