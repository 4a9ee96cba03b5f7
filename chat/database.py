"""How long each kind of work may wait for the database, and when it gives its connection back."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from analytics.fairness import outside

T = TypeVar("T")

# Seconds between two looks at the write lock of SQLite: the first, and those of somebody who has waited for long.
FIRST_PAUSE_SECONDS = 0.001
LONGEST_PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class Patience:
    """Seconds that one kind of work waits; None: as long as it takes.

    `lock`: for a lock that somebody else holds; on SQLite, for the write lock.
    `statement`: until PostgreSQL gives a statement up.
    `silence`: until we give PostgreSQL up. It is longer: only a server that is frozen, or out of reach, says nothing.
    """

    lock: float | None
    statement: float | None
    silence: float | None


# With the wait for a connection of the pool (2 s) each of these ends within the ten seconds of docs/promises.md.
CLIENT = Patience(lock=3, statement=4, silence=5)
# Staff's pages and figures.
PAGE = Patience(lock=3, statement=7, silence=7.5)
# Who waits for a lane runs again alone where a batch fails.
LANE = Patience(lock=1, statement=4, silence=5)
# Background jobs, and whatever does not say what it is.
JOB = Patience(lock=5, statement=60, silence=70)
# Commands of operators.
COMMAND = Patience(lock=None, statement=None, silence=None)
# Seconds after which PostgreSQL ends a transaction of a process that has stopped in the midst of it.
IDLE_IN_TRANSACTION_SECONDS = 10

_current: ContextVar[Patience | None] = ContextVar("patience", default=None)
_of_process = JOB


def patience() -> Patience:
    """Return that of the work which this thread does."""
    return _current.get() or _of_process


@contextmanager
def waiting_as(kind: Patience) -> Iterator[None]:
    token = _current.set(kind)
    try:
        yield
    finally:
        _current.reset(token)


def wait_as_command() -> None:
    """Let this process, which serves nobody, wait as long as it takes."""
    global _of_process
    _of_process = COMMAND


def wait_for_lock(work: Callable[[], T], seconds: float | None) -> T:
    """Run `work`, and again while somebody else has the lock of SQLite that it needs. It must do all or nothing.

    SQLite's own waiting (`busy_timeout`) stops the whole process, because it is no wait that greenlets know of.
    """
    deadline: float | None = None
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return work()
        except sqlite3.OperationalError as exc:
            now = time.monotonic()
            if deadline is None:
                deadline = now + seconds if seconds is not None else float("inf")
            if not is_locked(exc) or now >= deadline:
                raise
        with outside():
            time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def is_locked(exc: sqlite3.OperationalError) -> bool:
    """Tell whether the lock may be free in a moment: not where a transaction has read what is old by now."""
    # The lowest byte is the error, the others say more of it.
    code = getattr(exc, "sqlite_errorcode", 0)  # Python's own errors have none.
    return code & 0xFF == sqlite3.SQLITE_BUSY and code != sqlite3.SQLITE_BUSY_SNAPSHOT
