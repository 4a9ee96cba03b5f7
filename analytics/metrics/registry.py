"""The read side: one function a metric, whose docstring is its definition. Days are UTC."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from analytics.formatting import Unit
from analytics.metrics import active_users as users
from analytics.metrics import cohorts as activation
from analytics.metrics import engagement as spent
from analytics.metrics import feedback as quality
from analytics.metrics import usage
from analytics.query import ALL, Filters, Window


@dataclass(frozen=True)
class Metric:
    """Something that can be asked of any window, with any filters."""

    unit: Unit
    run: Callable[[Window, Filters], Any]

    @property
    def definition(self) -> str:
        return definition_of(self.run)


METRICS: dict[str, Metric] = {
    "dau": Metric("count", users.dau),
    "wau": Metric("count", users.wau),
    "mau": Metric("count", users.mau),
    "stickiness": Metric("share", users.stickiness),
    "new_and_returning": Metric("count", users.new_and_returning),
    "retention": Metric("share", users.retention),
    "activation": Metric("count", activation.activation),
    "messages_per_active_user": Metric("count", users.messages_per_active_user),
    "sessions": Metric("seconds", spent.session_time),
    "time_spent": Metric("seconds", spent.time_spent),
    "time_spent_samples": Metric("seconds", spent.time_spent_samples),
    "turns": Metric("count", usage.turns),
    "turns_by_day": Metric("count", usage.turns_by_day),
    "success_rate": Metric("share", usage.success_rate),
    "failures": Metric("count", usage.failures),
    "abandoned": Metric("count", usage.abandoned),
    "refusals": Metric("count", usage.refusals),
    "latency_ms": Metric("ms", usage.latency_ms),
    "avg_latency_ms": Metric("ms", usage.avg_latency_ms),
    "first_token_ms": Metric("ms", usage.first_token_ms),
    "token_burn": Metric("tokens", usage.token_burn),
    "total_tokens": Metric("tokens", usage.total_tokens),
    "token_burn_by_client": Metric("tokens", usage.token_burn_by_client),
    "token_burn_by_user": Metric("tokens", usage.token_burn_by_user),
    "cost_usd": Metric("usd", usage.cost_usd),
    "cost_per_active_user": Metric("usd", users.cost_per_active_user),
    "replays": Metric("count", usage.replays),
    "feedback": Metric("count", quality.feedback),
}


# What the figures of the last 30 days are called as well.
LAST_30_DAYS = {"dau": "dau_last_30_days", "total_tokens": "token_burn_last_30_days"}
HEADLINES: dict[str, Callable[[Window, Filters], Any]] = {
    "dau": users.dau,
    "success_rate": usage.success_rate,
    "avg_latency_ms": usage.avg_latency_ms,
    "total_tokens": usage.total_tokens,
    "time_spent_samples": spent.time_spent_samples,
}


def report(window: Window, filters: Filters = ALL) -> dict[str, Any]:
    """The five figures first, then what stands beside them, and what they mean.

    Each figure is read once, whatever names it has, and none that follows from another is read.
    """
    burn = usage.token_burn(window, filters)
    costs = [row["cost_usd"] for row in burn]
    latency = usage.latency_ms(window, filters)
    turns = usage.turns(window, filters)
    figures = {
        "dau": users.dau(window, filters),
        "success_rate": usage.rate(Counter(turns)),
        "avg_latency_ms": latency["mean"],
        "total_tokens": sum(row["total_tokens"] for row in burn),
        "time_spent_samples": spent.time_spent_samples(window, filters),
    }
    names = LAST_30_DAYS if window == Window.last_days(30) else {}
    return {
        **{names.get(name, name): value for name, value in figures.items()},
        **figures,
        "latency_ms": {name: value for name, value in latency.items() if name != "by_day"},
        "turns": turns,
        "token_burn": burn,
        "cost_usd": None if None in costs else round(sum(costs), 9),
        "window": {**described(window), "days": (window.last - window.first).days + 1},
        "filters": filters.values,
        "definitions": {names.get(name, name): defined(window, function) for name, function in HEADLINES.items()},
        "computed_at": computed_at(window),
    }


def one(name: str, window: Window, filters: Filters = ALL) -> dict[str, Any]:
    """One metric, and what it means."""
    metric = METRICS[name]
    return {
        "name": name,
        "value": metric.run(window, filters),
        "unit": metric.unit,
        "definition": metric.definition,
        "window": described(window),
        "filters": filters.values,
        "computed_at": computed_at(window),
    }


def described(window: Window) -> dict[str, str]:
    return {"from": window.first.isoformat(), "to": window.last.isoformat()}


def defined(window: Window, function: Callable[[Window, Filters], Any]) -> dict[str, str]:
    return {**described(window), "definition": definition_of(function), "computed_at": computed_at(window)}


def definition_of(function: Callable[[Window, Filters], Any]) -> str:
    return " ".join((function.__doc__ or "").split())


def computed_at(window: Window) -> str:
    return window.computed_at.isoformat(timespec="seconds")
