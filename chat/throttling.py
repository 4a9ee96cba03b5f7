import math
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import F
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from chat.models import ClientToken, RateLimit

PERIOD = 60.0  # seconds

# The generic cell rate algorithm (ITU-T I.371) as one statement, so that no two requests can
# both take the last place: a row comes back where the request is admitted, none where it is not.
# The clock is the database's, which all nodes share.
ADMIT = """
    INSERT INTO rate_limits AS held (key, theoretical_arrival) VALUES (%(key)s, {now} + %(cost)s)
    ON CONFLICT (key) DO UPDATE SET theoretical_arrival = {max}(held.theoretical_arrival, {now}) + %(cost)s
    WHERE {max}(held.theoretical_arrival, {now}) + %(cost)s - {now} <= %(period)s
    RETURNING theoretical_arrival - {now}
"""
BACKLOG = "SELECT theoretical_arrival - {now} FROM rate_limits WHERE key = %(key)s"
# A clock that was set back would leave a bucket full for as long as it was set back.
SET_BACK = "UPDATE rate_limits SET theoretical_arrival = {now} + %(period)s WHERE key = %(key)s"
DIALECT = {
    # The days since 4714 BC, in seconds since 1970: 3.38 and older know no other clock of milliseconds.
    "sqlite": {"max": "max", "now": "((julianday('now') - 2440587.5) * 86400.0)"},
    "postgresql": {"max": "greatest", "now": "extract(epoch FROM statement_timestamp())::float8"},
}


@dataclass(frozen=True)
class Quota:
    """One item of draft-ietf-httpapi-ratelimit-headers-11: `left` of `most`; more in so many seconds."""

    name: str
    most: int
    left: int
    seconds: float
    window: int | None = None  # seconds

    @property
    def policy(self) -> str:
        return f'"{self.name}";q={self.most}' + (f";w={self.window}" if self.window else "")

    @property
    def state(self) -> str:
        return f'"{self.name}";r={self.left};t={math.ceil(self.seconds)}'


@dataclass(frozen=True)
class Verdict:
    """What the limit says of one request. `backlog` is how many seconds the bucket needs to be empty again."""

    admitted: bool
    limit: int  # requests or tokens per PERIOD, and the largest burst
    backlog: float
    unit: str = "requests"
    cost: int = 1  # in that unit

    @property
    def interval(self) -> float:
        return PERIOD / self.limit

    @property
    def remaining(self) -> int:
        return max(0, math.floor((PERIOD - self.backlog) / self.interval + 1e-6))

    @property
    def wait(self) -> float:
        """Seconds until one more like it is admitted."""
        return max(0.0, self.backlog + self.cost * self.interval - PERIOD)

    @property
    def quota(self) -> Quota:
        until_more = self.wait or self.backlog % self.interval or self.interval
        return Quota(
            {"requests": "rpm", "tokens": "tpm"}[self.unit], self.limit, self.remaining, until_more, int(PERIOD)
        )

    def headers(self) -> dict[str, str]:
        """By the names OpenAI uses."""
        return {
            f"x-ratelimit-limit-{self.unit}": str(self.limit),
            f"x-ratelimit-remaining-{self.unit}": str(self.remaining),
            f"x-ratelimit-reset-{self.unit}": f"{max(0.0, self.backlog):.3f}s",
        }


def admit(key: str, limit: int, *, cost: int = 1, unit: str = "requests") -> Verdict:
    """Take `cost` places under the limit, or say how long to wait for them."""
    interval = PERIOD / limit
    # The margin forgives the rounding of sums of floats, a millionth of a place.
    values: dict[str, str | float] = {
        "key": key,
        "cost": cost * interval,
        "period": PERIOD + interval * 1e-6,
    }
    backlog = run(ADMIT, values) if cost <= limit else None
    if backlog is not None:
        return Verdict(True, limit, backlog, unit, cost)
    backlog = run(BACKLOG, values) or 0.0
    if backlog > PERIOD + interval:
        run(SET_BACK, values)
    return Verdict(False, limit, min(PERIOD, backlog), unit, cost)


def backlog_of(key: str) -> float:
    """Seconds until the bucket is empty."""
    return max(0.0, run(BACKLOG, {"key": key}) or 0.0)


def run(statement: str, values: dict[str, str | float]) -> float | None:
    """The one figure that the statement returns, if any."""
    with connection.cursor() as cursor:
        cursor.execute(statement.format(**DIALECT[connection.vendor]), values)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


class ClientThrottle(BaseThrottle):
    """So many requests a minute for each client token, exact across threads, processes and nodes."""

    verdict: Verdict | None = None

    def allow_request(self, request: Request, view: Any) -> bool:
        client = request.auth
        if not isinstance(client, ClientToken) or not client.requests_per_minute:
            return True
        self.verdict = admit(f"rpm:{client.pk}", client.requests_per_minute)
        verdicts_of(request).append(self.verdict)
        return self.verdict.admitted

    def wait(self) -> float | None:
        return self.verdict.wait if self.verdict else None


def admit_tokens(client: ClientToken, tokens: int) -> Verdict | None:
    """Take the most that a turn can use out of its client's tokens per minute; None where they are not limited.

    Inside the opening transaction, so that a turn which does not open takes none.
    """
    if not client.tokens_per_min:
        return None
    return admit(f"tpm:{client.pk}", client.tokens_per_min, cost=tokens, unit="tokens")


def verdict_now(client: ClientToken) -> Verdict | None:
    """What is left of the client's tokens per minute; None where they are not limited."""
    if not client.tokens_per_min:
        return None
    return Verdict(True, client.tokens_per_min, backlog_of(f"tpm:{client.pk}"), "tokens")


def give_back_tokens(client: ClientToken, tokens: int, *, seconds: float) -> None:
    """Give back what a turn took and did not use, when it closes after so many seconds.

    What has leaked out of the bucket since then counts as the unused part: so the limit holds for the tokens
    that were really used, whatever was estimated.
    """
    if client.tokens_per_min:
        unused = tokens * PERIOD / client.tokens_per_min - seconds
        if unused > 0:
            bucket = RateLimit.objects.filter(key=f"tpm:{client.pk}")
            bucket.update(theoretical_arrival=F("theoretical_arrival") - unused)


def verdicts_of(request: Request) -> list[Verdict]:
    """What limits have said of the request so far."""
    verdicts: list[Verdict] = request._request.__dict__.setdefault("rate_limit_verdicts", [])
    return verdicts


def set_headers(request: Request, response: HttpResponseBase, more: Quota | None = None) -> None:
    """Say on an answer what is left of the limits its request was counted against."""
    verdicts = verdicts_of(request)
    quotas = [*(verdict.quota for verdict in verdicts), *([more] if more else [])]
    if quotas:
        response["RateLimit-Policy"] = ", ".join(quota.policy for quota in quotas)
        response["RateLimit"] = ", ".join(quota.state for quota in quotas)
    for verdict in verdicts:
        for name, value in verdict.headers().items():
            response[name] = value
