"""How many turns this process runs at once."""

import threading
from typing import Self

from django.conf import settings

from chat.exceptions import Unavailable

_lock = threading.Lock()
_taken = 0


class Slot:
    """One turn's place among the running turns of this process.

    The request that acquires it frees it at the end of its `with` block, unless it has handed it over to a thread,
    which then releases it.
    """

    _is_handed_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_handed_over:
            self.release()

    def hand_over(self) -> None:
        """Leave the release to the thread that has just started."""
        self._is_handed_over = True

    def release(self) -> None:
        global _taken
        with _lock:
            _taken -= 1


def acquire_slot() -> Slot:
    """Take a slot. Raises Unavailable where none is free: a request that waited would only make the queue longer."""
    global _taken
    with _lock:
        if _taken >= settings.MAX_RUNNING_TURNS:
            raise Unavailable("The server runs as many turns as it can; send the request again in a moment.")
        _taken += 1
    return Slot()
