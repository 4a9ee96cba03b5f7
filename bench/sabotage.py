"""The application with one guard taken away, as SABOTAGE names it: what bench/faults.py must catch. Empty: as it is."""

import os
from collections.abc import Callable
from typing import Any

from llmapi.wsgi import application  # isort: skip  (it sets Django up)

from analytics import recording
from chat import idempotency, running, streams, turns
from chat.models import IdempotencyKey

__all__ = ["application"]


def no_fencing() -> None:
    """Leases end at once, and a turn that has lost its key settles all the same."""
    running.LEASE *= 0
    idempotency.Idempotency.complete = lambda *_: True  # type: ignore[method-assign, assignment]


def no_transaction() -> None:
    """The reply is told, and never settled."""

    def settle(turn: turns.Turn, completion: Any, **_: Any) -> dict[str, Any]:
        return turns.answer_of(turn, completion, turn.latency_ms)

    turns.settle = streams.settle = settle  # type: ignore[attr-defined]


def no_keys() -> None:
    """Every request is a turn of its own."""
    idempotency.Idempotency.claim = lambda *_: idempotency.Claim()  # type: ignore[method-assign, assignment]
    idempotency.Idempotency.complete = lambda *_: True  # type: ignore[method-assign, assignment]


def no_recovery() -> None:
    """Nobody closes what a dead process left."""
    recording.abandon = lambda *_: 0  # type: ignore[assignment]
    IdempotencyKey.objects.stale = lambda *_: IdempotencyKey.objects.none()  # type: ignore[attr-defined]


GUARDS: dict[str, Callable[[], None]] = {
    "no-fencing": no_fencing,
    "no-transaction": no_transaction,
    "no-keys": no_keys,
    "no-recovery": no_recovery,
}

if name := os.environ.get("SABOTAGE"):
    GUARDS[name]()
