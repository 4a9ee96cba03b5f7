"""What a process makes once."""

import threading
from collections.abc import Callable
from functools import cache
from typing import Generic, TypeVar

T = TypeVar("T")


class once(Generic[T]):  # noqa: N801  # a decorator
    """Make something at the first call, once however many threads call first, and return it at every call."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._made = cache(make)
        self._lock = threading.Lock()
        self.cache_info = self._made.cache_info
        self.cache_clear = self._made.cache_clear

    def __call__(self) -> T:
        with self._lock:
            return self._made()
