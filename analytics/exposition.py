"""Totals since the beginning, for Prometheus: of rollups and the days since, so that a purge lowers none."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from django.db.models import Sum

from analytics import aggregates, reading, trailing
from analytics.models import Refusals
from analytics.usage import COST, STATUSES, TOKENS
from analytics.windows import ALL, Window, today

# Before the first of all turns.
BEGINNING = date(2000, 1, 1)


@dataclass
class Family:
    """One metric, and its samples by their labels. The name of a counter has no `_total` here."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: list[tuple[dict[str, str], float]] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> None:
        self.samples.append((labels, value))


def families() -> list[Family]:
    window = Window(BEGINNING, today())
    return [*of_usage(window), *of_replays(window), of_refusals(), of_users(window)]


def of_usage(window: Window) -> list[Family]:
    turns = Family("llmapi_turns", "counter", "Turns that ended with a reply or with an error, by model and status.")
    tokens = Family("llmapi_tokens", "counter", "Tokens bought; cached are part of prompt, reasoning of completion.")
    cost = Family("llmapi_cost_usd", "counter", "Cost of turns whose price is known, in US dollars.")
    unpriced = Family("llmapi_unpriced_turns", "counter", "Turns that bought tokens of an unknown price.")
    # Such a turn may still end after all: these two can fall.
    waiting = Family("llmapi_turns_unsettled", "gauge", "Turns that are pending or abandoned, by model and status.")
    found = reading.usage(window, ALL, "model", names=[*STATUSES, *TOKENS, *COST])
    for (model,), figures in sorted(found.items()):
        for status in ("completed", "failed"):
            turns.add(figures[status], model=model, status=status)
        for status in ("pending", "abandoned"):
            waiting.add(figures[status], model=model, status=status)
        for kind in ("prompt", "cached", "completion", "reasoning"):
            tokens.add(figures[f"{kind}_tokens"], model=model, kind=kind)
        cost.add(figures["cost_nanos"] / reading.NANOS_PER_DOLLAR, model=model)
        unpriced.add(figures["sold"] - figures["priced"], model=model)
    return [turns, tokens, cost, unpriced, waiting]


def of_replays(window: Window) -> list[Family]:
    found = reading.usage(window, ALL, names=aggregates.REPLAY_FIGURES).get((), Counter())
    replays = Family("llmapi_replays", "counter", "Answers given again for an idempotency key.")
    replays.add(found["replays"])
    tokens = Family("llmapi_replayed_tokens", "counter", "Tokens that replays did not buy again.")
    tokens.add(found["replayed_tokens"])
    return [replays, tokens]


def of_refusals() -> Family:
    family = Family("llmapi_refusals", "counter", "Requests refused over a limit, by error code.")
    for row in Refusals.objects.values("code").annotate(total=Sum("count")).order_by("code"):
        family.add(row["total"], code=row["code"])
    return family


def of_users(window: Window) -> Family:
    family = Family("llmapi_active_users", "gauge", "Distinct users with a completed turn in the last days, UTC.")
    day = window.moved(window.last, window.last)
    for days, users in zip(trailing.COLUMNS, trailing.users(day, ALL, *trailing.COLUMNS), strict=True):
        family.add(users.get(window.last, 0), days=str(days))
    return family


def text(families: list[Family], *, is_openmetrics: bool) -> str:
    """Prometheus' text format 0.0.4, or OpenMetrics 1.0."""
    lines = [line for family in families for line in shown(family, is_openmetrics)]
    return "\n".join([*lines, "# EOF" if is_openmetrics else ""]) + ("\n" if is_openmetrics else "")


def shown(family: Family, is_openmetrics: bool) -> Iterator[str]:
    sampled = f"{family.name}_total" if family.kind == "counter" else family.name
    named = family.name if is_openmetrics else sampled
    yield f"# HELP {named} {family.help}"
    yield f"# TYPE {named} {family.kind}"
    for labels, value in family.samples:
        yield f"{sampled}{braced(labels)} {value}"


def braced(labels: Mapping[str, Any]) -> str:
    pairs = ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
