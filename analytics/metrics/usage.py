"""Metrics of turns: how they ended, how long they took, which tokens they bought and what those cost."""

from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import Any

from analytics.formatting import usd
from analytics.metrics.sources import Durations, Key, Table, Usage, bought_by, by_day, in_all, share, usage_by
from analytics.models import UsageEvent, UserDay

STATUSES = [status.value for status in UsageEvent.Status]
ENDED = ["completed", "failed", "abandoned"]
TOKENS = ["prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "total_tokens"]
COSTS = ["sold", "priced", "cost_nanos"]
PERCENTILES = (50, 95, 99)
TOP = 20


def usage_by_day_and_model(table: Table) -> list[dict[str, Any]]:
    """Turns that ended, those that failed, tokens, and cost in USD, by day and model; null where a price is unknown."""
    names = ("failed", "prompt_tokens", "cached_tokens", "completion_tokens", "total_tokens", "cost_usd")
    return [
        {"day": day.isoformat(), "model": model, "turns": row.ended, **{name: getattr(row, name) for name in names}}
        for (day, model), row in table.usage_by_model.items()
        if row.ended
    ]


def turns(table: Table) -> dict[str, int]:
    """Turns by how they ended; pending ones have not."""
    return {status: getattr(table.total, status) for status in STATUSES}


def success_rate(table: Table) -> float | None:
    """Completed turns as a share of those that ended (completed, failed or abandoned); null when none did."""
    return table.total.success_rate


def turns_by_day(table: Table) -> list[dict[str, Any]]:
    """Turns of each day by how they ended, and the day's success rate; null when none ended."""
    return by_day(table.usage, lambda row: {name: getattr(row, name) for name in (*STATUSES, "success_rate")})


def abandoned(table: Table) -> list[dict[str, Any]]:
    """Turns of each day whose process died or whose key another turn took over, as a share of those that ended."""
    return by_day(table.usage, lambda row: {"turns": row.abandoned, "share": share(row.abandoned, row.ended)})


def failures(table: Table) -> list[dict[str, Any]]:
    """Failed and abandoned turns of each day, by error code."""
    return by_day_and_code(table.failures, "turns")


def refusals(table: Table) -> list[dict[str, Any]]:
    """Requests refused over a limit or by the rules of an app, by day and code; model and version do not filter."""
    return by_day_and_code(table.refusals, "requests")


def by_day_and_code(counts: dict[date, Counter[str]], name: str) -> list[dict[str, Any]]:
    return [
        {"day": day.isoformat(), "code": code, name: count}
        for day, codes in counts.items()
        for code, count in sorted(codes.items())
    ]


def latency_ms(table: Table) -> dict[str, Any]:
    """Milliseconds that completed turns took: mean, and percentiles by nearest rank (above 1,000 within 0.5 %)."""
    return in_all(table.overall("latency"), table.latency, mean_and_percentiles)


def avg_latency_ms(table: Table) -> float | None:
    """Mean milliseconds that completed turns took; null when none did."""
    return table.overall("latency").mean


def first_token_ms(table: Table) -> dict[str, Any]:
    """Milliseconds to the first token of completed streams: mean, and percentiles by nearest rank, as of latency."""
    return in_all(table.overall("first_token"), table.first_token, mean_and_percentiles)


def mean_and_percentiles(found: Durations) -> dict[str, float | None]:
    return {"mean": found.mean, **{f"p{rank}": found.percentile(rank) for rank in PERCENTILES}}


def token_burn(table: Table) -> list[dict[str, Any]]:
    """Tokens and cost in USD of all settled turns, for each day and model; the cost is null where a price is unknown.

    Cached tokens are part of the prompt's, and reasoning tokens of the completion's.
    """
    rows = table.usage_by_model.items()
    return [{"day": day.isoformat(), "model": model, **burn(row)} for (day, model), row in rows if row.sold]


def burn(row: Usage) -> dict[str, Any]:
    return {"turns": row.sold, **{name: getattr(row, name) for name in TOKENS}, "cost_usd": row.cost_usd}


def total_tokens(table: Table) -> int:
    """Tokens of all settled turns, of prompts and completions, with what failed and cancelled ones had used."""
    return table.total.total_tokens


def token_burn_by_client(table: Table) -> list[dict[str, Any]]:
    """Tokens and cost in USD of the 20 client tokens that burnt most."""
    rows = top(usage_by(table.query, "client_token_id").items())
    return [{"client_token_id": client, **burn(row)} for (client,), row in rows if row.total_tokens]


def top(rows: Iterable[tuple[Key, Usage]]) -> list[tuple[Key, Usage]]:
    """Return the first TOP rows by tokens."""
    return sorted(rows, key=lambda row: (-row[1].total_tokens, row[0]))[:TOP]


def token_burn_by_user(table: Table) -> list[dict[str, Any]]:
    """Tokens and cost in USD of the 20 users who burnt most."""
    days = UserDay.objects.filter(table.query.rows, sold__gt=0)
    return [
        {"user_id": user, "turns": row.sold, "total_tokens": row.total_tokens, "cost_usd": row.cost_usd}
        for (user,), row in bought_by(days, "user_id", most=TOP)
    ]


def cost_usd(table: Table) -> float | None:
    """What all settled turns cost in USD; null where any price is unknown."""
    cost = table.total.cost_usd
    return None if cost is None else round(cost, 9)


def replays(table: Table) -> dict[str, Any]:
    """Answers given again for an idempotency key, and the tokens and USD that were not spent twice.

    The model is that of the turn whose answer it was; the USD are null where a price is unknown.
    """
    return in_all(table.total, {day: row for day, row in table.usage.items() if row.replays}, saved)


def saved(row: Usage) -> dict[str, Any]:
    return {
        "replays": row.replays,
        "tokens_saved": row.replayed_tokens,
        "usd_saved": usd(row.replayed_nanos) if row.replays == row.replayed_priced else None,
    }
