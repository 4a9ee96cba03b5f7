"""Work that computes for seconds, in a process that streams replies: a greenlet that computes lets nobody be served."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

# As long as a client of a stream may wait without noticing.
WORK_SECONDS = 0.02
# A greenlet that sleeps for 0 lets no sockets be read.
PAUSE_SECONDS = 0.002


def taking_breaks(items: Iterable[T]) -> Iterator[T]:
    """The items, with a moment for others now and then."""
    since = time.monotonic()
    for item in items:
        if time.monotonic() - since >= WORK_SECONDS:
            time.sleep(PAUSE_SECONDS)
            since = time.monotonic()
        yield item
