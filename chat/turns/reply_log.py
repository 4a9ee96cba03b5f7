import json
import threading
from collections.abc import Iterator
from typing import Any

from chat.exceptions import ApiError
from chat.turns.idempotency import Idempotency
from chat.upstream.client import Cancellation

# Proxies close a connection that is silent for long, some after 30 seconds.
HEARTBEAT_SECONDS = 10
# Made once: `json.dumps` with options makes one for each chunk.
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class ReplyLog:
    """The chunks of one reply, each as JSON. One thread writes them; any number of threads read from the beginning."""

    def __init__(self, idempotency: Idempotency | None = None) -> None:
        self.idempotency = idempotency
        self.usage: bytes | None = None  # the chunk for clients that ask for it
        self.cancellation = Cancellation()
        self._chunks: list[bytes] = []
        self._is_closed = False
        self._error: ApiError | None = None
        self._changed = threading.Condition()

    def append(self, chunk: dict[str, Any]) -> None:
        with self._changed:
            self._chunks.append(dump(chunk))
            self._changed.notify_all()

    def close(self, *, usage: dict[str, Any] | None = None, error: ApiError | None = None) -> None:
        with self._changed:
            self.usage = dump(usage) if usage else None
            self._error = error
            self._is_closed = True
            self._changed.notify_all()

    def since(self, seen: int) -> tuple[list[bytes], bool]:
        """Return the chunks after the first `seen`, and whether none will follow."""
        with self._changed:
            return self._chunks[seen:], self._is_closed

    def ending(self) -> tuple[bytes | None, ApiError | None]:
        """Return how a closed log ended: the usage chunk of a reply, or the error of a turn that failed."""
        return self.usage, self._error

    def read(self) -> Iterator[list[bytes]]:
        """Yield new chunks as soon as there are any, and an empty list after HEARTBEAT_SECONDS of silence.

        Raises the ApiError of a turn that failed.
        """
        seen = 0
        while True:
            with self._changed:
                if seen == len(self._chunks) and not self._is_closed:
                    self._changed.wait(HEARTBEAT_SECONDS)
                fresh = self._chunks[seen:]
                is_over = self._is_closed
            seen += len(fresh)
            if fresh or not is_over:
                yield fresh
            elif self._error:
                raise self._error
            else:
                return


def dump(chunk: dict[str, Any]) -> bytes:
    return ENCODER.encode(chunk).encode()
