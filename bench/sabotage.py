"""The application of a fault run. Its clock can be stepped, and SABOTAGE names one guard to take away.

bench/faults.py must then find violations. Where SABOTAGE is empty, nothing is taken away.
"""

import os
import random
import time
from collections.abc import Callable
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
from chat.limits import budgets, rates  # noqa: E402
from chat.limits.status import LimitStatus  # noqa: E402
from chat.models import Budget, IdempotencyKey, Message, RateLimit  # noqa: E402
from chat.turns import idempotency, registry  # noqa: E402

__all__ = ["application"]

registry.LEASE = timedelta(seconds=float(os.environ["LEASE_SECONDS"]))
registry.RENEW_SECONDS = int(registry.LEASE.total_seconds() / 3)


def no_fencing() -> None:
    """End leases at once, and settle a turn that has lost its key all the same."""
    registry.LEASE *= 0
    idempotency.Idempotency.complete = lambda *_: True  # type: ignore[method-assign]


def no_transaction() -> None:
    """Write messages outside the transaction of their turn, and let the process die in between now and then."""
    write = Message.objects.bulk_create

    def lose_some(messages: Any, *args: Any) -> Any:
        return [] if random.random() < 0.1 else write(messages, *args)  # noqa: S311

    Message.objects.bulk_create = lose_some  # type: ignore[method-assign, assignment]


def no_keys() -> None:
    """Make every request a turn of its own, whatever its key."""
    idempotency.Idempotency.claim = lambda *_: idempotency.Claim()  # type: ignore[method-assign]
    idempotency.Idempotency.complete = lambda *_: True  # type: ignore[method-assign]


def no_recovery() -> None:
    """Leave turns open whose process died."""
    ledger.abandon = ledger.turns.abandon = lambda *_: []
    IdempotencyKey.objects.stale = lambda *_: IdempotencyKey.objects.none()


def check_then_add() -> None:
    """Read limits first, and write them later, in two statements."""

    def admit(key: str, limit: int, *, cost: int = 1, unit: str = "requests") -> LimitStatus:
        backlog = rates.backlog_of(key)
        time.sleep(0.05)
        if backlog + cost * 60 / limit > 60:
            return rates.status_of(limit, backlog, unit=unit, cost=cost, is_exceeded=True)
        backlog += cost * 60 / limit
        RateLimit.objects.update_or_create(key=key, defaults={"theoretical_arrival": real_time() + backlog})
        return rates.status_of(limit, backlog, unit=unit, cost=cost)

    def take(rows: list[Budget], wanted: dict[str, int]) -> set[str]:
        used = budgets.read_used(rows)
        time.sleep(0.05)
        for row in rows:
            values = {"client_token": row.client_token, "unit": row.unit, "period": row.period}
            values |= {"used": used.get(row.key, 0) + wanted[row.key], "most": row.most}
            Budget.objects.update_or_create(key=row.key, defaults=values)
        return {row.key for row in rows}

    rates.admit = admit
    budgets._take = take


GUARDS: dict[str, Callable[[], None]] = {
    "no-fencing": no_fencing,
    "no-transaction": no_transaction,
    "no-keys": no_keys,
    "no-recovery": no_recovery,
    "check-then-add": check_then_add,
}

if name := os.environ.get("SABOTAGE"):
    GUARDS[name]()
