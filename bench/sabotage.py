"""The application of a fault run. Its clock can be stepped, and SABOTAGE names one guard to take away.

bench/faults.py must then find violations. Where SABOTAGE is empty, nothing is taken away.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

from django.utils import timezone

real_now, real_time = timezone.now, time.time


def wrong_by() -> float:
    """Read from the node's file how many seconds its clock is wrong."""
    try:
        return float(Path(os.environ["CLOCK"]).read_text() or 0)
    except OSError:
        return 0


def wrong_now(tz: tzinfo | None = None) -> datetime:
    return real_now() + timedelta(seconds=wrong_by())


# Set before a model takes its default from the clock.
timezone.now = wrong_now
time.time = lambda: real_time() + wrong_by()

from llmapi.wsgi import application  # isort: skip  (it sets Django up)  # noqa: E402

from analytics import ledger  # noqa: E402
from chat.models import IdempotencyKey  # noqa: E402
from chat.sql import Found, Statement, Step  # noqa: E402
from chat.turns import idempotency, registry, settling, store  # noqa: E402
from chat.turns.connections import LastingSession  # noqa: E402
from chat.turns.lanes import Lane  # noqa: E402

# Shares of the batches of turns.
BATCHES_THAT_FAIL = 0.03
BATCHES_THAT_KILL = 0.003

__all__ = ["application"]


def set_lease(lease: timedelta) -> None:
    """Let turns be taken over so long after the death of their process."""
    registry.LEASE = lease
    for name in ("OPEN_USAGE", "CLAIM_KEYS"):
        statement: Statement = getattr(store, name)
        setattr(store, name, replace(statement, instants={**statement.instants, "lease_end": lease}))


set_lease(timedelta(seconds=float(os.environ["LEASE_SECONDS"])))
registry.RENEW_SECONDS = int(registry.LEASE.total_seconds() / 3)


def replace_text(name: str, old: str, new: str) -> None:
    """Change a statement of a turn before anybody uses it."""
    statement: Statement = getattr(store, name)
    assert old in statement.text
    setattr(store, name, replace(statement, text=statement.text.replace(old, new)))


def no_fencing() -> None:
    """End leases at once, and settle a turn that has lost its key all the same."""
    set_lease(timedelta(0))
    replace_text("CLOSE_USAGE", store.HAS_LOST_KEY, "false")


def no_transaction() -> None:
    """Write messages outside the transaction of their turn, and let the process die in between now and then."""
    write = settling.message_rows
    settling.message_rows = lambda kept: [] if random.random() < 0.1 else write(kept)  # noqa: S311


def no_keys() -> None:
    """Make every request a turn of its own, whatever its key."""
    idempotency.Idempotency.answer_of = lambda *_: None  # type: ignore[method-assign]
    held = "CASE WHEN held.response_json IS NULL THEN held.locked_until < {now} ELSE held.created_at < {expired} END"
    replace_text("CLAIM_KEYS", held, "true")
    replace_text("CLOSE_USAGE", store.HAS_LOST_KEY, "false")


def no_recovery() -> None:
    """Leave turns open whose process died."""
    ledger.abandon = ledger.turns.abandon = lambda *_: []
    IdempotencyKey.objects.stale = lambda *_: IdempotencyKey.objects.none()


def check_then_add() -> None:
    """Compare limits with what was read, and count whatever is asked for."""
    for name, condition in (("ADMIT", "<= 60.0 + 0.00001"), ("RESERVE", "<= excluded.most")):
        replace_text(name, condition, f"{condition} OR true")


def break_lanes() -> None:
    """Let now and then a batch fail in the middle, and its process die between the commit and the answers."""
    commit = Lane._commit

    def fragile(lane: Lane[Any, Any], session: LastingSession, tickets: Any) -> None:
        run = session.run

        def fail(*steps: Step, is_last: bool = False) -> list[Found]:
            run(*steps)
            raise OSError("A statement of the batch fails.")

        if random.random() < BATCHES_THAT_FAIL:  # noqa: S311
            session.run = fail  # type: ignore[method-assign]
        try:
            commit(lane, session, tickets)
        finally:
            session.run = run  # type: ignore[method-assign]
        if lane.is_atomic and random.random() < BATCHES_THAT_KILL:  # noqa: S311
            os.kill(os.getpid(), signal.SIGKILL)

    Lane._commit = fragile  # type: ignore[method-assign, assignment]


break_lanes()

GUARDS: dict[str, Callable[[], None]] = {
    "no-fencing": no_fencing,
    "no-transaction": no_transaction,
    "no-keys": no_keys,
    "no-recovery": no_recovery,
    "check-then-add": check_then_add,
}

if name := os.environ.get("SABOTAGE"):
    GUARDS[name]()
