"""Totals since the beginning, for Prometheus: of rollups, so that a purge of raw rows lowers none."""

from dataclasses import dataclass
from typing import Self

from django.db.models import Sum
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.registry import Collector

from analytics.formatting import usd
from analytics.metrics.sources import Table, Usage, total, usage_by
from analytics.models import Refusals
from analytics.query import BEGINNING, Period, Query, today


@dataclass(frozen=True)
class Families(Collector):
    """What the library's writers ask for the figures. It is read before they run, so that an error can be answered."""

    families: list[Metric]

    @classmethod
    def read(cls) -> Self:
        """Read the totals."""
        by_model = {model: row for (model,), row in usage_by(Query(Period(BEGINNING, today())), "model").items()}
        return cls([*of_usage(by_model), *of_replays(total(by_model.values())), of_refusals(), of_users()])

    def collect(self) -> list[Metric]:
        return self.families


def of_usage(by_model: dict[str, Usage]) -> list[Metric]:
    ended, kinds, of_model = ["model", "status"], ["model", "kind"], ["model"]
    turns = Counter(
        "llmapi_turns", "Turns that ended with a reply or with an error, by model and status.", labels=ended
    )
    tokens = Counter(
        "llmapi_tokens", "Tokens bought; cached are part of prompt, reasoning of completion.", labels=kinds
    )
    cost = Counter("llmapi_cost_usd", "Cost of turns whose price is known, in US dollars.", labels=of_model)
    unpriced = Counter("llmapi_unpriced_turns", "Turns that bought tokens of an unknown price.", labels=of_model)
    # A gauge, because such a turn may still complete.
    waiting = Gauge("llmapi_turns_unsettled", "Turns that are pending or abandoned, by model and status.", labels=ended)
    for model, row in sorted(by_model.items()):
        for status in ("completed", "failed"):
            turns.add_metric([model, status], getattr(row, status))
        for status in ("pending", "abandoned"):
            waiting.add_metric([model, status], getattr(row, status))
        for kind in ("prompt", "cached", "completion", "reasoning"):
            tokens.add_metric([model, kind], getattr(row, f"{kind}_tokens"))
        if row.priced:
            cost.add_metric([model], usd(row.cost_nanos) or 0)
        unpriced.add_metric([model], row.sold - row.priced)
    return [turns, tokens, cost, unpriced, waiting]


def of_replays(found: Usage) -> list[Metric]:
    return [
        Counter("llmapi_replays", "Answers given again for an idempotency key.", found.replays),
        Counter("llmapi_replayed_tokens", "Tokens that replays did not buy again.", found.replayed_tokens),
    ]


def of_refusals() -> Metric:
    family = Counter("llmapi_refusals", "Requests refused over a limit, by error code.", labels=["code"])
    for row in Refusals.objects.values("code").annotate(total=Sum("count")).order_by("code"):
        family.add_metric([row["code"]], row["total"])
    return family


def of_users() -> Metric:
    family = Gauge(
        "llmapi_active_users", "Distinct users with a completed turn in the last days, UTC.", labels=["days"]
    )
    newest = Table(Query.last_days(1)).activity[today()]
    for days, users in ((1, newest.dau), (7, newest.wau), (30, newest.mau)):
        family.add_metric([str(days)], users)
    return family
