"""Requests and tokens per minute, exact across threads, processes and nodes.

`chat.turns.store` has the statements that take places of a bucket and give them back.
"""

import math
from functools import cache

from chat.limits.status import LimitStatus
from chat.models import ClientToken
from chat.sql import DjangoSession, Session, Statement

PERIOD, HOUR = 60.0, 3600.0  # seconds
# The most that a bucket can hold, in seconds: what a turn uses beyond its estimate is charged up to one more period.
MAX_BACKLOG = 2 * PERIOD
# What a bucket takes in a period, with a margin for the rounding of sums.
FULL = PERIOD + 0.00001


def held(period: float) -> str:
    """Write when a bucket is empty, in seconds since 1970.

    The clock is the database's, which all nodes share. A backlog of more than two periods means that the clock was set
    back: the period then begins anew.
    """
    return f"""
    CASE WHEN held.theoretical_arrival > {{epoch}} + {2 * period} + 1 THEN {{epoch}}
         ELSE {{greatest}}(held.theoretical_arrival, {{epoch}}) END
"""


@cache
def admission_of(period: float) -> Statement:
    """Make the generic cell rate algorithm (ITU-T I.371) as one statement, so that no two requests take the same place.

    It returns a row where all that is asked for is admitted. `cost` is in seconds of the bucket's period, and at most
    all of them. The margin is for the rounding of sums.
    """
    return Statement(
        "admit" if period == PERIOD else f"admit_{period:.0f}",
        f"""
    INSERT INTO rate_limits AS held (key, theoretical_arrival)
    SELECT new.key, {{epoch}} + new.cost FROM {{new}} WHERE true
    ON CONFLICT (key) DO UPDATE SET theoretical_arrival = {held(period)} + (excluded.theoretical_arrival - {{epoch}})
    WHERE {held(period)} + excluded.theoretical_arrival - 2 * {{epoch}} <= {period} + 0.00001
    RETURNING key, theoretical_arrival - {{epoch}}
    """,  # noqa: S608 our own
        {"key": "text", "cost": "float8"},
    )


@cache
def backlog_statement(period: float) -> Statement:
    return Statement(
        "backlog" if period == PERIOD else f"backlog_{period:.0f}",
        f"SELECT held.key, {held(period)} - {{epoch}} FROM {{new}} JOIN rate_limits AS held ON held.key = new.key",  # noqa: S608 our own
        {"key": "text"},
    )


HELD, BACKLOG = held(PERIOD), backlog_statement(PERIOD)
GIVE_BACK = Statement(
    "give_back",
    "UPDATE rate_limits SET theoretical_arrival = theoretical_arrival - new.cost FROM {new} "
    "WHERE rate_limits.key = new.key",
    {"key": "text", "cost": "float8"},
)


def request_key(client: ClientToken) -> str:
    return f"rpm:{client.holder}"


def token_key(client: ClientToken) -> str:
    return f"tpm:{client.holder}"


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


def backlog_of(key: str, session: Session | None = None, *, period: float = PERIOD) -> float:
    """Return in how many seconds the bucket is empty."""
    (found,) = (session or DjangoSession()).run((backlog_statement(period), [{"key": key}]))
    return found[0][1] if found else 0.0


def token_status(client: ClientToken) -> LimitStatus | None:
    """Return what is left of the client's tokens per minute; None where they are not limited."""
    if not client.tokens_per_min:
        return None
    return status_of(client.tokens_per_min, backlog_of(token_key(client)), unit="tokens")
