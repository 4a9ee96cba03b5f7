"""Requests and tokens per minute, exact across threads, processes and nodes.

`chat.turns.store` has the statements that take places of a bucket and give them back.
"""

import math

from chat.limits.status import LimitStatus
from chat.models import ClientToken
from chat.sql import DjangoSession, Session, Statement

PERIOD = 60.0  # seconds
# The most that a bucket can hold, in seconds: what a turn uses beyond its estimate is charged up to one more period.
MAX_BACKLOG = 2 * PERIOD
# What a bucket takes in a period, with a margin for the rounding of sums.
FULL = PERIOD + 0.00001

# When a bucket is empty, in seconds since 1970. The clock is the database's, which all nodes share. A backlog over
# MAX_BACKLOG means that the clock was set back: the minute then begins anew.
HELD = f"""
    CASE WHEN held.theoretical_arrival > {{epoch}} + {MAX_BACKLOG} + 1 THEN {{epoch}}
         ELSE {{greatest}}(held.theoretical_arrival, {{epoch}}) END
"""
BACKLOG = Statement(
    "backlog",
    f"SELECT held.key, {HELD} - {{epoch}} FROM {{new}} JOIN rate_limits AS held ON held.key = new.key",  # noqa: S608 our own
    {"key": "text"},
)


def request_key(client: ClientToken) -> str:
    return f"rpm:{client.pk}"


def token_key(client: ClientToken) -> str:
    return f"tpm:{client.pk}"


def cost_of(count: int, limit: int) -> float:
    """Return how many seconds of its bucket so many requests or tokens take."""
    return count * PERIOD / limit


def status_of(limit: int, backlog: float, *, unit: str, cost: int = 1, is_exceeded: bool = False) -> LimitStatus:
    """Describe a bucket that is empty in `backlog` seconds, for a request that asks for `cost`."""
    interval = PERIOD / limit
    left = max(0, math.floor((PERIOD - backlog) / interval + 1e-6))
    wait = max(0.0, backlog + cost * interval - PERIOD)  # until one more like it is admitted
    return LimitStatus(
        name=f"{unit}_per_min",
        unit=unit,
        most=limit,
        used=limit - left,
        is_exceeded=is_exceeded,
        next_in=wait or (0.0 if is_exceeded else backlog % interval or interval),
        reset_in=backlog,
        window=int(PERIOD),
    )


def backlog_of(key: str, session: Session | None = None) -> float:
    """Return in how many seconds the bucket is empty."""
    (found,) = (session or DjangoSession()).run((BACKLOG, [{"key": key}]))
    return found[0][1] if found else 0.0


def token_status(client: ClientToken) -> LimitStatus | None:
    """Return what is left of the client's tokens per minute; None where they are not limited."""
    if not client.tokens_per_min:
        return None
    return status_of(client.tokens_per_min, backlog_of(token_key(client)), unit="tokens")
