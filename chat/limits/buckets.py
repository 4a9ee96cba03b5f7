"""Places of buckets that are taken together or not at all: tries of a password, and new sessions."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction

from chat.limits import rates
from chat.sql import DjangoSession


@dataclass(frozen=True, order=True)
class Bucket:
    """So many places in so many seconds."""

    key: str
    limit: int
    period: float = rates.PERIOD

    @property
    def cost(self) -> float:
        """Seconds of the bucket that one place takes."""
        return self.period / self.limit


def wait_for(buckets: Sequence[Bucket]) -> float:
    """Return the seconds until each bucket has a place; 0 if all have one. This only reads."""
    waits = (rates.backlog_of(bucket.key, period=bucket.period) + bucket.cost - bucket.period for bucket in buckets)
    return max((wait for wait in waits if wait > 0.001), default=0.0)


def take(buckets: Sequence[Bucket]) -> bool:
    """Take a place of each bucket; of none where one is full. They come in the order in which their rows are locked."""
    with transaction.atomic():
        # INSERT or UPDATE the buckets, those of an hour first.
        taken = DjangoSession().run(
            *((rates.admission_of(period), rows_of(buckets, period)) for period in (rates.HOUR, rates.PERIOD))
        )
        is_taken = sum(map(len, taken)) == len(buckets)
        transaction.set_rollback(not is_taken)
    return is_taken


def give_back(buckets: Sequence[Bucket]) -> None:
    DjangoSession().run((rates.GIVE_BACK, [{"key": bucket.key, "cost": bucket.cost} for bucket in buckets]))


def rows_of(buckets: Sequence[Bucket], period: float) -> list[dict[str, object]]:
    return [{"key": bucket.key, "cost": bucket.cost} for bucket in buckets if bucket.period == period]
