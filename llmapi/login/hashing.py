"""Password hashes are computed beside the event loop: in one native thread of a process, one at a time.

A hash takes some 0.3 seconds of a core. Python's lock is released meanwhile, so that greenlets go on on another core.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.db import connections
from gevent import monkey
from gevent.threadpool import ThreadPool

from analytics.fairness import Busy, Share, close_connection, outside

# Passwords that a process hashes or keeps waiting. Half of them may be those of strangers.
PLACES = 8
STRANGERS, STAFF = "strangers", "staff"

places = Share(lambda: PLACES)
_has_place: ContextVar[bool] = ContextVar("has_place", default=False)
_one_at_a_time = threading.Lock()


class HashingBusy(Exception):
    """Too many passwords wait to be hashed."""

    retry_after = 2  # seconds


@contextmanager
def place(owner: str = STAFF) -> Iterator[None]:
    """Take a place among the passwords that this process hashes. Raises HashingBusy where none is left for the owner.

    A hash inside takes no place of its own.
    """
    if _has_place.get():
        yield
        return
    try:
        places.take(owner)
    except Busy as exc:
        raise HashingBusy from exc
    token = _has_place.set(True)
    try:
        yield
    finally:
        _has_place.reset(token)
        places.give_back(owner)


class BesideHasher(PBKDF2PasswordHasher):
    """Django's PBKDF2, beside the event loop. The hashes are the same, so those of PBKDF2PasswordHasher stay valid."""

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        with place():
            if any(connection.in_atomic_block for connection in connections.all(initialized_only=True)):
                # Whoever waited inside a transaction would hold its locks. SQLite's is that of all writers.
                return super().encode(password, salt, iterations)
            close_connection()
            with outside():
                return beside(super().encode, password, salt, iterations)


def beside(work: Callable[..., str], *args: Any) -> str:
    """Do what needs a core for long while greenlets go on; in a process without greenlets, one thread at a time."""
    if monkey.is_module_patched("threading"):
        hashed: str = _thread().apply(work, args)
        return hashed
    with _one_at_a_time:
        return work(*args)


@cache
def _thread() -> ThreadPool:
    return ThreadPool(1)
