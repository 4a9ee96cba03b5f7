"""The application of a fault run: its clock can be stepped, and one guard is taken away, as SABOTAGE names it.

What is taken away, bench/faults.py must catch. Empty: everything is as it is.
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
    """Seconds, as the node's file says."""
    try:
        return float(Path(os.environ["CLOCK"]).read_text() or 0)
    except OSError:
        return 0


def wrong_now(tz: tzinfo | None = None) -> datetime:
    return real_now() + timedelta(seconds=wrong_by())


# Before any model takes its default from it.
timezone.now = wrong_now
time.time = lambda: real_time() + wrong_by()

from analytics.ledger import turns as recording  # noqa: E402
from chat.limits import budgets  # noqa: E402
from chat.limits import rates as throttling  # noqa: E402
from chat.models import Budget, IdempotencyKey, Message, RateLimit  # noqa: E402
from chat.turns import idempotency  # noqa: E402
from chat.turns import registry as running  # noqa: E402
from llmapi.wsgi import application  # noqa: E402

__all__ = ["application"]

running.LEASE = timedelta(seconds=float(os.environ["LEASE_SECONDS"]))
running.RENEW_SECONDS = int(running.LEASE.total_seconds() / 3)


def no_fencing() -> None:
    """Leases end at once, and a turn that has lost its key settles all the same."""
    running.LEASE *= 0
    idempotency.Idempotency.complete = lambda *_: True  # type: ignore[method-assign]


def no_transaction() -> None:
    """Messages are written apart from what they belong to, and now and then a process dies in between."""
    write = Message.objects.bulk_create

    def lose_some(messages: Any, *args: Any) -> Any:
        return [] if random.random() < 0.1 else write(messages, *args)  # noqa: S311

    Message.objects.bulk_create = lose_some  # type: ignore[method-assign, assignment]


def no_keys() -> None:
    """Every request is a turn of its own."""
    idempotency.Idempotency.claim = lambda *_: idempotency.Claim()  # type: ignore[method-assign]
    idempotency.Idempotency.complete = lambda *_: True  # type: ignore[method-assign]


def no_recovery() -> None:
    """Nobody closes what a dead process left."""
    recording.abandon = lambda *_: []
    IdempotencyKey.objects.stale = lambda *_: IdempotencyKey.objects.none()


def check_then_add() -> None:
    """Limits are read first and written later, as everybody does who has no one statement for both."""

    def admit(key: str, limit: int, *, cost: int = 1, unit: str = "requests") -> throttling.Verdict:
        backlog = throttling.backlog_of(key)
        time.sleep(0.05)
        if backlog + cost * 60 / limit > 60:
            return throttling.Verdict(False, limit, backlog, unit, cost)
        backlog += cost * 60 / limit
        RateLimit.objects.update_or_create(key=key, defaults={"theoretical_arrival": real_time() + backlog})
        return throttling.Verdict(True, limit, backlog, unit, cost)

    def take(limits: list[budgets.Limit], wanted: dict[str, int]) -> set[str]:
        used = budgets.used_of(limits)
        time.sleep(0.05)
        for limit in limits:
            values = {"client_token": limit.client, "unit": limit.unit, "period": limit.period}
            values |= {"used": used.get(limit.key, 0) + wanted[limit.key], "most": limit.most}
            Budget.objects.update_or_create(key=limit.key, defaults=values)
        return {limit.key for limit in limits}

    throttling.admit = admit
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
