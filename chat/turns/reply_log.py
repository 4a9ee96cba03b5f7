import json
import threading
import time
from collections.abc import Iterator
from typing import Any

from chat.exceptions import ApiError
from chat.turns.idempotency import Idempotency
from chat.upstream.deadlines import Cancellation
from chat.upstream.text import storable

# Proxies close a connection that is silent for long, some after 30 seconds.
HEARTBEAT_SECONDS = 10
# Made once: `json.dumps` with options makes one for each chunk.
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class ReplyLog:
    """The chunks of one reply, each as JSON. One thread writes them; any number of threads read from the beginning.

    There is no lock: what a reader must see first is written first. Chunks before the end, the end before the bells.
    """

    def __init__(self, idempotency: Idempotency | None = None) -> None:
        self.idempotency = idempotency
        self.usage: bytes | None = None  # the chunk for clients that ask for it
        self.cancellation = Cancellation()
        self._chunks: list[bytes] = []
        self._is_closed = False
        self._error: ApiError | None = None
        # One for each reader that waits: held until there is something new.
        self._bells: list[threading.Lock] = []

    def append(self, chunk: dict[str, Any]) -> None:
        self.write(dump(chunk))

    def write(self, chunk: bytes) -> None:
        """Append a chunk that is JSON already."""
        self._chunks.append(chunk)
        self._wake()

    def close(self, *, usage: dict[str, Any] | None = None, error: ApiError | None = None) -> None:
        self._end(dump(usage) if usage else None, error)

    def since(self, seen: int) -> tuple[list[bytes], bool]:
        """Return the chunks after the first `seen`, and whether none will follow."""
        is_closed = self._is_closed  # Read first: then all chunks are there.
        return self._chunks[seen:], is_closed

    def ending(self) -> tuple[bytes | None, ApiError | None]:
        """Return how a closed log ended: the usage chunk of a reply, or the error of a turn that failed."""
        return self.usage, self._error

    def read(self) -> Iterator[list[bytes]]:
        """Yield new chunks as soon as there are any, and an empty list after HEARTBEAT_SECONDS of silence.

        Raises the ApiError of a turn that failed.
        """
        seen = 0
        while True:
            self._wait(seen)
            fresh, is_over = self.since(seen)
            seen += len(fresh)
            if fresh or not is_over:
                yield fresh
            elif self._error:
                raise self._error
            else:
                return

    def _end(self, usage: bytes | None, error: ApiError | None) -> None:
        self.usage, self._error = usage, error
        self._is_closed = True
        self._wake()

    def _wait(self, seen: int) -> None:
        """Wait for more than `seen` chunks, or the end, for at most HEARTBEAT_SECONDS."""
        deadline = time.monotonic() + HEARTBEAT_SECONDS
        while not self._has_more(seen) and (seconds := deadline - time.monotonic()) > 0:
            bell = threading.Lock()
            bell.acquire()
            self._bells.append(bell)
            # What was written before the bell was hung up did not ring it.
            if not self._has_more(seen):
                bell.acquire(timeout=seconds)

    def _has_more(self, seen: int) -> bool:
        return len(self._chunks) > seen or self._is_closed

    def _wake(self) -> None:
        bells, self._bells = self._bells, []
        for bell in bells:
            bell.release()


def dump(chunk: dict[str, Any]) -> bytes:
    try:
        return ENCODER.encode(chunk).encode()
    except ValueError:  # NaN or Infinity, in an answer that was stored long ago
        return ENCODER.encode(storable(chunk)).encode()
