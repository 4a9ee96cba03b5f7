"""Which turns of one batch have room in limits that cannot take all of them.

Nothing is reserved here: the statements that count compare once more, so a limit holds whatever has changed meanwhile.
"""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from chat.limits import rates
from chat.limits.reservations import Reservation

# Seconds for which a limit that has refused a turn is looked at before turns reserve of it, and how many limits are.
SCARCE_SECONDS = 60.0
MAX_SCARCE = 1000


class Scarce:
    """Keys of limits that have refused a turn lately: they may well refuse the next.

    Without it each turn that is refused would cost its whole batch a second transaction.
    """

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def __contains__(self, key: str) -> bool:
        return self._until.get(key, 0.0) > time.monotonic()

    def add(self, keys: Iterable[str]) -> None:
        """Remember the keys. Where they are too many, the oldest are forgotten."""
        for key in keys:
            with self._lock:
                self._until.pop(key, None)
                self._until[key] = time.monotonic() + SCARCE_SECONDS
                if len(self._until) > MAX_SCARCE:
                    del self._until[next(iter(self._until))]


scarce = Scarce()


@dataclass(frozen=True)
class Room:
    """What is used of budgets, and in how many seconds buckets are empty: of those that are known, by their keys."""

    used: dict[str, int]
    backlogs: dict[str, float]

    def take(self, reservation: Reservation) -> None:
        """Count one more turn. Raises RateLimitExceeded or BudgetExceeded where it has no room, and counts nothing."""
        admitted = {one.key for one in reservation.allowances if self._has_room(reservation, one.key, one.most)}
        reservation.check(admitted, self.used)
        bucket, cost = reservation.bucket, reservation.bucket_seconds
        backlog = self.backlogs.get(bucket)
        if backlog is not None and backlog + cost > rates.FULL:
            scarce.add([bucket])
            reservation.refuse_tokens(backlog)
        if backlog is not None:
            self.backlogs[bucket] = backlog + cost
        for key, amount in reservation.wanted.items():
            if key in self.used:
                self.used[key] += amount

    def _has_room(self, reservation: Reservation, key: str, most: int | None) -> bool:
        if most is None or key not in self.used or self.used[key] + reservation.wanted[key] <= most:
            return True
        scarce.add([key])
        return False
