"""Long computations in a process that streams replies: a greenlet that computes lets no other greenlet run."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from analytics.fairness import outside

T = TypeVar("T")

# A client of a stream does not notice a pause this short.
WORK_SECONDS = 0.02
# A greenlet that sleeps for 0 seconds lets no socket be read.
PAUSE_SECONDS = 0.002


def taking_breaks(items: Iterable[T]) -> Iterator[T]:
    """Yield the items, and let other greenlets run every WORK_SECONDS."""
    since = time.monotonic()
    for item in items:
        if time.monotonic() - since >= WORK_SECONDS:
            with outside():
                time.sleep(PAUSE_SECONDS)
            since = time.monotonic()
        yield item
