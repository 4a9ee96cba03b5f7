"""Totals since the beginning, for Prometheus: of rollups and the days since, so that a purge lowers none."""

from collections import Counter
from dataclasses import dataclass
from datetime import date
from typing import Self

from django.db.models import Sum
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from analytics.ledger import sums as aggregates
from analytics.metrics import sources as reading
from analytics.metrics import trailing
from analytics.metrics.usage import COST, STATUSES, TOKENS
from analytics.models import Refusals
from analytics.query import ALL, DAY, Window, today

# Before the first of all turns.
BEGINNING = date(2000, 1, 1)


@dataclass(frozen=True)
class Totals(Collector):
    """What the library's writers ask for the figures; read before, where a database that is away can be told of."""

    families: list[Metric]

    @classmethod
    def read(cls) -> Self:
        # To tomorrow, because the clock of another node may be ahead. Of a day that goes on the rows are read, which
        # never fall behind what a scrape has seen, as rollups of it do.
        window = Window(BEGINNING, today() + DAY).settled()
        return cls([*of_usage(window), *of_replays(window), of_refusals(), of_users(Window(today(), today()))])

    def collect(self) -> list[Metric]:
        return self.families


def of_usage(window: Window) -> list[Metric]:
    turns = CounterMetricFamily(
        "llmapi_turns",
        "Turns that ended with a reply or with an error, by model and status.",
        labels=["model", "status"],
    )
    tokens = CounterMetricFamily(
        "llmapi_tokens", "Tokens bought; cached are part of prompt, reasoning of completion.", labels=["model", "kind"]
    )
    cost = CounterMetricFamily(
        "llmapi_cost_usd", "Cost of turns whose price is known, in US dollars.", labels=["model"]
    )
    unpriced = CounterMetricFamily(
        "llmapi_unpriced_turns", "Turns that bought tokens of an unknown price.", labels=["model"]
    )
    # Such a turn may still end after all: these two can fall.
    waiting = GaugeMetricFamily(
        "llmapi_turns_unsettled",
        "Turns that are pending or abandoned, by model and status.",
        labels=["model", "status"],
    )
    found = reading.usage(window, ALL, "model", names=[*STATUSES, *TOKENS, *COST])
    for (model,), figures in sorted(found.items()):
        for status in ("completed", "failed"):
            turns.add_metric([model, status], figures[status])
        for status in ("pending", "abandoned"):
            waiting.add_metric([model, status], figures[status])
        for kind in ("prompt", "cached", "completion", "reasoning"):
            tokens.add_metric([model, kind], figures[f"{kind}_tokens"])
        if figures["priced"]:
            cost.add_metric([model], figures["cost_nanos"] / reading.NANOS_PER_DOLLAR)
        unpriced.add_metric([model], figures["sold"] - figures["priced"])
    return [turns, tokens, cost, unpriced, waiting]


def of_replays(window: Window) -> list[Metric]:
    found = reading.usage(window, ALL, names=aggregates.REPLAY_FIGURES).get((), Counter())
    return [
        CounterMetricFamily("llmapi_replays", "Answers given again for an idempotency key.", found["replays"]),
        CounterMetricFamily(
            "llmapi_replayed_tokens", "Tokens that replays did not buy again.", found["replayed_tokens"]
        ),
    ]


def of_refusals() -> Metric:
    family = CounterMetricFamily("llmapi_refusals", "Requests refused over a limit, by error code.", labels=["code"])
    for row in Refusals.objects.values("code").annotate(total=Sum("count")).order_by("code"):
        family.add_metric([row["code"]], row["total"])
    return family


def of_users(window: Window) -> Metric:
    family = GaugeMetricFamily(
        "llmapi_active_users", "Distinct users with a completed turn in the last days, UTC.", labels=["days"]
    )
    for days, users in zip(trailing.COLUMNS, trailing.users(window, ALL, *trailing.COLUMNS), strict=True):
        family.add_metric([str(days)], users.get(window.last, 0))
    return family
