"""Metrics of the ledger: turns by the UTC day on which they were opened."""

from collections import Counter
from typing import Any

from django.db.models import Sum

from analytics.ledger import sums as aggregates
from analytics.metrics import sources as reading
from analytics.models import Refusals, UsageEvent, UserDay
from analytics.query import ALL, Filters, Window

STATUSES = [status.value for status in UsageEvent.Status]
ENDED = ["completed", "failed", "abandoned"]
TOKENS = ["prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "total_tokens"]
COST = ["sold", "priced", "cost_nanos"]
TOP = 20


def usage_by_day_and_model(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """Turns that ended, those that failed, tokens, and cost in USD, by day and model; null where a price is unknown."""
    names = [*ENDED, *TOKENS, *COST]
    rows = reading.usage(window, filters, "day", "model", names=names)
    return [
        {
            "day": day.isoformat(),
            "model": model,
            "turns": turns,
            "failed": figures["failed"],
            "prompt_tokens": figures["prompt_tokens"],
            "cached_tokens": figures["cached_tokens"],
            "completion_tokens": figures["completion_tokens"],
            "total_tokens": figures["total_tokens"],
            "cost_usd": reading.dollars(figures),
        }
        for (day, model), figures in sorted(rows.items())
        if (turns := sum(figures[status] for status in ENDED))
    ]


def turns(window: Window, filters: Filters = ALL) -> dict[str, int]:
    """Turns by how they ended; pending ones have not."""
    figures = reading.usage(window, filters, names=STATUSES).get((), Counter())
    return {status: figures[status] for status in STATUSES}


def success_rate(window: Window, filters: Filters = ALL) -> float | None:
    """Completed turns as a share of those that ended (completed, failed or abandoned); null when none did."""
    return rate(Counter(turns(window, filters)))


def rate(figures: Counter[str]) -> float | None:
    """Rounded, but 1 for all alone, and 0 for none."""
    ended = sum(figures[status] for status in ENDED)
    rounded = share(figures["completed"], ended)
    return rounded if rounded is None or figures["completed"] in (0, ended) else min(max(rounded, 0.0001), 0.9999)


def turns_by_day(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """Turns of each day by how they ended, and the day's success rate; null when none ended."""
    by_day = reading.usage(window, filters, "day", names=STATUSES)
    days = {day: by_day.get((day,), Counter()) for day in window.days}
    return [
        {
            "day": day.isoformat(),
            **{status: figures[status] for status in STATUSES},
            "success_rate": rate(figures),
        }
        for day, figures in days.items()
    ]


def abandoned(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """Turns of each day whose process died or whose key another turn took over, as a share of those that ended."""
    by_day = reading.usage(window, filters, "day", names=ENDED)
    days = {day: by_day.get((day,), Counter()) for day in window.days}
    return [
        {"day": day.isoformat(), "turns": figures["abandoned"], "share": share(figures["abandoned"], figures.total())}
        for day, figures in days.items()
    ]


def share(part: float, whole: float, digits: int = 4) -> float | None:
    return round(part / whole, digits) if whole else None


def failures(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """Failed and abandoned turns of each day, by error code."""
    by_day = sorted(reading.failures(window, filters).items())
    return [
        {"day": day.isoformat(), "code": code, "turns": count}
        for day, codes in by_day
        for code, count in sorted(codes.items())
    ]


def latency_ms(window: Window, filters: Filters = ALL) -> dict[str, Any]:
    """Milliseconds that completed turns took: mean, and percentiles by nearest rank (above 1,000 within 0.5 %)."""
    return durations(window, filters, "latency_ms")


def avg_latency_ms(window: Window, filters: Filters = ALL) -> float | None:
    """Mean milliseconds that completed turns took; null when none did."""
    figures = reading.usage(window, filters, names=["timed", "latency_sum_ms"]).get((), Counter())
    return share(figures["latency_sum_ms"], figures["timed"], 1)


def first_token_ms(window: Window, filters: Filters = ALL) -> dict[str, Any]:
    """Milliseconds to the first token of completed streams: mean, and percentiles by nearest rank, as of latency."""
    return durations(window, filters, "first_token_ms")


def durations(window: Window, filters: Filters, column: str) -> dict[str, Any]:
    by_day = reading.durations(window, filters, column)
    overall = reading.Durations()
    for those in by_day.values():
        overall.merge(those)
    rows = [{"day": day.isoformat(), **summary(those)} for day, those in sorted(by_day.items())]
    return {**summary(overall), "by_day": rows}


def summary(those: reading.Durations) -> dict[str, float | None]:
    p50, p95, p99 = those.histogram.percentiles(50, 95, 99)
    return {"mean": share(those.sum_ms, those.histogram.total, 1), "p50": p50, "p95": p95, "p99": p99}


def token_burn(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """Tokens and cost in USD of all settled turns, for each day and model; the cost is null where a price is unknown.

    Cached tokens are part of the prompt's, and reasoning tokens of the completion's.
    """
    rows = reading.usage(window, filters, "day", "model", names=[*TOKENS, *COST])
    return [
        {"day": day.isoformat(), "model": model, **burnt(figures)}
        for (day, model), figures in sorted(rows.items())
        if figures["sold"]
    ]


def total_tokens(window: Window, filters: Filters = ALL) -> int:
    """Tokens of all settled turns, of prompts and completions, with what failed and cancelled ones had used."""
    return reading.usage(window, filters, names=["total_tokens"]).get((), Counter())["total_tokens"]


def burnt(figures: Counter[str]) -> dict[str, Any]:
    return {
        "turns": figures["sold"],
        **{name: figures[name] for name in TOKENS},
        "cost_usd": reading.dollars(figures),
    }


def token_burn_by_client(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """Tokens and cost in USD of the 20 client tokens that burnt most."""
    rows = reading.usage(window, filters, "client_token_id", names=[*TOKENS, *COST])
    return [
        {"client_token_id": client, **burnt(figures)} for (client,), figures in most(rows) if figures["total_tokens"]
    ]


def most(rows: dict[reading.Key, Counter[str]]) -> list[tuple[reading.Key, Counter[str]]]:
    return sorted(rows.items(), key=lambda row: (-row[1]["total_tokens"], row[0]))[:TOP]


def token_burn_by_user(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """Tokens and cost in USD of the 20 users who burnt most."""
    names = aggregates.BOUGHT
    sums = {f"sum_{name}": Sum(name) for name in names}
    days = UserDay.objects.filter(window.closed, sold__gt=0, **filters.values)
    users = days.values("user_id").annotate(burnt=Sum("total_tokens"), **sums)
    closed = list(users.order_by("-burnt", "user_id")[:TOP])
    found: list[dict[str, Any]] = []
    if window.tail:
        found += aggregates.usage(window.tail, filters, "user_id", figures=names)
        newest = aggregates.usage_rows(window.tail, filters).values("user_id")
        # Whoever is among the first is so by closed days alone, or has bought something since.
        listed = {row["user_id"] for row in closed}
        closed += [row for row in users.filter(user_id__in=newest) if row["user_id"] not in listed]
    found += [{name.removeprefix("sum_"): value for name, value in row.items()} for row in closed]
    rows = reading.merged(found, ["user_id"], names)
    return [
        {
            "user_id": user,
            "turns": figures["sold"],
            "total_tokens": figures["total_tokens"],
            "cost_usd": reading.dollars(figures),
        }
        for (user,), figures in most(rows)
        if figures["sold"]
    ]


def cost_usd(window: Window, filters: Filters = ALL) -> float | None:
    """What all settled turns cost in USD; null where any price is unknown."""
    cost = reading.dollars(reading.usage(window, filters, names=COST).get((), Counter()))
    return None if cost is None else round(cost, 9)


def replays(window: Window, filters: Filters = ALL) -> dict[str, Any]:
    """Answers given again for an idempotency key, and the tokens and USD that were not spent twice.

    The model is that of the turn whose answer it was; the USD are null where a price is unknown.
    """
    rows = reading.usage(window, filters, "day", names=aggregates.REPLAY_FIGURES)
    everything = sum((figures for figures in rows.values()), Counter())
    by_day = [
        {"day": day.isoformat(), **saved(figures)} for (day,), figures in sorted(rows.items()) if figures["replays"]
    ]
    return {**saved(everything), "by_day": by_day}


def saved(figures: Counter[str]) -> dict[str, Any]:
    known = figures["replays"] == figures["replayed_priced"]
    return {
        "replays": figures["replays"],
        "tokens_saved": figures["replayed_tokens"],
        "usd_saved": figures["replayed_nanos"] / reading.NANOS_PER_DOLLAR if known else None,
    }


def refusals(window: Window, filters: Filters = ALL) -> list[dict[str, Any]]:
    """Requests refused over a limit, for each day and error code; model and version do not filter them."""
    rows = Refusals.objects.filter(day__gte=window.first, day__lte=window.last)
    if filters.client_token_id is not None:
        rows = rows.filter(client_token_id=filters.client_token_id)
    by_code = rows.values("day", "code").annotate(total=Sum("count")).order_by("day", "code")
    return [{"day": row["day"].isoformat(), "code": row["code"], "requests": row["total"]} for row in by_code]
