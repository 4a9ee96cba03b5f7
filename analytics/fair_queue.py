"""A queue before one thread, of which no owner can take all."""

import queue
import threading
from collections import deque
from typing import Generic, TypeVar

from analytics.fairness import Owner

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """What waits for one thread: it comes out in turns of its owners, and in its order for each of them."""

    def __init__(self) -> None:
        self._items: dict[Owner, deque[Item]] = {}
        self._lock = threading.Lock()
        # One for each item: what wakes the thread, and costs less than a condition.
        self._signals: queue.SimpleQueue[None] = queue.SimpleQueue()

    def __len__(self) -> int:
        return self._signals.qsize()

    def put(self, item: Item, owner: Owner) -> None:
        with self._lock:
            self._items.setdefault(owner, deque()).append(item)
        self._signals.put(None)

    def get(self, *, block: bool = True) -> Item:
        """Return the next item, once there is one. Raises queue.Empty where there is none and `block` is false."""
        self._signals.get(block)
        with self._lock:
            owner = next(iter(self._items))
            items = self._items.pop(owner)
            item = items.popleft()
            if items:
                self._items[owner] = items
            return item
