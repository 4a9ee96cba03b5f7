"""Requests and tokens per minute, exact across threads, processes and nodes."""

import math

from django.db import connection

from chat.limits.status import LimitStatus
from chat.models import ClientToken

PERIOD = 60.0  # seconds
# The most that a bucket can hold, in seconds: what a turn uses beyond its estimate is charged up to one more period.
MAX_BACKLOG = 2 * PERIOD

# The generic cell rate algorithm (ITU-T I.371) as one statement, so that no two requests take the same place.
# It returns a row where the request is admitted, and none where it is refused. The clock is the database's, which all
# nodes share. A backlog over MAX_BACKLOG means that the clock was set back: the minute then begins anew.
ADMIT = """
    INSERT INTO rate_limits AS held (key, theoretical_arrival) VALUES (%(key)s, {now} + %(cost)s)
    ON CONFLICT (key) DO UPDATE SET theoretical_arrival = {held} + %(cost)s
    WHERE {held} + %(cost)s - {now} <= %(period)s
    RETURNING theoretical_arrival - {now}
"""
HELD = """
    CASE WHEN held.theoretical_arrival > {now} + %(max_backlog)s + 1 THEN {now}
         ELSE {max}(held.theoretical_arrival, {now}) END
"""
BACKLOG = "SELECT {held} - {now} FROM rate_limits AS held WHERE key = %(key)s"
CHARGE = """
    UPDATE rate_limits AS held SET theoretical_arrival = {min}({held} + %(cost)s, {now} + %(max_backlog)s)
    WHERE key = %(key)s
"""
GIVE_BACK = "UPDATE rate_limits SET theoretical_arrival = theoretical_arrival - %(cost)s WHERE key = %(key)s"
DIALECT = {
    # SQLite counts days since 4714 BC; this is seconds since 1970. Version 3.38 and older have no other milliseconds.
    "sqlite": {"max": "max", "min": "min", "now": "((julianday('now') - 2440587.5) * 86400.0)"},
    "postgresql": {"max": "greatest", "min": "least", "now": "extract(epoch FROM statement_timestamp())::float8"},
}


def admit(key: str, limit: int, *, cost: int = 1, unit: str = "requests") -> LimitStatus:
    """Take `cost` of `limit` requests or tokens per minute; the status says whether the limit allows it."""
    interval = PERIOD / limit
    # The margin, a millionth of one request, allows for the rounding of sums of floats.
    values: dict[str, str | float] = {"key": key, "cost": cost * interval, "period": PERIOD + interval * 1e-6}
    backlog = run(ADMIT, values) if cost <= limit else None
    is_exceeded = backlog is None
    return status_of(
        limit, backlog_of(key) if backlog is None else backlog, unit=unit, cost=cost, is_exceeded=is_exceeded
    )


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


def backlog_of(key: str) -> float:
    """Return in how many seconds the bucket is empty."""
    return run(BACKLOG, {"key": key}) or 0.0


def run(statement: str, values: dict[str, str | float]) -> float | None:
    """Run one of the statements above, and return its one figure, if any."""
    with connection.cursor() as cursor:
        dialect = DIALECT[connection.vendor]
        cursor.execute(statement.format(**dialect, held=HELD.format(**dialect)), {**values, "max_backlog": MAX_BACKLOG})
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def admit_tokens(client: ClientToken, tokens: int) -> LimitStatus | None:
    """Take the most that a turn can use out of its client's tokens per minute; None where they are not limited.

    To be called inside the opening transaction, so that a turn that does not open takes none.
    """
    if not client.tokens_per_min:
        return None
    return admit(f"tpm:{client.pk}", client.tokens_per_min, cost=tokens, unit="tokens")


def token_status(client: ClientToken) -> LimitStatus | None:
    """Return what is left of the client's tokens per minute; None where they are not limited."""
    if not client.tokens_per_min:
        return None
    return status_of(client.tokens_per_min, backlog_of(f"tpm:{client.pk}"), unit="tokens")


def settle_tokens(client: ClientToken, unused: int, *, seconds: float) -> None:
    """Give back what a turn took and did not use when it closes after `seconds`; or charge what it used beyond that.

    What has leaked out of the bucket meanwhile counts as the unused part: so the limit holds for the tokens that were
    really used, whatever was estimated.
    """
    if client.tokens_per_min:
        key, cost = f"tpm:{client.pk}", abs(unused) * PERIOD / client.tokens_per_min
        if unused < 0:
            run(CHARGE, {"key": key, "cost": cost})
        elif cost > seconds:
            run(GIVE_BACK, {"key": key, "cost": cost - seconds})
