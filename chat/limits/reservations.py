"""What a turn sets aside of its client's limits while it runs, and gives back when it closes."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from analytics.ledger.turns import Abandoned, Closed, highest_cost
from chat.exceptions import RateLimitExceeded
from chat.limits import budgets
from chat.limits.rates import Verdict, admit_tokens, settle_tokens
from chat.models import ClientToken
from chat.turns import prompt as context


@dataclass(frozen=True)
class Reservation:
    """What a turn has taken: `tokens` of the minute, as estimated, and the most that it can cost of each budget."""

    client: ClientToken
    tokens: int = 0
    budgets: dict[str, int] = field(default_factory=dict)
    taken: float = field(default_factory=time.monotonic)

    @classmethod
    def take(
        cls, client: ClientToken, user_id: str, body: dict[str, Any], verdicts: list[Verdict], now: datetime
    ) -> Self:
        """Reserve for the upstream's request `body`, which is bound to what was reserved.

        Runs inside the turn's opening transaction. Raises RateLimitExceeded or BudgetExceeded where the client
        does not have that much.
        """
        limits = budgets.limits_of(client, user_id, now)
        if not limits and not client.tokens_per_min:
            return cls(client)
        model, reply = body["model"], context.reply_tokens(body["model"], body)
        if not body.get("max_completion_tokens") and not body.get("max_tokens"):
            body["max_completion_tokens"] = reply
        taken = {}
        if limits:
            prompt = context.most_prompt_tokens(body)
            nanos = highest_cost(model, prompt_tokens=prompt, completion_tokens=reply)
            tier = body.get("service_tier", "default")
            taken = budgets.reserve(limits, tokens=prompt + reply, nanos=nanos, tier=tier, now=now)
        tokens = context.prompt_tokens(body["messages"], body) + reply
        verdict = admit_tokens(client, tokens)
        if verdict:
            verdicts.append(verdict)
            if not verdict.admitted:
                raise too_many_tokens(verdict)
        return cls(client, tokens, taken)

    def settle(self, closed: Closed | None, tokens: int) -> None:
        """Put what the turn has used in the place of the reservation, in the transaction that has `closed` its row."""
        if closed is None:
            return
        budgets.settle(self.budgets, tokens=tokens, nanos=closed.cost_nanos, has_ended=closed.was_abandoned)
        if not closed.was_abandoned:
            settle_tokens(self.client, self.tokens - tokens, seconds=time.monotonic() - self.taken)


def too_many_tokens(verdict: Verdict) -> RateLimitExceeded:
    asked = f"This turn can take up to {verdict.cost:,} tokens; this client may use {verdict.limit:,} a minute"
    if verdict.cost > verdict.limit:
        return RateLimitExceeded(f"{asked}. Send less, or lower max_completion_tokens.", should_retry=False)
    return RateLimitExceeded(f"{asked}; wait as long as Retry-After says.", retry_after=verdict.wait)


def release(abandoned: Iterable[Abandoned]) -> None:
    """Turns whose process died no longer run. What they had reserved stays spent: it may have been, nobody knows."""
    for row in abandoned:
        budgets.end_turn(row.reserved)
