"""The application with one guard taken away, as SABOTAGE names it: what bench/faults.py must catch. Empty: as it is."""

import os
import random
from collections.abc import Callable
from typing import Any

from llmapi.wsgi import application  # isort: skip  (it sets Django up)

from analytics import recording
from chat import idempotency, running
from chat.models import IdempotencyKey, Message

__all__ = ["application"]


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


GUARDS: dict[str, Callable[[], None]] = {
    "no-fencing": no_fencing,
    "no-transaction": no_transaction,
    "no-keys": no_keys,
    "no-recovery": no_recovery,
}

if name := os.environ.get("SABOTAGE"):
    GUARDS[name]()
