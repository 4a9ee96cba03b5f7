"""How many turns this process runs at once."""

import threading
from contextlib import ExitStack

from django.conf import settings

from chat.exceptions import Unavailable

_lock = threading.Lock()
_taken = 0


def acquire_slot() -> ExitStack:
    """Take a place among the running turns. The end of the `with` block frees it, unless `pop_all` comes before.

    Raises Unavailable where none is free: a request that waited would only make the queue longer.
    """
    global _taken
    with _lock:
        if _taken >= settings.MAX_RUNNING_TURNS:
            raise Unavailable("The server runs as many turns as it can; send the request again in a moment.")
        _taken += 1
    slot = ExitStack()
    slot.callback(release_slot)
    return slot


def release_slot() -> None:
    global _taken
    with _lock:
        _taken -= 1
