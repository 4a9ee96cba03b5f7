"""What client tokens have spent, against their budgets."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from analytics.metrics import sources as reading
from analytics.metrics.usage import COST
from analytics.query import ALL, Window, today
from chat.limits import budgets
from chat.models import Budget, ClientToken
from llmapi.staff.totals import is_summed, money


@dataclass(frozen=True)
class Spent:
    """One budget of a client, or of one user of it."""

    name: str
    unit: str
    used: int
    most: int
    resets_at: datetime | None

    @property
    def title(self) -> str:
        return self.name.replace("_", " ")

    @property
    def amount(self) -> str:
        return of_most(self.unit, self.used, self.most)

    @property
    def left(self) -> str:
        return shown(self.unit, max(0, self.most - self.used))

    @property
    def is_full(self) -> bool:
        return self.used >= self.most


def of_clients(clients: list[ClientToken], user_id: str = "") -> dict[int, list[Spent]]:
    """By client token, the budgets of all its users together; with `user_id`, those of that user."""
    now = timezone.now()
    limits = [
        limit
        for client in clients
        for limit in budgets.limits_of(client, user_id or client.default_user_id, now)
        if limit.most is not None and limit.user_id == user_id
    ]
    used = budgets.used_of(limits) if limits else {}
    spent: dict[int, list[Spent]] = {}
    for limit in limits:
        row = Spent(limit.name, limit.unit, used.get(limit.key, 0), limit.most or 0, limit.resets_at)
        spent.setdefault(limit.client.pk, []).append(row)
    return spent


def put_on(clients: list[Any]) -> None:
    """What the list and the page of client tokens show of them, in four queries for all."""
    month = Window(today().replace(day=1), today())
    is_known = is_summed(month)
    found = reading.usage(month, ALL, "client_token_id", names=["total_tokens", *COST]) if is_known else {}
    spent = of_clients(clients)
    for client in clients:
        client.spent = found.get((client.pk,), Counter()) if is_known else None
        client.budgets_used = spent.get(client.pk, [])


def spent_text(client: Any) -> str:
    if client.spent is None:
        return "–"
    cost = reading.dollars(client.spent)
    return f"{client.spent['total_tokens']:,} tokens, {'cost unknown' if cost is None else money(cost)}"


def budgets_text(client: Any) -> SafeString | None:
    rows = ((spent.title, spent.amount) for spent in client.budgets_used)
    return format_html_join("\n", '<span class="budget">{}: {}</span>', rows) or None


def shown(unit: str, amount: int) -> str:
    return f"{figure(unit, amount)} {unit}" if unit != Budget.Unit.NANOS else figure(unit, amount)


def figure(unit: str, amount: int) -> str:
    return f"${amount / budgets.NANOS:,.4f}" if unit == Budget.Unit.NANOS else f"{amount:,}"


def of_most(unit: str, used: int, most: int | None) -> str:
    if most is None:
        return shown(unit, used)
    share = f" ({100 * used / most:.0f}%)" if most else ""
    return f"{figure(unit, used)} of {shown(unit, most)}{share}"
