"""Long computations in a process that streams replies: a greenlet that computes lets no other greenlet run."""

import threading
import time
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

from django.db import connections

T = TypeVar("T")

# A client of a stream does not notice a pause this short.
WORK_SECONDS = 0.02
# A greenlet that sleeps for 0 seconds lets no socket be read.
PAUSE_SECONDS = 0.002
# Whoever waits for a place gives up after so many seconds.
PLACE_SECONDS = 1.0


def taking_breaks(items: Iterable[T]) -> Iterator[T]:
    """Yield the items, and let other greenlets run every WORK_SECONDS."""
    since = time.monotonic()
    for item in items:
        if time.monotonic() - since >= WORK_SECONDS:
            time.sleep(PAUSE_SECONDS)
            since = time.monotonic()
        yield item


class Places:
    """How many may do something at once in this process, in all and for each owner."""

    def __init__(self, most: int, *, each: int | None = None) -> None:
        self.most = most
        self.each = each or most
        self._taken: Counter[Hashable] = Counter()
        self._freed = threading.Condition()

    @property
    def taken(self) -> int:
        return self._taken.total()

    def enter(self, owner: Hashable = None, *, most: int | None = None, seconds: float = 0) -> bool:
        """Take a place; wait for one up to `seconds`. Return whether there was one: whoever has it must leave."""
        with self._freed:
            is_free = self._freed.wait_for(lambda: self._is_free(owner, most or self.most), seconds)
            self._taken[owner] += is_free
            return is_free

    def wait(self, owner: Hashable = None) -> bool:
        """Take a place, or wait for one a moment without a connection of the database."""
        if self.enter(owner):
            return True
        for connection in connections.all(initialized_only=True):
            if not connection.in_atomic_block:
                connection.close()
        return self.enter(owner, seconds=PLACE_SECONDS)

    def leave(self, owner: Hashable = None) -> None:
        with self._freed:
            self._taken[owner] -= 1
            # No owner without a place is kept.
            self._taken += Counter()
            self._freed.notify_all()

    def _is_free(self, owner: Hashable, most: int) -> bool:
        return self.taken < most and self._taken[owner] < self.each
