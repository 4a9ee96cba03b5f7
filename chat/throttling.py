import math
import time
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from chat.models import ClientToken, RateLimit

PERIOD = 60.0  # seconds

# The generic cell rate algorithm (ITU-T I.371) as one statement, so that no two requests can
# both take the last place: a row comes back where the request is admitted, none where it is not.
# PostgreSQL reads its own clock, which all nodes share.
ADMIT = {
    "sqlite": """
        INSERT INTO rate_limits AS held (key, theoretical_arrival) VALUES (%(key)s, %(now)s + %(cost)s)
        ON CONFLICT (key) DO UPDATE
            SET theoretical_arrival = max(held.theoretical_arrival + %(cost)s, excluded.theoretical_arrival)
            WHERE held.theoretical_arrival + %(cost)s - %(now)s <= %(period)s
        RETURNING theoretical_arrival - %(now)s
    """,
    "postgresql": """
        WITH clock AS MATERIALIZED (SELECT extract(epoch FROM clock_timestamp())::float8 AS now)
        INSERT INTO rate_limits AS held (key, theoretical_arrival) SELECT %(key)s, now + %(cost)s FROM clock
        ON CONFLICT (key) DO UPDATE
            SET theoretical_arrival = greatest(held.theoretical_arrival + %(cost)s, excluded.theoretical_arrival)
            WHERE held.theoretical_arrival + %(cost)s - (excluded.theoretical_arrival - %(cost)s) <= %(period)s
        RETURNING theoretical_arrival - (SELECT now FROM clock)
    """,
}


@dataclass(frozen=True)
class Verdict:
    """What the limit says of one request. `backlog` is how many seconds the bucket needs to be empty again."""

    admitted: bool
    limit: int  # requests per PERIOD, and the largest burst
    backlog: float

    @property
    def interval(self) -> float:
        return PERIOD / self.limit

    @property
    def remaining(self) -> int:
        return max(0, math.floor((PERIOD - self.backlog) / self.interval + 1e-6))

    @property
    def wait(self) -> float:
        """Seconds until one more request is admitted."""
        return max(0.0, self.backlog + self.interval - PERIOD)

    def headers(self) -> dict[str, str]:
        """draft-ietf-httpapi-ratelimit-headers-11, and the names OpenAI uses."""
        until_more = math.ceil(self.wait or self.backlog % self.interval or self.interval)
        return {
            "RateLimit-Policy": f'"rpm";q={self.limit};w={PERIOD:.0f}',
            "RateLimit": f'"rpm";r={self.remaining};t={until_more}',
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": f"{max(0.0, self.backlog):.3f}s",
        }


def admit(key: str, limit: int) -> Verdict:
    """Take one place under the limit, or say how long to wait for one."""
    interval = PERIOD / limit
    # The margin forgives the rounding of sums of floats, a millionth of a place.
    values: dict[str, str | float] = {
        "key": key,
        "now": time.time(),
        "cost": interval,
        "period": PERIOD + interval * 1e-6,
    }
    with connection.cursor() as cursor:
        cursor.execute(ADMIT[connection.vendor], values)
        row = cursor.fetchone()
    if row:
        return Verdict(True, limit, row[0])
    arrival = RateLimit.objects.values_list("theoretical_arrival", flat=True).get(key=key)
    return Verdict(False, limit, arrival - time.time())


class ClientThrottle(BaseThrottle):
    """So many requests a minute for each client token, exact across threads, processes and nodes."""

    verdict: Verdict | None = None

    def allow_request(self, request: Request, view: Any) -> bool:
        client = request.auth
        if not isinstance(client, ClientToken) or not client.requests_per_minute:
            return True
        self.verdict = admit(f"rpm:{client.pk}", client.requests_per_minute)
        request._request.rate_limit = self.verdict  # type: ignore[attr-defined]
        return self.verdict.admitted

    def wait(self) -> float | None:
        return self.verdict.wait if self.verdict else None


def set_headers(request: Request, response: HttpResponseBase) -> None:
    """Say on an answer what is left of the limit its request was counted against."""
    verdict: Verdict | None = getattr(request._request, "rate_limit", None)
    if verdict:
        for name, value in verdict.headers().items():
            response[name] = value
