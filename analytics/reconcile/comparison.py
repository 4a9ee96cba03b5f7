"""One UTC day of the ledger beside what OpenAI says it sold."""

import re
from collections import Counter, defaultdict
from datetime import date
from typing import Any

from django.db.models import Count, F, Q, Sum, Value
from django.db.models.functions import Coalesce, NullIf

from analytics.formatting import usd
from analytics.ledger.sums import usage_rows
from analytics.models import RollupDay, UsageEvent
from analytics.reconcile.export_file import BadExport, choose_day, covered, parse, sold_by_openai, told_figures

Status = UsageEvent.Status

# What OpenAI calls the model of a row. A reply that broke off early never named it.
SERVED = Coalesce(NullIf("served_model", Value("")), F("model"))
# OpenAI appends a date to the name of a model that an alias stands for.
SNAPSHOT = r"-\d{4}(-\d{2}-\d{2})?"
SOLD = Q(status=Status.COMPLETED) | Q(prompt_tokens__gt=0)


def reconcile(text: str, day: date | None = None) -> dict[str, Any]:
    """Compare `text`, an export, with the ledger of `day`, or of the only day in the export where none is named.

    Raises BadExport where the export or the ledger cannot tell.
    """
    buckets = parse(text)
    day = choose_day(buckets, day)
    if RollupDay.objects.filter(pk=day, purged_at__isnull=False).exists():
        raise BadExport(f"The ledger's rows of {day} were deleted after RAW_RETENTION_DAYS: compare a later day.")
    buckets = [bucket for bucket in buckets if bucket.day == day]
    compared = compare(sold_by_openai(buckets), ledger(day), told_figures(buckets))
    return {"day": day.isoformat(), "export": covered(buckets, day), **compared}


def ledger(day: date) -> list[dict[str, Any]]:
    """Return the day's rows by model, in one pass over the index on created_at.

    OpenAI counts a request in the bucket in which it was made, which is when its row was opened. It counts the
    requests that it answered: rows that completed, or that failed or were superseded after tokens were sold.
    """
    abandoned, failed = Q(status=Status.ABANDONED), Q(status=Status.FAILED)
    rows = usage_rows(day).annotate(name=SERVED).values("name")
    by_model = rows.annotate(
        requests=Count("id", filter=SOLD),
        prompt=Sum("prompt_tokens"),
        cached=Sum("cached_tokens"),
        cache_write=Sum("cache_write_tokens"),
        completion=Sum("completion_tokens"),
        cost=Sum("cost_nanos", filter=SOLD, default=0),
        unpriced=Count("id", filter=SOLD & Q(cost_nanos=None)),
        abandoned_without_figures=Count("id", filter=abandoned & ~SOLD),
        failed_without_figures=Count("id", filter=failed & ~SOLD),
        estimated=Count("id", filter=Q(is_estimated=True)),
        estimated_tokens=Sum("total_tokens", filter=Q(is_estimated=True), default=0),
        pending=Count("id", filter=Q(status=Status.PENDING)),
    )
    return [{**row} for row in by_model]


def compare(sold: dict[str, Counter[str]], rows: list[dict[str, Any]], figures: list[str]) -> dict[str, Any]:
    """Put these figures of each model side by side, and count what of the ledger is not exact."""
    bought = [row for row in rows if row["requests"]]
    recorded = {row["name"] for row in bought}
    mine: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in bought:
        mine[exported_name(row["name"], set(sold), recorded)].append(row)
    models = [model_line(model, sold.get(model, Counter()), mine[model], figures) for model in sorted({*sold, *mine})]
    causes = ["abandoned_without_figures", "failed_without_figures", "estimated", "estimated_tokens", "pending"]
    return {
        "is_equal": not any(any(model["difference"].values()) for model in models),
        "models": models,
        "causes": {cause: sum(row[cause] for row in rows) for cause in causes},
    }


def exported_name(model: str, sold: set[str], recorded: set[str]) -> str:
    """Return the name by which OpenAI lists what the ledger calls `model`.

    The ledger holds the name in the answer, which is dated. A reply that broke off before it named its model, or a
    provider that echoes the request, leaves the alias that was asked for. An alias that the export lacks stands for
    the dated model of that alias: one that the ledger lacks, or else the only one. Where several would do, it stays
    by itself: a guess would hide a difference.
    """
    if model in sold:
        return model
    dated = {name for name in sold if re.fullmatch(re.escape(model) + SNAPSHOT, name)}
    candidates = dated - recorded or dated
    return candidates.pop() if len(candidates) == 1 else model


def model_line(model: str, theirs: Counter[str], rows: list[dict[str, Any]], figures: list[str]) -> dict[str, Any]:
    # A sum in SQL may not be called as the column it sums.
    ours = {name: sum(row[name.removesuffix("_tokens")] for row in rows) for name in figures}
    is_priced = not any(row["unpriced"] for row in rows)
    return {
        "model": model,
        "ledger_names": sorted(row["name"] for row in rows),
        "openai": {name: theirs[name] for name in figures},
        "ledger": ours,
        "difference": {name: theirs[name] - ours[name] for name in figures},
        "ledger_cost_usd": usd(sum(row["cost"] for row in rows)) if is_priced else None,
    }
