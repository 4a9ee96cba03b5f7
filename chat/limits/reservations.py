"""What a turn takes of its client's limits while it runs, and gives back when it closes."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

from django.utils import timezone

from analytics import ledger
from chat.estimates import Estimate
from chat.exceptions import ApiError, RateLimitExceeded
from chat.limits import budgets
from chat.limits.rates import admit_tokens, settle_tokens
from chat.limits.status import LimitStatus
from chat.models import ClientToken


@dataclass(frozen=True)
class Reservation:
    """What a turn has taken: `tokens` of the minute, as estimated, and the most that it can cost of each budget."""

    client: ClientToken
    tokens: int
    budgets: dict[str, int]
    taken_at: float = field(default_factory=time.monotonic)

    @classmethod
    def take(
        cls,
        client: ClientToken,
        user_id: str,
        body: dict[str, Any],
        *,
        prompt: Estimate,
        reply_tokens: int,
        limits: list[LimitStatus],
    ) -> Self | None:
        """Reserve the most that a call to the upstream can use; None where the client has no such limits.

        The reply in `body` is bound to what was reserved. To be called inside the turn's opening transaction. Raises
        RateLimitExceeded or BudgetExceeded where too little is left, and ApiError where a budget is in dollars and no
        price is known. Each limit that was asked is added to `limits`.
        """
        now = timezone.now()
        rows = budgets.budgets_of(client, user_id, now)
        if not rows and not client.tokens_per_min:
            return None
        is_in_dollars = any(row.unit == budgets.Unit.NANOS for row in rows)
        nanos = most_nanos(body, prompt.most, reply_tokens) if is_in_dollars else 0
        taken = budgets.reserve(rows, tokens=prompt.most + reply_tokens, nanos=nanos, now=now, limits=limits)
        tokens = prompt.likely + reply_tokens
        if status := admit_tokens(client, tokens):
            limits.append(status)
            if status.is_exceeded:
                refusal = f"This turn can take up to {tokens:,} tokens; this client may use {status.most:,} a minute"
                if tokens > status.most:
                    raise RateLimitExceeded(
                        f"{refusal}. Send less, or lower max_completion_tokens.", should_retry=False
                    )
                raise RateLimitExceeded(f"{refusal}; wait as long as Retry-After says.", retry_after=status.next_in)
        if "max_completion_tokens" not in body and "max_tokens" not in body:
            body["max_completion_tokens"] = reply_tokens
        return cls(client, tokens, taken)

    def settle(self, closed: ledger.CloseResult, tokens: int | None) -> None:
        """Replace what was reserved by what the turn has used, in the transaction that has `closed` its row.

        `tokens` None: nobody knows what it has used. Then all that was reserved stays used, as of a turn that died.
        """
        nanos = None if tokens is None else closed.cost_nanos
        budgets.settle(self.budgets, tokens=tokens, nanos=nanos, was_abandoned=closed.was_abandoned)
        if tokens is not None and not closed.was_abandoned:
            settle_tokens(self.client, self.tokens - tokens, seconds=time.monotonic() - self.taken_at)


def most_nanos(body: dict[str, Any], prompt_tokens: int, reply_tokens: int) -> int:
    """Return the most that a call can cost. Raises ApiError where its price is not known."""
    most = partial(ledger.most_cost_nanos, body["model"], prompt_tokens=prompt_tokens, completion_tokens=reply_tokens)
    nanos = most(service_tier=body.get("service_tier", ""))
    if nanos is not None:
        return nanos
    param, advice = ("model", "name another model") if most() is None else ("service_tier", "leave it out")
    raise ApiError(
        f"The price of this {param} is not known, and this client has a budget in dollars; {advice}.", param=param
    )


def release(abandoned: Iterable[dict[str, int]]) -> None:
    """Count turns whose process died as ended. What they had reserved stays used: nobody knows what they have cost."""
    for reserved in abandoned:
        budgets.end_turn(reserved)
