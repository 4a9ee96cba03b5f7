"""The processor of a process, which runs Python for one request at a time: whose turn it is."""

import _thread
import threading
import time
from collections import deque

from analytics.fairness import Busy, Owner, Queues, Waiter, close_connection, work

# Seconds that an owner may work in one round, and the most that one piece of work counts as.
QUANTUM = 0.002
MAX_PIECE = 0.1
# Seconds that the server works for each request before it is known whose it is, and after it was answered.
OVERHEAD = 0.0006
# Seconds that it takes to refuse a head.
REFUSAL = 0.0003
# Requests that wait: from so many on, clients that have left are not let in, and down to so many they have no turn.
FLOOD = 100
EBB = 50
# Seconds between two rounds: a greenlet that sleeps for 0 seconds lets no socket be read. And how long a round lasts in
# which nobody waits.
PAUSE = 0.0005
QUIET_ROUND = 0.02
# Seconds for which owners are rivals, after a request of another one.
RIVALRY = 1.0


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
        self._waiting = Queues()
        # Heads of requests that wait, since when, those that came first before the others.
        self._heads: dict[Owner, deque[tuple[float, Waiter]]] = {}
        self._round_at = 0.0
        self._last_owner: Owner = None
        self._rivals_until = 0.0
        self._has_driver = False
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many requests wait for a turn."""
        with self._lock:
            return len(self._waiting)

    def is_flooded(self, owner: Owner | None = None, *, least: int = FLOOD) -> bool:
        """Tell whether so many requests wait, of this owner or of all, that who has left need not be served."""
        with self._lock:
            return (len(self._waiting) if owner is None else self._waiting.count(owner)) >= least

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
            if self._waiting.count(owner) >= self.most_waiting:
                raise Busy
            waiter = self._enqueue(owner)
        close_connection()
        try:
            waiter.bell.acquire(timeout=2 * self.patience)
        finally:
            with self._lock:
                has_left = self._waiting.leave(owner, waiter)
        if has_left:
            raise Busy
        with self._lock:
            self._used[owner] = self._used.get(owner, 0) + OVERHEAD
        return time.monotonic() - began <= self.patience

    def wait_for_turn(self, owner: Owner, *, is_newest_first: bool = False) -> None:
        """Begin to work. Raises Busy where there is no turn in time.

        It counts as a request from now on, because it may be one that is refused at once. `is_newest_first`: for an
        owner that stands for many. Where they are too many, some are served at once, and not all of them too late
        ("adaptive LIFO", B. Maurer, "Fail at Scale", ACM Queue, 2015).
        """
        since = time.monotonic()
        with self._lock:
            waiter = None
            if owner in self._waiting or not self._may_run(owner, since):
                waiter = self._enqueue(owner, is_first=is_newest_first)
                self._heads.setdefault(owner, deque()).append((since, waiter))
        if waiter:
            try:
                waiter.bell.acquire()
            except BaseException:
                # The server has given the connection up.
                with self._lock:
                    self._waiting.leave(owner, waiter)
                    waiter.is_served = True
                raise
            if not waiter.is_served or time.monotonic() - since > self.patience:
                raise Busy
        work.since = time.thread_time() - OVERHEAD

    def charge(self, owner: Owner, seconds: float) -> None:
        """Count work that was done for an owner, without a turn and without a wait: at most MAX_PIECE altogether."""
        with self._lock:
            if time.monotonic() < self._rivals_until and (used := self._used.get(owner, 0)) < MAX_PIECE:
                self._used[owner] = used + seconds

    def spend(self, owner: Owner, seconds: float) -> None:
        """Count a small piece of work that this thread did without a turn, and wait where the owner has had its own."""
        with self._lock:
            if not self._has_rivals(owner, time.monotonic()):
                return
            self._used[owner] = self._used.get(owner, 0) + seconds
        self.resume(owner)

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
                self._used[owner] = self._used.get(owner, 0) + min(time.thread_time() - work.since, MAX_PIECE)
            if owner in self._waiting and self._used.get(owner, 0) < QUANTUM:
                self._waiting.serve(owner)

    def _has_rivals(self, owner: Owner, now: float) -> bool:
        """Note who works, and tell whether another one has worked lately."""
        if owner != self._last_owner:
            self._last_owner, self._rivals_until = owner, now + RIVALRY
        return now < self._rivals_until

    def _may_run(self, owner: Owner, now: float) -> bool:
        if not self._has_rivals(owner, now):
            return True
        if not self._has_driver and now - self._round_at > QUIET_ROUND:
            self._round_at = now
            self._used.clear()
        return self._used.get(owner, 0) < QUANTUM

    def _enqueue(self, owner: Owner, *, is_first: bool = False) -> Waiter:
        waiter = self._waiting.add(owner, is_first=is_first)
        if not self._has_driver:
            self._has_driver = True
            # Not by `threading`, which waits until the thread has begun, while others wait for our lock.
            _thread.start_new_thread(self._drive, ())
        return waiter

    def _drive(self) -> None:
        """Begin a round whenever all who were ready have run, as long as anybody waits."""
        while True:
            time.sleep(PAUSE)
            with self._lock:
                if not self._waiting:
                    self._has_driver = False
                    self._heads.clear()
                    self._round_at = time.monotonic()
                    return
                self._begin_round()

    def _begin_round(self) -> None:
        self._used = {owner: used - QUANTUM for owner, used in self._used.items() if used > QUANTUM}
        self._refuse_late()
        for owner in self._waiting.owners():
            if self._used.get(owner, 0) < QUANTUM:
                self._waiting.serve(owner)

    def _refuse_late(self) -> None:
        """Wake heads that have waited too long, of each owner as many as half of its quantum lasts.

        With a timer for each, thousands that came in one moment would be refused in one moment, as others wait.
        """
        late = time.monotonic() - self.patience
        for owner in list(self._heads):
            while (oldest := self._oldest_head(owner)) and oldest[0] < late and self._used.get(owner, 0) < QUANTUM / 2:
                self._refuse(owner, oldest[1])

    def refuse_oldest(self, owner: Owner) -> None:
        """Wake the head of this owner that has waited for longest, if there is one: it has no turn."""
        with self._lock:
            if oldest := self._oldest_head(owner):
                self._refuse(owner, oldest[1])

    def _oldest_head(self, owner: Owner) -> tuple[float, Waiter] | None:
        heads = self._heads.get(owner, deque())
        while heads and heads[0][1].is_served:
            heads.popleft()
        if heads:
            return heads[0]
        self._heads.pop(owner, None)
        return None

    def _refuse(self, owner: Owner, waiter: Waiter) -> None:
        self._heads[owner].popleft()
        self._waiting.leave(owner, waiter)
        self._used[owner] = self._used.get(owner, 0) + REFUSAL
        waiter.bell.release()


# Requests under way in a process, the sending of their answers included.
MAX_REQUESTS = 1800
# The one of this process. Requests wait PATIENCE seconds to begin.
PATIENCE = 2
processor = Processor(patience=PATIENCE, most_waiting=MAX_REQUESTS)
