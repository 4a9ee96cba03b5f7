"""A turn as it is asked for, while it is open, and as it is answered."""

import time
from dataclasses import dataclass, field
from typing import Any

from analytics.ledger import Subject
from chat.limits.reservations import Reservation
from chat.limits.status import LimitStatus
from chat.models import ClientToken
from chat.turns.cuts import Cut
from chat.turns.idempotency import Idempotency
from chat.upstream.replies import Call


@dataclass(frozen=True)
class TurnRequest:
    """What a client asks for. `messages` are the new ones; `parameters` go to the upstream as they are."""

    client: ClientToken
    subject: Subject
    messages: list[dict[str, Any]]
    parameters: dict[str, Any] = field(default_factory=dict)
    idempotency: Idempotency | None = None
    is_stream: bool = False
    # The limits that the request is counted against, for the headers of its answer.
    limits: list[LimitStatus] = field(default_factory=list)

    @property
    def request_id(self) -> str:
        return self.subject.request_id

    @property
    def key(self) -> str:
        return self.idempotency.key if self.idempotency else ""


@dataclass(frozen=True)
class TurnResult:
    """The answer to a client; `is_replay` where it is that of an earlier request under the same key."""

    answer: dict[str, Any]
    is_replay: bool = False


@dataclass(frozen=True)
class Turn:
    """An open turn: its usage row is pending, its key is held, and its call to the upstream is ready."""

    request: TurnRequest
    call: Call
    new: list[dict[str, Any]]  # The messages of the request that the conversation has not yet.
    cut: Cut  # of the conversation's history
    reservation: Reservation | None
    started_at: float = field(default_factory=time.monotonic)

    @property
    def latency_ms(self) -> int:
        return round((time.monotonic() - self.started_at) * 1000)
