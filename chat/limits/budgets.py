"""What a client may still spend: tokens and dollars, by day and by month, and turns at once.

A turn that opens reserves the most that it can cost, in one statement for all its budgets. When it closes, the true
figure replaces what it had reserved.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection
from django.db.models import F

from chat.exceptions import ApiError, BudgetExceeded, RateLimitExceeded
from chat.limits.status import NANOS, LimitStatus, describe_amount
from chat.models import Budget, ClientToken

Unit = Budget.Unit

# All of them or none: where a row is missing from the answer, its limit refuses the turn, and the transaction is
# rolled back. Limits are compared by the statement that counts, so that parallel turns cannot both take what is left.
# The text is the same for SQLite and PostgreSQL.
RESERVE = """
    INSERT INTO budgets AS held (key, client_token_id, user_id, unit, period, used, most, resets_at)
    VALUES {rows}
    ON CONFLICT (key) DO UPDATE
        SET used = held.used + excluded.used, most = excluded.most
        WHERE excluded.most IS NULL OR held.used + excluded.used <= excluded.most
    RETURNING key
"""


def budgets_of(client: ClientToken, user_id: str, now: datetime) -> list[Budget]:
    """List the budgets that bind a turn of that user now, as rows that are not saved; empty where there is none.

    The count of turns at once comes first, and is kept wherever there is any budget: whoever writes a client's
    budgets takes that row's lock first, so that no two transactions wait for each other.
    """
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    next_month = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    spans = {"day": (f"{today:%Y-%m-%d}", today + timedelta(days=1)), "month": (f"{today:%Y-%m}", next_month)}
    found = []
    for span, (period, resets_at) in spans.items():
        for scope, user in (("", ""), ("user_", user_id)):
            tokens: int | None = getattr(client, f"{scope}{span}_tokens")
            usd: Decimal | None = getattr(client, f"{scope}{span}_usd")
            if tokens is not None:
                found.append(_budget(client, Unit.TOKENS, tokens, period, resets_at, user))
            if usd is not None:
                found.append(_budget(client, Unit.NANOS, int(usd * NANOS), period, resets_at, user))
    if found or client.concurrent_turns:
        found.insert(0, _budget(client, Unit.TURNS, client.concurrent_turns))
    return found


def _budget(
    client: ClientToken,
    unit: Unit,
    most: int | None,
    period: str = "",
    resets_at: datetime | None = None,
    user: str = "",
) -> Budget:
    key = f"{client.pk}:{unit}:{period}:{user}"
    return Budget(
        key=key, client_token=client, user_id=user, unit=unit, period=period, used=0, most=most, resets_at=resets_at
    )


def read_statuses(budgets: list[Budget], now: datetime) -> list[LimitStatus]:
    """Return the status of those budgets that have a limit, in their order."""
    limited = [budget for budget in budgets if budget.most is not None]
    used = read_used(limited)
    return [_status(budget, used.get(budget.key, 0), now) for budget in limited]


def _status(budget: Budget, used: int, now: datetime, *, is_exceeded: bool = False) -> LimitStatus:
    # The name of the limit's column: `day_tokens`, `user_month_usd`, `concurrent_turns`, …
    span = {10: "day", 7: "month", 0: "concurrent"}[len(budget.period)]
    unit = "usd" if budget.unit == Unit.NANOS else budget.unit
    seconds = (budget.resets_at - now).total_seconds() if budget.resets_at else 0.0
    return LimitStatus(
        name=f"{'user_' if budget.user_id else ''}{span}_{unit}",
        unit=budget.unit,
        most=budget.most or 0,
        used=used,
        is_exceeded=is_exceeded,
        next_in=seconds,
        reset_in=seconds,
        resets_at=budget.resets_at,
    )


def reserve(
    budgets: list[Budget], *, tokens: int, nanos: int, now: datetime, limits: list[LimitStatus]
) -> dict[str, int]:
    """Reserve the most that one turn can cost, inside its opening transaction. Returns what was reserved, by key.

    Raises RateLimitExceeded where too many turns run, and BudgetExceeded where too little is left, whose status is
    added to `limits`.
    """
    costs = {Unit.TURNS: 1, Unit.TOKENS: tokens, Unit.NANOS: nanos}
    wanted = {budget.key: costs[Unit(budget.unit)] for budget in budgets}
    refused = [budget for budget in budgets if budget.most is not None and wanted[budget.key] > budget.most]
    if budgets and not refused:
        admitted = _take(budgets, wanted)
        refused = [budget for budget in budgets if budget.key not in admitted]
    if refused:
        raise refuse(refused[0], wanted[refused[0].key], now, limits)
    return wanted


def _take(rows: list[Budget], wanted: dict[str, int]) -> set[str]:
    values: list[Any] = []
    for row in rows:
        resets_at = row.resets_at and connection.ops.adapt_datetimefield_value(row.resets_at)
        values += [row.key, row.client_token_id, row.user_id, row.unit, row.period, wanted[row.key]]
        values += [row.most, resets_at]
    places = ", ".join(["(%s, %s, %s, %s, %s, %s, %s, %s)"] * len(rows))
    with connection.cursor() as cursor:
        cursor.execute(RESERVE.format(rows=places), values)
        return {key for (key,) in cursor.fetchall()}


def refuse(budget: Budget, wanted: int, now: datetime, limits: list[LimitStatus]) -> ApiError:
    """Say how much is left, and when that changes."""
    if budget.resets_at is None:
        return RateLimitExceeded(
            f"{budget.most} turns of this client run already; send the next when one of them has ended.", retry_after=1
        )
    status = _status(budget, read_used([budget]).get(budget.key, 0), now, is_exceeded=True)
    limits.append(status)
    owner = "each user" if budget.user_id else "this client"
    return BudgetExceeded(
        f"This turn can take up to {describe_amount(status.unit, wanted)}, and {status.describe_left()} are left of "
        f"the {describe_amount(status.unit, status.most)} that {owner} has for {budget.period}. Send less, lower "
        f"max_completion_tokens, or wait until {budget.resets_at:%Y-%m-%dT%H:%M:%SZ}.",
        retry_after=status.next_in,
    )


def read_used(budgets: list[Budget]) -> dict[str, int]:
    """Read what is used of each budget, by its key. Those that no turn has touched in their period are missing."""
    return dict(Budget.objects.filter(pk__in=[budget.key for budget in budgets]).values_list("key", "used"))


def settle(reserved: dict[str, int], *, tokens: int | None, nanos: int | None, was_abandoned: bool) -> None:
    """Replace what a turn had reserved by what it has cost, in the transaction that closes it.

    `tokens` or `nanos` None: they are unknown, so the reserved figure stays. An abandoned turn no longer counts as
    running.
    """
    end_turn(reserved, by=0 if was_abandoned else 1)
    for key, amount in reserved.items():
        cost = {Unit.TURNS: amount, Unit.TOKENS: tokens, Unit.NANOS: nanos}[_unit(key)]
        if cost is not None and cost != amount:
            Budget.objects.filter(pk=key).update(used=F("used") + (cost - amount))


def end_turn(reserved: dict[str, int], *, by: int = 1) -> None:
    """Count one running turn less. The row is written in any case: its lock protects the client's other budgets."""
    running = [key for key in reserved if _unit(key) == Unit.TURNS]
    Budget.objects.filter(pk__in=running).update(used=F("used") - by)


def _unit(key: str) -> Unit:
    return Unit(key.split(":", 2)[1])
