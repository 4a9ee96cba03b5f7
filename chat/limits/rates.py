import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from analytics.ledger import turns as recording
from chat.models import ClientToken

PERIOD = 60.0  # seconds
# No bucket is ever this full: what a turn used beyond its estimate is charged up to one period of debt.
DEEPEST = 2 * PERIOD

# The generic cell rate algorithm (ITU-T I.371) as one statement, so that no two requests can
# both take the last place: a row comes back where the request is admitted, none where it is not.
# The clock is the database's, which all nodes share.
# A clock that was set back would leave a bucket full for as long as it was set back: past DEEPEST the minute
# begins anew.
ADMIT = """
    INSERT INTO rate_limits AS held (key, theoretical_arrival) VALUES (%(key)s, {now} + %(cost)s)
    ON CONFLICT (key) DO UPDATE SET theoretical_arrival = {held} + %(cost)s
    WHERE {held} + %(cost)s - {now} <= %(period)s
    RETURNING theoretical_arrival - {now}
"""
HELD = """
    CASE WHEN held.theoretical_arrival > {now} + %(deepest)s + 1 THEN {now}
         ELSE {max}(held.theoretical_arrival, {now}) END
"""
BACKLOG = "SELECT {held} - {now} FROM rate_limits AS held WHERE key = %(key)s"
CHARGE = """
    UPDATE rate_limits AS held SET theoretical_arrival = {min}({held} + %(cost)s, {now} + %(deepest)s)
    WHERE key = %(key)s
"""
GIVE_BACK = "UPDATE rate_limits SET theoretical_arrival = theoretical_arrival - %(cost)s WHERE key = %(key)s"
DIALECT = {
    # The days since 4714 BC, in seconds since 1970: 3.38 and older know no other clock of milliseconds.
    "sqlite": {"max": "max", "min": "min", "now": "((julianday('now') - 2440587.5) * 86400.0)"},
    "postgresql": {
        "max": "greatest",
        "min": "least",
        "now": "extract(epoch FROM statement_timestamp())::float8",
    },
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
    return Verdict(False, limit, backlog_of(key), unit, cost)


def backlog_of(key: str) -> float:
    """Seconds until the bucket is empty."""
    return run(BACKLOG, {"key": key}) or 0.0


def run(statement: str, values: dict[str, str | float]) -> float | None:
    """The one figure that the statement returns, if any."""
    with connection.cursor() as cursor:
        dialect = DIALECT[connection.vendor]
        cursor.execute(statement.format(**dialect, held=HELD.format(**dialect)), {**values, "deepest": DEEPEST})
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


class LimitsMiddleware:
    """What is left of its limits is told to a client on each answer, errors included; refusals are counted."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        set_headers(request, response)
        client = getattr(request, "throttled_client", None)
        if response.status_code == 429 and client:
            recording.count_refusal(client.pk, response.data["error"]["code"])  # type: ignore[attr-defined]
        return response


class ClientThrottle(BaseThrottle):
    """So many requests a minute for each client token, exact across threads, processes and nodes."""

    verdict: Verdict | None = None

    def allow_request(self, request: Request, view: Any) -> bool:
        client = request.auth
        if not isinstance(client, ClientToken):
            return True
        request._request.throttled_client = client  # type: ignore[attr-defined]
        if not client.requests_per_minute:
            return True
        self.verdict = admit(f"rpm:{client.pk}", client.requests_per_minute)
        verdicts_of(request._request).append(self.verdict)
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


def settle_tokens(client: ClientToken, unused: int, *, seconds: float) -> None:
    """Give back what a turn took and did not use, when it closes after so many seconds; or charge what it used more.

    What has leaked out of the bucket since then counts as the unused part: so the limit holds for the tokens
    that were really used, whatever was estimated.
    """
    if client.tokens_per_min:
        cost = abs(unused) * PERIOD / client.tokens_per_min
        bucket: dict[str, str | float] = {"key": f"tpm:{client.pk}"}
        if unused < 0:
            run(CHARGE, {**bucket, "cost": cost})
        elif cost > seconds:
            run(GIVE_BACK, {**bucket, "cost": cost - seconds})


def verdicts_of(request: HttpRequest) -> list[Verdict]:
    """What limits have said of the request so far."""
    verdicts: list[Verdict] = request.__dict__.setdefault("rate_limit_verdicts", [])
    return verdicts


def set_headers(request: HttpRequest, response: HttpResponseBase) -> None:
    """Say on an answer what is left of the limits its request was counted against."""
    verdicts, more = verdicts_of(request), getattr(response, "quota", None)
    quotas = [*(verdict.quota for verdict in verdicts), *([more] if more else [])]
    if quotas:
        response["RateLimit-Policy"] = ", ".join(quota.policy for quota in quotas)
        response["RateLimit"] = ", ".join(quota.state for quota in quotas)
    for verdict in verdicts:
        for name, value in verdict.headers().items():
            response[name] = value
