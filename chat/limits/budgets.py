"""What a client may still spend: tokens and dollars, by day and by month, and turns at once.

A turn that opens reserves the most that it can cost, in one statement for all its budgets. When it closes, the true
figure replaces what it had reserved.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from django.db.models import F

from chat.exceptions import ApiError, BudgetExceeded, RateLimitExceeded
from chat.limits.status import NANOS, LimitStatus, describe_amount
from chat.models import Budget, ClientToken
from chat.sql import Row

Unit = Budget.Unit
# Stands for all anonymous people of an app together, in the place of a user. No person has such an id.
ANONYMOUS = "people:anonymous"
# Of whom a refusal speaks, by the beginning of the limit's name.
OWNERS = {"": "this client", "user_": "each user", "anonymous_": "everybody together who has not signed in"}


class Allowance(NamedTuple):
    """A limit on what is spent in one period, as `budgets` counts it. `most` None: it is counted and not limited."""

    key: str
    client_token_id: int
    user_id: str  # empty: of all users together
    unit: Unit
    period: str
    most: int | None
    resets_at: datetime | None

    def row(self, wanted: int) -> Row:
        """Return what the statement takes that reserves `wanted` of it."""
        resets_at = f"{self.resets_at:%Y-%m-%d %H:%M:%S}" if self.resets_at else None
        return {**self._asdict(), "used": wanted, "resets_at": resets_at}


def budgets_of(client: ClientToken, user_id: str, now: datetime) -> list[Allowance]:
    """List the budgets that bind a turn of that user now; empty where there is none.

    The count of turns at once comes first, and is kept wherever there is any budget: whoever writes a client's
    budgets takes that row's lock first, so that no two transactions wait for each other.
    """
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    next_month = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    spans = {"day": (f"{today:%Y-%m-%d}", today + timedelta(days=1)), "month": (f"{today:%Y-%m}", next_month)}
    scopes = [("", ""), ("user_", user_id)]
    if client.person and client.person.is_anonymous:
        scopes.append(("anonymous_", ANONYMOUS))
    found = []
    for span, (period, resets_at) in spans.items():
        for scope, user in scopes:
            tokens: int | None = getattr(client, f"{scope}{span}_tokens")
            usd: Decimal | None = getattr(client, f"{scope}{span}_usd")
            if tokens is not None:
                found.append(_allowance(client, Unit.TOKENS, tokens, period, resets_at, user))
            if usd is not None:
                found.append(_allowance(client, Unit.NANOS, int(usd * NANOS), period, resets_at, user))
    if client.user_concurrent_turns:
        found.insert(0, _allowance(client, Unit.TURNS, client.user_concurrent_turns, user=user_id))
    if found or client.concurrent_turns:
        found.insert(0, _allowance(client, Unit.TURNS, client.concurrent_turns))
    return found


def _allowance(
    client: ClientToken,
    unit: Unit,
    most: int | None,
    period: str = "",
    resets_at: datetime | None = None,
    user: str = "",
) -> Allowance:
    return Allowance(f"{client.pk}:{unit}:{period}:{user}", client.pk, user, unit, period, most, resets_at)


def read_statuses(budgets: list[Allowance], now: datetime) -> list[LimitStatus]:
    """Return the status of those budgets that have a limit, in their order."""
    limited = [budget for budget in budgets if budget.most is not None]
    used = read_used(limited)
    return [_status(budget, used.get(budget.key, 0), now) for budget in limited]


def _status(budget: Allowance, used: int, now: datetime, *, is_exceeded: bool = False) -> LimitStatus:
    # The name of the limit's column: `day_tokens`, `user_month_usd`, `concurrent_turns`, …
    span = {10: "day", 7: "month", 0: "concurrent"}[len(budget.period)]
    unit = "usd" if budget.unit == Unit.NANOS else budget.unit
    seconds = (budget.resets_at - now).total_seconds() if budget.resets_at else 0.0
    return LimitStatus(
        name=f"{_scope(budget)}{span}_{unit}",
        unit=budget.unit,
        most=budget.most or 0,
        used=used,
        is_exceeded=is_exceeded,
        next_in=seconds,
        reset_in=seconds,
        resets_at=budget.resets_at,
    )


def _scope(budget: Allowance) -> str:
    return "anonymous_" if budget.user_id == ANONYMOUS else "user_" if budget.user_id else ""


def wanted_of(budgets: list[Allowance], *, tokens: int, nanos: int) -> dict[str, int]:
    """Return the most that one turn can cost of each budget, by its key."""
    costs = {Unit.TURNS: 1, Unit.TOKENS: tokens, Unit.NANOS: nanos}
    return {budget.key: costs[budget.unit] for budget in budgets}


def refuse(
    budget: Allowance, wanted: int, now: datetime, limits: list[LimitStatus], used: Mapping[str, int] | None = None
) -> ApiError:
    """Say how much is left, and when that changes."""
    owner = OWNERS[_scope(budget)]
    if budget.resets_at is None:
        return RateLimitExceeded(
            f"{budget.most} turns of {owner} run already; send the next when one of them has ended.", retry_after=1
        )
    used = read_used([budget]) if used is None else used
    status = _status(budget, used.get(budget.key, 0), now, is_exceeded=True)
    limits.append(status)
    return BudgetExceeded(
        f"This turn can take up to {describe_amount(status.unit, wanted)}, and {status.describe_left()} are left of "
        f"the {describe_amount(status.unit, status.most)} that {owner} has for {budget.period}. Send less, lower "
        f"max_completion_tokens, or wait until {budget.resets_at:%Y-%m-%dT%H:%M:%SZ}.",
        retry_after=status.next_in,
    )


def read_used(budgets: list[Allowance]) -> dict[str, int]:
    """Read what is used of each budget, by its key. Those that no turn has touched in their period are missing."""
    return dict(Budget.objects.filter(pk__in=[budget.key for budget in budgets]).values_list("key", "used"))


def differences(
    reserved: dict[str, int], *, tokens: int | None, nanos: int | None, was_abandoned: bool
) -> tuple[dict[str, int], dict[str, int]]:
    """Return by how much the budgets change when what a turn had reserved becomes what it has cost, by their keys.

    The counts of running turns come apart, because they are written first; so they are where nothing of them changes.
    `tokens` or `nanos` None: they are unknown, so the reserved figure stays. An abandoned turn no longer counts as
    running.
    """
    turns, spent = {}, {}
    for key, amount in reserved.items():
        unit = _unit(key)
        cost = {Unit.TURNS: amount, Unit.TOKENS: tokens, Unit.NANOS: nanos}[unit]
        if unit == Unit.TURNS:
            turns[key] = 0 if was_abandoned else -1
        elif cost is not None and cost != amount:
            spent[key] = cost - amount
    return turns, spent


def end_turn(reserved: dict[str, int]) -> None:
    """Count one running turn less, of a turn whose process died."""
    running = [key for key in reserved if _unit(key) == Unit.TURNS]
    Budget.objects.filter(pk__in=running).update(used=F("used") - 1)


def _unit(key: str) -> Unit:
    return Unit(key.split(":", 2)[1])
