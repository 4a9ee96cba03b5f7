from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from chat.models import Budget

NANOS = 1_000_000_000  # a dollar


@dataclass(frozen=True)
class LimitStatus:
    """One limit of a client, how much of it is used, and when that comes back.

    The answer's headers, GET /v1/usage, refusals and the staff's pages all show it. Rates (per minute) know their
    `window`; budgets (per day or month, and turns at once) do not need one.
    """

    name: str  # "requests_per_min", "day_tokens", "user_month_usd", "concurrent_turns", …
    unit: str  # "requests", or a Budget.Unit; amounts are in it
    most: int
    used: int = 0
    is_exceeded: bool = False  # The request that was counted asks for more than is left.
    next_in: float = 0.0  # Seconds until more is left, or until the refused request is admitted.
    reset_in: float = 0.0  # Seconds until nothing is used.
    resets_at: datetime | None = None  # Of a budget; None: as turns end.
    window: int | None = None  # seconds

    @property
    def left(self) -> int:
        return max(0, self.most - self.used)

    @property
    def title(self) -> str:
        return self.name.replace("_", " ")

    def describe_used(self) -> str:
        return describe_used(self.unit, self.used, self.most)

    def describe_left(self) -> str:
        return describe_amount(self.unit, self.left)


def describe_amount(unit: str, amount: int) -> str:
    """Say `100 tokens` or `$0.0001`."""
    return f"${Decimal(amount) / NANOS:,.4f}" if unit == Budget.Unit.NANOS else f"{amount:,} {unit}"


def describe_used(unit: str, used: int, most: int | None) -> str:
    """Say `25 of 100 tokens (25%)`, or `25 tokens` where there is no limit."""
    if most is None:
        return describe_amount(unit, used)
    number = describe_amount(unit, used).removesuffix(f" {unit}")
    share = f" ({100 * used / most:.0f}%)" if most else ""
    return f"{number} of {describe_amount(unit, most)}{share}"
