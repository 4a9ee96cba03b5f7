"""What all clients of a process share, and how much of it one of them may take.

Each `Share` has a bound. An owner may take of it as much as is left for others, or a multiple of that: so whoever comes
next finds something, and nobody has to know how many will come. This is the dynamic threshold of A. Choudhury and
E. Hahne ("Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998). Who finds nothing waits a stated
time at most, and owners that wait are served in turns, however many requests of one of them wait.
"""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Protocol

from django.db import connections

Owner = Hashable


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


class Queues:
    """Requests that wait, by their owners, of whom the first has waited longest. Whoever uses it holds a lock."""

    def __init__(self) -> None:
        # Ordered, so that whoever leaves costs the same wherever it stands.
        self._waiting: dict[Owner, OrderedDict[Waiter, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, owner: Owner) -> bool:
        return owner in self._waiting

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def owners(self) -> list[Owner]:
        return list(self._waiting)

    def count(self, owner: Owner) -> int:
        return len(self._waiting.get(owner, ()))

    def add(self, owner: Owner, amount: int = 1, *, is_first: bool = False) -> Waiter:
        waiter, waiting = Waiter(amount), self._waiting.setdefault(owner, OrderedDict())
        waiting[waiter] = None
        if is_first:
            waiting.move_to_end(waiter, last=False)
        return waiter

    def first(self, owner: Owner) -> Waiter:
        return next(iter(self._waiting[owner]))

    def serve(self, owner: Owner) -> None:
        """Wake the first request of an owner, whose others wait behind those of all other owners from now on."""
        waiting = self._waiting.pop(owner)
        waiter, _ = waiting.popitem(last=False)
        if waiting:
            self._waiting[owner] = waiting
        waiter.is_served = True
        waiter.bell.release()

    def leave(self, owner: Owner, waiter: Waiter) -> bool:
        """Take a request out, and return whether it was still there: it may have been served at the last moment."""
        if waiter.is_served:
            return False
        waiting = self._waiting[owner]
        del waiting[waiter]
        if not waiting:
            del self._waiting[owner]
        return True


class Share:
    """`capacity` of something, of which an owner may hold at most `factor` times what is free then.

    `patience`: seconds that a request waits for its amount. Of one owner, at most `most_waiting` requests wait.
    """

    def __init__(
        self,
        capacity: Callable[[], int],
        *,
        factor: int = 1,
        patience: float = 0,
        most_waiting: int = 0,
    ) -> None:
        self.capacity = capacity
        self.factor = factor
        self.patience = patience
        self.most_waiting = most_waiting
        self._held: Counter[Owner] = Counter()
        self._taken = 0
        self._waiting = Queues()
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        return self._taken

    def take(self, owner: Owner, amount: int = 1) -> None:
        """Take an amount, once it is there. Raises Busy where it is not there in time."""
        self._take(owner, amount, self.patience)

    def take_turn(self, owner: Owner) -> bool:
        """Take one, and tell whether that came in time. Raises Busy where it did not come in twice that time.

        Whoever comes too late has a turn all the same, in which to say so: to refuse many takes time as well.
        """
        began = time.monotonic()
        self._take(owner, 1, 2 * self.patience)
        return time.monotonic() - began <= self.patience

    def _take(self, owner: Owner, amount: int, seconds: float) -> None:
        with self._lock:
            if owner not in self._waiting and self._fits(owner, amount):
                self._add(owner, amount)
                return
            if self._waiting.count(owner) >= self.most_waiting or amount > self.capacity():
                raise Busy
            waiter = self._waiting.add(owner, amount)
        close_connection()
        try:
            with outside():
                waiter.bell.acquire(timeout=seconds)
        except BaseException:
            # The server has given the connection up.
            if not self._leave(owner, waiter):
                self.give_back(owner, amount)
            raise
        if self._leave(owner, waiter):
            raise Busy

    def _leave(self, owner: Owner, waiter: Waiter) -> bool:
        with self._lock:
            return self._waiting.leave(owner, waiter)

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
            waiter = self._waiting.add(owner, is_first=True)
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
        is_served = True
        while is_served:
            is_served = False
            for owner in self._waiting.owners():
                if self._fits(owner, amount := self._waiting.first(owner).amount):
                    self._add(owner, amount)
                    self._waiting.serve(owner)
                    is_served = True


class Turns(Protocol):
    """What a thread holds only while it works: one of a share, or a turn of the processor."""

    def take_turn(self, owner: Owner) -> bool: ...

    def resume(self, owner: Owner) -> None: ...

    def give_back(self, owner: Owner) -> None: ...


class Work(threading.local):
    """What this thread holds only while it works, and since when it has worked without a break.

    That is seconds of its processor: on a busy machine others are not to wait for what the system took from it.
    """

    def __init__(self) -> None:
        self.held: list[tuple[Turns, Owner]] = []
        self.away: Owner = None  # for whom, while it waits in `outside`
        self.since = 0.0


work = Work()


def working_for() -> Owner:
    """Return the owner for whom this thread works; None where nobody shares it."""
    return work.held[-1][1] if work.held else work.away


@contextmanager
def working(share: Turns, owner: Owner) -> Iterator[bool]:
    """Hold one of a share while this thread works, but not while it waits in `outside`.

    Yields whether it came in time. Raises Busy where it did not come at all.
    """
    is_in_time = share.take_turn(owner)
    work.held.append((share, owner))
    work.since = time.thread_time()
    try:
        yield is_in_time
    finally:
        work.held.pop()
        share.give_back(owner)


class outside:  # noqa: N801 a context manager, of which a turn has many: a generator takes twice as long
    """Let others work while this thread waits: for a client, the database, the upstream or another request."""

    __slots__ = ("_held",)

    def __enter__(self) -> None:
        self._held = work.held
        if self._held:
            work.held, work.away = [], self._held[-1][1]
            for share, owner in self._held:
                share.give_back(owner)

    def __exit__(self, *_: object) -> None:
        if self._held:
            # The scarcest first. Whoever waited for it with a turn of the processor would keep that from its holder.
            for share, owner in reversed(self._held):
                share.resume(owner)
            work.held, work.away = self._held, None
            work.since = time.thread_time()


def breathe() -> None:
    """Let others work before the next piece of a request."""
    with outside():
        time.sleep(0)


def close_connection() -> None:
    """Give the connection back to the pool, unless a transaction is open: before waiting for anything else."""
    for found in connections.all(initialized_only=True):
        # A request asks this several times, and mostly there is none.
        if found.connection is not None and not found.in_atomic_block:
            found.close()
