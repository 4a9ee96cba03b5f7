"""What a client may still spend: tokens and money, by day and by month, and turns at once.

A turn that opens reserves the most it can cost, in one statement for all budgets that bind it. When it
closes, the true figure takes the place of what it had reserved.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection
from django.db.models import F

from chat.exceptions import ApiError, BudgetExceeded, RateLimitExceeded
from chat.limits.rates import Quota
from chat.models import Budget, ClientToken

NANOS = 1_000_000_000
Unit = Budget.Unit

# All of them or none: where a row is missing from the answer, its limit does not allow the turn, and the
# transaction is rolled back. Limits are compared where they are counted, so that parallel turns cannot
# both take what is left. The same text for SQLite and PostgreSQL.
RESERVE = """
    INSERT INTO budgets AS held (key, client_token_id, user_id, unit, period, used, most, resets_at)
    VALUES {rows}
    ON CONFLICT (key) DO UPDATE
        SET used = held.used + excluded.used, most = excluded.most
        WHERE excluded.most IS NULL OR held.used + excluded.used <= excluded.most
    RETURNING key
"""


@dataclass(frozen=True)
class Limit:
    """One limit of a client in its present period; of one user where `user_id` is not empty."""

    client: ClientToken
    unit: str
    most: int | None
    period: str = ""
    resets_at: datetime | None = None
    user_id: str = ""

    @property
    def key(self) -> str:
        return f"{self.client.pk}:{self.unit}:{self.period}:{self.user_id}"

    @property
    def name(self) -> str:
        """`day_tokens`, `user_month_usd`, …: what the admin, headers and GET /v1/usage call it."""
        span = {10: "day", 7: "month", 0: "concurrent"}[len(self.period)]
        return f"{'user_' if self.user_id else ''}{span}_{'usd' if self.unit == Unit.NANOS else self.unit}"

    def shown(self, amount: int) -> str:
        return f"${Decimal(amount) / NANOS:.4f}" if self.unit == Unit.NANOS else f"{amount:,} {self.unit}"


def limits_of(client: ClientToken, user_id: str, now: datetime) -> list[Limit]:
    """What binds a turn of that user now; empty where the client has no such limit.

    The count of turns at once comes first, and is kept wherever there is any budget: whoever writes a client's
    budgets takes that row's lock first, so that no two transactions wait for each other.
    """
    budgets = list(_budgets_of(client, user_id, now))
    if budgets or client.concurrent_turns:
        budgets.insert(0, Limit(client, Unit.TURNS, client.concurrent_turns))
    return budgets


def _budgets_of(client: ClientToken, user_id: str, now: datetime) -> Iterator[Limit]:
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    next_month = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    spans = {"day": (f"{today:%Y-%m-%d}", today + timedelta(days=1)), "month": (f"{today:%Y-%m}", next_month)}
    for span, (period, resets_at) in spans.items():
        for scope, user in (("", ""), ("user_", user_id)):
            tokens: int | None = getattr(client, f"{scope}{span}_tokens")
            usd: Decimal | None = getattr(client, f"{scope}{span}_usd")
            if tokens is not None:
                yield Limit(client, Unit.TOKENS, tokens, period, resets_at, user)
            if usd is not None:
                yield Limit(client, Unit.NANOS, int(usd * NANOS), period, resets_at, user)


def reserve(limits: list[Limit], *, tokens: int, nanos: int | None, tier: str, now: datetime) -> dict[str, int]:
    """Reserve the most that one turn can cost, inside its opening transaction; what was reserved, by key.

    Raises RateLimitExceeded where too many turns run, and BudgetExceeded where too little is left.
    `nanos` is None where the model's price is unknown: a budget in money then refuses the turn.
    """
    if any(limit.unit == Unit.NANOS for limit in limits):
        check_price(nanos, tier)
    wanted = {
        limit.key: {Unit.TURNS: 1, Unit.TOKENS: tokens, Unit.NANOS: nanos or 0}[Unit(limit.unit)] for limit in limits
    }
    for limit in limits:
        if limit.most is not None and wanted[limit.key] > limit.most:
            raise refusal(limit, wanted[limit.key], now)
    if limits:
        admitted = _take(limits, wanted)
        for limit in limits:
            if limit.key not in admitted:
                raise refusal(limit, wanted[limit.key], now)
    return wanted


def check_price(nanos: int | None, tier: str) -> None:
    if nanos is None:
        raise ApiError(
            "The price of this model is not known, and this client has a budget in dollars; name another model.",
            param="model",
        )
    if tier not in {"auto", "default", "flex"}:
        raise ApiError(
            "The price of this service_tier is not known, and this client has a budget in dollars; leave it out.",
            param="service_tier",
        )


def _take(limits: list[Limit], wanted: dict[str, int]) -> set[str]:
    values: list[Any] = []
    for limit in limits:
        resets_at = limit.resets_at and connection.ops.adapt_datetimefield_value(limit.resets_at)
        values += [limit.key, limit.client.pk, limit.user_id, limit.unit, limit.period, wanted[limit.key]]
        values += [limit.most, resets_at]
    rows = ", ".join(["(%s, %s, %s, %s, %s, %s, %s, %s)"] * len(limits))
    with connection.cursor() as cursor:
        cursor.execute(RESERVE.format(rows=rows), values)
        return {key for (key,) in cursor.fetchall()}


def refusal(limit: Limit, wanted: int, now: datetime) -> ApiError:
    """What to tell the client: how much is left, and when that changes."""
    if limit.resets_at is None:
        return RateLimitExceeded(
            f"{limit.most} turns of this client run already; send the next when one of them has ended.", retry_after=1
        )
    left = max(0, (limit.most or 0) - (used_of([limit]).get(limit.key, 0)))
    whose = "each user" if limit.user_id else "this client"
    return BudgetExceeded(
        f"This turn can take up to {limit.shown(wanted)}, and {limit.shown(left)} are left of the "
        f"{limit.shown(limit.most or 0)} that {whose} has for {limit.period}. Send less, lower "
        f"max_completion_tokens, or wait until {limit.resets_at:%Y-%m-%dT%H:%M:%SZ}.",
        quota=Quota(limit.name, limit.most or 0, left, (limit.resets_at - now).total_seconds()),
    )


def used_of(limits: list[Limit]) -> dict[str, int]:
    """What is used of each limit, by its key; those that nobody has touched in their period are missing."""
    return dict(Budget.objects.filter(pk__in=[limit.key for limit in limits]).values_list("key", "used"))


def settle(reserved: dict[str, int], *, tokens: int, nanos: int | None, has_ended: bool) -> None:
    """Put what a turn has really cost in the place of what it had reserved, in the transaction that closes it.

    `nanos` None: nobody knows, so the reserved figure stays. `has_ended`: the turn had been given up before.
    """
    end_turn(reserved, by=0 if has_ended else 1)
    for key, amount in reserved.items():
        if _unit(key) != Unit.TURNS:
            true = tokens if _unit(key) == Unit.TOKENS else nanos
            if true is not None and true != amount:
                Budget.objects.filter(pk=key).update(used=F("used") + (true - amount))


def end_turn(reserved: dict[str, int], *, by: int = 1) -> None:
    """The turn no longer runs. The row is written in any case: it is the lock of the others."""
    for key in reserved:
        if _unit(key) == Unit.TURNS:
            Budget.objects.filter(pk=key).update(used=F("used") - by)


def _unit(key: str) -> Unit:
    return Unit(key.split(":", 2)[1])
