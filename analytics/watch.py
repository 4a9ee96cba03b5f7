"""Threads that look each second, for as long as there is anything to look at."""

import _thread
import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Watch:
    """Calls `look` every `seconds`, in a thread that ends once `is_needed` returns false.

    Whoever adds something to look at calls `wake` afterwards. That waits for nothing: under gevent, to ask a thread
    whether it is alive, or to start one by `threading`, lets all others run first.
    """

    def __init__(self, look: Callable[[], object], is_needed: Callable[[], object], *, seconds: float) -> None:
        self._look = look
        self._is_needed = is_needed
        self._seconds = seconds
        self._lock = threading.Lock()
        self._runs = False

    def wake(self) -> None:
        with self._lock:
            if self._runs:
                return
            self._runs = True
        _thread.start_new_thread(self._watch, ())

    def _watch(self) -> None:
        while True:
            time.sleep(self._seconds)
            with self._lock:
                if not self._is_needed():
                    self._runs = False
                    return
            try:
                self._look()
            except Exception:
                # A bug must not end it: leases would run out, and calls would go on for ever.
                logger.exception("%s failed", getattr(self._look, "__qualname__", "a look"))
