"""What a turn takes of its client's limits while it runs, and gives back when it closes."""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Self

from django.utils import timezone

from analytics import ledger
from chat.estimates import Estimate
from chat.exceptions import ApiError, RateLimitExceeded
from chat.limits import budgets, rates
from chat.limits.status import LimitStatus
from chat.models import ClientToken


@dataclass(frozen=True)
class Reservation:
    """What a turn takes: `tokens` of the minute, as estimated, and the most that it can cost of each budget.

    Each limit that is asked is added to `limits`.
    """

    client: ClientToken
    tokens: int
    allowances: list[budgets.Allowance]
    wanted: dict[str, int]  # by the keys of the budgets
    limits: list[LimitStatus]
    now: datetime
    taken_at: float = field(default_factory=time.monotonic)

    @classmethod
    def plan(
        cls,
        client: ClientToken,
        user_id: str,
        body: dict[str, Any],
        *,
        prompt: Estimate,
        reply_tokens: int,
        limits: list[LimitStatus],
    ) -> Self | None:
        """Find the most that a call to the upstream can use; None where the client has no such limits.

        The reply in `body` is bound to it. Raises RateLimitExceeded or BudgetExceeded where that is more than a whole
        limit, and ApiError where a budget is in dollars and no price is known.
        """
        now = timezone.now()
        found = budgets.budgets_of(client, user_id, now)
        if not found and not client.tokens_per_min:
            return None
        is_in_dollars = any(budget.unit == budgets.Unit.NANOS for budget in found)
        nanos = most_nanos(body, prompt.most, reply_tokens) if is_in_dollars else 0
        wanted = budgets.wanted_of(found, tokens=prompt.most + reply_tokens, nanos=nanos)
        planned = cls(client, prompt.likely + reply_tokens, found, wanted, limits, now)
        planned.check({budget.key for budget in found if budget.most is None or wanted[budget.key] <= budget.most})
        if client.tokens_per_min and planned.tokens > client.tokens_per_min:
            planned.refuse_tokens()
        if "max_completion_tokens" not in body and "max_tokens" not in body:
            body["max_completion_tokens"] = reply_tokens
        return planned

    @property
    def bucket(self) -> str:
        """The key of the client's tokens per minute; empty where they are not limited."""
        return rates.token_key(self.client) if self.client.tokens_per_min else ""

    @property
    def bucket_seconds(self) -> float:
        return rates.cost_of(self.tokens, self.client.tokens_per_min or 1)

    def check(self, admitted: Collection[str], used: Mapping[str, int] | None = None) -> None:
        """Raise RateLimitExceeded or BudgetExceeded, unless all budgets are `admitted`, named by their keys.

        `used`: what is used of them, where it has been read.
        """
        refused = next((budget for budget in self.allowances if budget.key not in admitted), None)
        if refused:
            raise budgets.refuse(refused, self.wanted[refused.key], self.now, self.limits, used)

    def note_tokens(self, backlog: float) -> None:
        """Note what is left of the tokens of the minute once they are taken: `backlog` seconds till it is empty."""
        most = self.client.tokens_per_min or 0
        self.limits.append(rates.status_of(most, backlog, unit="tokens", cost=self.tokens))

    def refuse_tokens(self, backlog: float | None = None) -> None:
        """Raise RateLimitExceeded, because too few tokens are left of the minute. `backlog`: where it has been read."""
        most = self.client.tokens_per_min or 0
        backlog = rates.backlog_of(rates.token_key(self.client)) if backlog is None else backlog
        status = rates.status_of(most, backlog, unit="tokens", cost=self.tokens, is_exceeded=True)
        self.limits.append(status)
        refusal = f"This turn can take up to {self.tokens:,} tokens; this client may use {most:,} a minute"
        if self.tokens > most:
            raise RateLimitExceeded(f"{refusal}. Send less, or lower max_completion_tokens.", should_retry=False)
        raise RateLimitExceeded(f"{refusal}; wait as long as Retry-After says.", retry_after=status.next_in)

    def unused_seconds(self, tokens: int) -> float:
        """Return by how many seconds of its bucket a turn that used `tokens` took too much; negative: too little.

        What has leaked out of the bucket meanwhile counts as the unused part: so the limit holds for the tokens that
        were really used, whatever was estimated.
        """
        if not self.client.tokens_per_min:
            return 0.0
        unused = rates.cost_of(self.tokens - tokens, self.client.tokens_per_min)
        return unused if unused < 0 else max(unused - (time.monotonic() - self.taken_at), 0.0)


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
