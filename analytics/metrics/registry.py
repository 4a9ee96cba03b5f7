"""Every metric: its name and unit, what /metrics answers, and the figures of it that cards and plots show.

The docstring of a metric's function is its definition.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any, Literal

from analytics.formatting import Unit, Values, format_figure
from analytics.metrics import active_users, cohorts, engagement, feedback, usage
from analytics.metrics.sources import Table, mean
from analytics.query import Period, Query

Direction = Literal["good", "bad", "neutral"]
# How a figure is computed: of the whole period, and of each day.
Computed = tuple[Callable[[Table], float | None], Callable[[Table], Values]]


@dataclass(frozen=True)
class Figure:
    """One number of a metric: of the whole period, and of each day."""

    label: str
    unit: Unit
    overall: Callable[[Table], float | None]
    by_day: Callable[[Table], Values]
    # What it means that the number is higher than in the period before.
    rise: Direction = "neutral"
    note: Callable[[Table], str] = lambda table: ""
    is_share_that_grows: bool = False

    @property
    def grows_over_a_day(self) -> bool:
        """Whether a day that goes on has less of it than a whole day. A share or a latency of turns has not."""
        return self.unit not in ("share", "ms") or self.is_share_that_grows


@dataclass(frozen=True)
class Metric:
    """Something that can be asked of any period, with any filters."""

    unit: Unit
    value: Callable[[Table], Any]
    figures: tuple[Figure, ...] = ()

    @property
    def definition(self) -> str:
        return " ".join((self.value.__doc__ or "").split())


def said(text: str) -> Callable[[Table], str]:
    return lambda table: text


def of_activity(name: str, overall: Callable[[list[Any]], float | None]) -> Computed:
    """Compute a figure of the period by `overall` from those of its days."""
    return lambda table: overall(table.each_day("activity", name)), lambda table: table.each_day("activity", name)


def of_usage(name: str) -> Computed:
    return lambda table: getattr(table.total, name), lambda table: table.each_day("usage", name)


def percentile(part: str, rank: int) -> Computed:
    """Compute a percentile of the durations in `part`."""

    def overall(table: Table) -> float | None:
        return table.overall(part).percentile(rank)

    def by_day(table: Table) -> Values:
        found = getattr(table, part)
        return [found[day].percentile(rank) if day in found else None for day in table.days]

    return overall, by_day


def count_failed(table: Table) -> str:
    return f"{format_figure(table.total.failed + table.total.abandoned, 'count')} failed or abandoned"


def describe_feedback(table: Table) -> str:
    row = table.total
    return f"{row.thumbs_up:,} up, {row.thumbs_down:,} down, {row.regenerated:,} regenerated"


def describe_unpriced(table: Table) -> str:
    models = unpriced_models(table)
    return f"Price unknown: {models}" if models else ""


def unpriced_models(table: Table) -> str:
    """Name the first three models of unknown price, and how many more there are."""
    models = sorted({model for (_, model), row in table.usage_by_model.items() if row.cost_usd is None})
    return ", ".join(models[:3]) + (f" and {len(models) - 3} more" if models[3:] else "")


def describe_saved(table: Table) -> str:
    found = usage.saved(table.total)
    tokens = format_figure(found["tokens_saved"], "tokens")
    return f"{format_figure(found['usd_saved'], 'usd')} and {tokens} tokens not spent twice"


def describe_sessions(table: Table) -> str:
    median = table.overall("sessions").percentile(50)
    return f"{format_figure(median, 'seconds')} long, median"


PER_USER_DAY = said("per user and day")
MEAN_OF_DAYS = said("mean of all days")
ON_LAST_DAY = said("on the last day")

DAU = Figure("Daily active users", "count", *of_activity("dau", mean), "good", MEAN_OF_DAYS)
WAU = Figure("Weekly active users", "count", *of_activity("wau", itemgetter(-1)), "good", ON_LAST_DAY)
MAU = Figure("Monthly active users", "count", *of_activity("mau", itemgetter(-1)), "good", ON_LAST_DAY)
STICKINESS = Figure(
    "Stickiness", "share", *of_activity("stickiness", mean), "good", MEAN_OF_DAYS, is_share_that_grows=True
)
NEW_USERS = Figure("New users", "count", *of_activity("new_users", sum), "good")
# Not judged: the users who came last have had the least time.
ACTIVATION = Figure(
    *("Activation", "share", cohorts.activated_share, cohorts.activated_share_by_day), note=said("of new users, so far")
)
TURNS = Figure("Turns", "count", *of_usage("ended"), "good", count_failed)
SUCCESS = Figure("Success rate", "share", *of_usage("success_rate"), "good")
MESSAGES = Figure(
    *("Messages", "count", active_users.mean_messages, of_activity("messages", mean)[1], "good", PER_USER_DAY)
)
TIME_SPENT = Figure("Time spent, median", "seconds", *percentile("time_spent", 50), "good", PER_USER_DAY)
SESSIONS = Figure("Sessions", "count", engagement.sessions, engagement.sessions_by_day, "good", describe_sessions)
LATENCY = Figure("Latency, median", "ms", *percentile("latency", 50), "bad")
SLOW = Figure("Latency, 95th percentile", "ms", *percentile("latency", 95), "bad")
FIRST_TOKEN = Figure("First token, median", "ms", *percentile("first_token", 50), "bad")
THUMBS_UP = Figure("Thumbs up", "share", *of_usage("thumbs_up_share"), "good", describe_feedback)
TOKENS = Figure("Tokens", "tokens", *of_usage("total_tokens"))
COST = Figure("Cost", "usd", *of_usage("cost_usd"), "bad", describe_unpriced)
COST_OF_USER = Figure(
    *("Cost of a user", "usd", active_users.mean_cost_of_user, active_users.cost_of_user_by_day, "bad", PER_USER_DAY)
)
REPLAYS = Figure("Replays", "count", *of_usage("replays"), note=describe_saved)

# In the order in which their cards stand.
METRICS: dict[str, Metric] = {
    "dau": Metric("count", active_users.dau, (DAU,)),
    "wau": Metric("count", active_users.wau, (WAU,)),
    "mau": Metric("count", active_users.mau, (MAU,)),
    "stickiness": Metric("share", active_users.stickiness, (STICKINESS,)),
    "new_and_returning": Metric("count", cohorts.new_and_returning, (NEW_USERS,)),
    "retention": Metric("share", cohorts.retention),
    "active_by_sign_in": Metric("count", active_users.active_by_sign_in),
    "sign_ups": Metric("count", cohorts.sign_ups),
    "activation": Metric("count", cohorts.activation, (ACTIVATION,)),
    "turns": Metric("count", usage.turns, (TURNS,)),
    "turns_by_day": Metric("count", usage.turns_by_day),
    "success_rate": Metric("share", usage.success_rate, (SUCCESS,)),
    "failures": Metric("count", usage.failures),
    "abandoned": Metric("count", usage.abandoned),
    "refusals": Metric("count", usage.refusals),
    "messages_per_active_user": Metric("count", active_users.messages_per_active_user, (MESSAGES,)),
    "time_spent": Metric("seconds", engagement.time_spent, (TIME_SPENT,)),
    "time_spent_samples": Metric("seconds", engagement.time_spent_samples),
    "sessions": Metric("seconds", engagement.session_time, (SESSIONS,)),
    "latency_ms": Metric("ms", usage.latency_ms, (LATENCY, SLOW)),
    "avg_latency_ms": Metric("ms", usage.avg_latency_ms),
    "first_token_ms": Metric("ms", usage.first_token_ms, (FIRST_TOKEN,)),
    "feedback": Metric("count", feedback.feedback, (THUMBS_UP,)),
    "token_burn": Metric("tokens", usage.token_burn, (TOKENS,)),
    "total_tokens": Metric("tokens", usage.total_tokens),
    "token_burn_by_client": Metric("tokens", usage.token_burn_by_client),
    "token_burn_by_user": Metric("tokens", usage.token_burn_by_user),
    "cost_usd": Metric("usd", usage.cost_usd, (COST,)),
    "cost_per_active_user": Metric("usd", active_users.cost_per_active_user, (COST_OF_USER,)),
    "replays": Metric("count", usage.replays, (REPLAYS,)),
}

# Other names of these metrics where they are of the last 30 days.
LAST_30_DAYS = {"dau": "dau_last_30_days", "total_tokens": "token_burn_last_30_days"}
FIRST_FIVE = ("dau", "success_rate", "avg_latency_ms", "total_tokens", "time_spent_samples")


def report(query: Query, computed_at: datetime) -> dict[str, Any]:
    """Answer the five figures first, then what stands beside them, and what they mean."""
    table = Table(query)
    values = {name: METRICS[name].value(table) for name in FIRST_FIVE}
    names = LAST_30_DAYS if query.period == Period.last_days(30) else {}
    at = computed_at.isoformat(timespec="seconds")
    bounds = query.period.as_params()
    return {
        **{names.get(name, name): value for name, value in values.items()},
        **values,
        "latency_ms": usage.mean_and_percentiles(table.overall("latency")),
        "turns": usage.turns(table),
        "token_burn": usage.token_burn(table),
        "cost_usd": usage.cost_usd(table),
        "window": {**bounds, "days": query.period.length},
        "filters": query.filters.columns,
        "definitions": {
            names.get(name, name): {**bounds, "definition": METRICS[name].definition, "computed_at": at}
            for name in FIRST_FIVE
        },
        "computed_at": at,
    }


def one(name: str, query: Query, computed_at: datetime) -> dict[str, Any]:
    """Answer one metric, and what it means."""
    metric = METRICS[name]
    return {
        "name": name,
        "value": metric.value(Table(query)),
        "unit": metric.unit,
        "definition": metric.definition,
        "window": query.period.as_params(),
        "filters": query.filters.columns,
        "computed_at": computed_at.isoformat(timespec="seconds"),
    }
