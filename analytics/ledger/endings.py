"""How a turn ends, and what was bought for it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from analytics import instruments
from analytics.ledger.events import Subject
from analytics.ledger.prices import cost_nanos
from analytics.models import UsageEvent

Status = UsageEvent.Status
# error_code of rows whose process died; replaced if the turn settles later.
DIED = "abandoned"


@dataclass(frozen=True)
class LlmTokens:
    """What the upstream sold. `cached` and `cache_write` are parts of `prompt`, and `reasoning` of `completion`."""

    prompt: int = 0
    completion: int = 0
    total: int = 0
    cached: int = 0
    reasoning: int = 0
    cache_write: int = 0
    is_estimated: bool = False


@dataclass(frozen=True)
class Ending:
    """How a turn ended, and what was bought for it.

    `code` names a failure, or what is special about the end of a completed turn. `tokens` may have been bought by a
    failed turn, too; they have the price of the served model and tier. Where no answer named these, they are empty, and
    the price is that of `called_model`, which the upstream was asked for, in the default tier.
    """

    subject: Subject
    status: Status
    latency_ms: int
    code: str = ""
    tokens: LlmTokens | None = None
    called_model: str = ""
    served_model: str = ""
    service_tier: str = ""
    first_token_ms: int | None = None

    @cached_property
    def cost_nanos(self) -> int | None:
        """What the tokens cost; None where their price is unknown."""
        if self.tokens is None:
            return None
        return cost_nanos(
            self.served_model or self.called_model or self.subject.model,
            prompt_tokens=self.tokens.prompt,
            cached_tokens=self.tokens.cached,
            cache_write_tokens=self.tokens.cache_write,
            completion_tokens=self.tokens.completion,
            service_tier=self.service_tier,
        )

    def columns(self) -> dict[str, Any]:
        """Return the columns of the usage row that are known once its turn has ended."""
        tokens = self.tokens or LlmTokens()
        return {
            "status": self.status.value,
            "error_code": self.code,
            "latency_ms": self.latency_ms,
            "first_token_ms": self.first_token_ms,
            "prompt_tokens": tokens.prompt,
            "cached_tokens": tokens.cached,
            "cache_write_tokens": tokens.cache_write,
            "completion_tokens": tokens.completion,
            "reasoning_tokens": tokens.reasoning,
            "total_tokens": tokens.total,
            "is_estimated": tokens.is_estimated,
            "cost_nanos": self.cost_nanos,
            "served_model": self.served_model if self.tokens else "",
            "service_tier": self.service_tier if self.tokens else "",
        }

    def event(self) -> tuple[str, dict[str, Any]] | None:
        """Return the name and the metadata of the event that tells the ending; None for an abandoned turn."""
        if self.status == Status.COMPLETED:
            total = self.tokens.total if self.tokens else 0
            metadata = {"model": self.served_model, "latency_ms": self.latency_ms, "total_tokens": total}
            return "chat.completed", metadata
        if self.status == Status.FAILED:
            return "chat.failed", {"code": self.code, "latency_ms": self.latency_ms}
        return None

    def observe(self) -> None:
        """Count the ending for Prometheus, once it is written down."""
        model = instruments.model_label(self.subject.model)
        instruments.of(instruments.TURNS, model, self.status.value).observe(self.latency_ms / 1000)
        if self.status == Status.FAILED:
            instruments.of(instruments.FAILED_TURNS, model, self.code).inc()
        if self.first_token_ms is not None:
            instruments.of(instruments.FIRST_TOKENS, model).observe(self.first_token_ms / 1000)
        if self.tokens:
            for kind in ("prompt", "cached", "completion", "reasoning"):
                if count := getattr(self.tokens, kind):
                    instruments.of(instruments.TURN_TOKENS, model, kind).inc(count)
            if self.cost_nanos:
                instruments.of(instruments.TURN_COST, model).inc(self.cost_nanos / 1e9)
