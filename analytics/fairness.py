"""What all clients of a process share, and how much of it one of them may take.

Each `Share` has a bound. An owner may take of it as much as is left for others, or a multiple of that: so whoever comes
next finds something, and nobody has to know how many will come. This is the dynamic threshold of A. Choudhury and
E. Hahne ("Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998). Who finds nothing waits a stated
time at most, and owners that wait are served in turns, however many requests of one of them wait.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from django.db import connections

Owner = Hashable

# Seconds that an owner may work in one round, and the most that one piece of work counts as.
QUANTUM = 0.004
MAX_PIECE = 0.1
# Seconds that the server works for each request before it is known whose it is, and after it was answered.
OVERHEAD = 0.0006
# Seconds between two rounds: a greenlet that sleeps for 0 seconds lets no socket be read. And how long a round lasts in
# which nobody waits.
PAUSE = 0.0005
QUIET_ROUND = 0.02
# Seconds for which owners are rivals, after a request of another one.
RIVALRY = 1.0


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
        self._waiting: dict[Owner, deque[Waiter]] = {}
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
            waiting = self._waiting.get(owner)
            if not waiting and self._fits(owner, amount):
                self._add(owner, amount)
                return
            if (len(waiting) if waiting else 0) >= self.most_waiting or amount > self.capacity():
                raise Busy
            waiter = Waiter(amount)
            self._waiting.setdefault(owner, deque()).append(waiter)
        close_connection()
        is_served = False
        try:
            with outside():
                is_served = waiter.bell.acquire(timeout=seconds)
        except BaseException:
            # The server has given the connection up.
            self._leave(owner, waiter, is_needed=False)
            raise
        if not is_served and not self._leave(owner, waiter):
            raise Busy

    def _leave(self, owner: Owner, waiter: Waiter, *, is_needed: bool = True) -> bool:
        """Wait no longer. Return whether the amount came at the last moment; where it is not needed, give it back."""
        with self._lock:
            if not waiter.is_served:
                waiting = self._waiting[owner]
                waiting.remove(waiter)
                if not waiting:
                    del self._waiting[owner]
                return False
        if not is_needed:
            self.give_back(owner, waiter.amount)
        return is_needed

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
        self.held: list[tuple[Share | Processor, Owner]] = []
        self.since = 0.0


class Processor:
    """Lets owners work in rounds, each for QUANTUM in a round, while there is more than one of them.

    Greenlets run one after another, in the order in which what they wait for is there. So nothing is held here that
    others could wait for: an owner that has used up its quantum waits until all others that are ready have run, which
    is the next round. Whoever has worked for longer waits for as many rounds. This is deficit round robin (M. Shreedhar
    and G. Varghese, "Efficient Fair Queuing Using Deficit Round Robin", 1996).

    `patience`: seconds that a request waits to begin. Of one owner, at most `most_waiting` requests wait.
    """

    def __init__(self, *, patience: float, most_waiting: int) -> None:
        self.patience = patience
        self.most_waiting = most_waiting
        self._used: dict[Owner, float] = {}
        self._waiting: dict[Owner, deque[Waiter]] = {}
        self._round_at = 0.0
        self._last_owner: Owner = None
        self._rivals_until = 0.0
        self._has_driver = False
        self._lock = threading.Lock()

    def take_turn(self, owner: Owner) -> bool:
        """Begin to work, and tell whether that was in time. Raises Busy where it was not even in twice that time.

        Whoever comes too late has a turn all the same, in which to say so: to refuse many takes time as well.
        """
        began = time.monotonic()
        with self._lock:
            if owner not in self._waiting and self._may_run(owner, began):
                if began < self._rivals_until:
                    self._used[owner] = self._used.get(owner, 0) + OVERHEAD
                return True
            if len(self._waiting.get(owner, ())) >= self.most_waiting:
                raise Busy
            waiter = self._enqueue(owner)
        close_connection()
        try:
            is_served = waiter.bell.acquire(timeout=2 * self.patience)
        finally:
            if not waiter.is_served:
                self._leave(owner, waiter)
        if not is_served and not waiter.is_served:
            raise Busy
        with self._lock:
            self._used[owner] = self._used.get(owner, 0) + OVERHEAD
        return time.monotonic() - began <= self.patience

    def resume(self, owner: Owner) -> None:
        """Go on, before those of this owner that have not begun, and however long it takes."""
        with self._lock:
            if self._may_run(owner, time.monotonic()):
                return
            waiter = self._enqueue(owner, is_first=True)
        waiter.bell.acquire()

    def give_back(self, owner: Owner) -> None:
        """End a piece of work."""
        now = time.monotonic()
        with self._lock:
            if now < self._rivals_until:
                self._used[owner] = self._used.get(owner, 0) + min(now - _work.since, MAX_PIECE)
            if owner in self._waiting and self._used.get(owner, 0) < QUANTUM:
                self._wake(owner)

    def _may_run(self, owner: Owner, now: float) -> bool:
        if owner != self._last_owner:
            self._last_owner, self._rivals_until = owner, now + RIVALRY
        if now >= self._rivals_until:
            return True
        if not self._has_driver and now - self._round_at > QUIET_ROUND:
            self._round_at = now
            self._used.clear()
        return self._used.get(owner, 0) < QUANTUM

    def _enqueue(self, owner: Owner, *, is_first: bool = False) -> Waiter:
        waiter = Waiter(1)
        waiting = self._waiting.setdefault(owner, deque())
        (waiting.appendleft if is_first else waiting.append)(waiter)
        if not self._has_driver:
            self._has_driver = True
            threading.Thread(target=self._drive, name="rounds", daemon=True).start()
        return waiter

    def _leave(self, owner: Owner, waiter: Waiter) -> None:
        with self._lock:
            if not waiter.is_served:
                waiting = self._waiting[owner]
                waiting.remove(waiter)
                if not waiting:
                    del self._waiting[owner]

    def _wake(self, owner: Owner) -> None:
        waiting = self._waiting[owner]
        waiter = waiting.popleft()
        if not waiting:
            del self._waiting[owner]
        waiter.is_served = True
        waiter.bell.release()

    def _drive(self) -> None:
        """Begin a round whenever all who were ready have run, as long as anybody waits."""
        while True:
            time.sleep(PAUSE)
            with self._lock:
                if not self._waiting:
                    self._has_driver = False
                    self._round_at = time.monotonic()
                    return
                self._begin_round()

    def _begin_round(self) -> None:
        self._used = {owner: used - QUANTUM for owner, used in self._used.items() if used > QUANTUM}
        for owner in list(self._waiting):
            if self._used.get(owner, 0) < QUANTUM:
                self._wake(owner)


_work = Work()


@contextmanager
def working(share: Share | Processor, owner: Owner) -> Iterator[bool]:
    """Hold one of a share while this thread works, but not while it waits in `outside`.

    Yields whether it came in time. Raises Busy where it did not come at all.
    """
    is_in_time = share.take_turn(owner)
    _work.held.append((share, owner))
    _work.since = time.monotonic()
    try:
        yield is_in_time
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
    """Let others work before the next piece of a request."""
    with outside():
        time.sleep(0)


def close_connection() -> None:
    """Give the connection back to the pool, unless a transaction is open: before waiting for anything else."""
    for found in connections.all(initialized_only=True):
        # A request asks this several times, and mostly there is none.
        if found.connection is not None and not found.in_atomic_block:
            found.close()
