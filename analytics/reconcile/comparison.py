"""One UTC day of the ledger beside what OpenAI says it sold: its usage export, read and compared."""

import csv
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.db.models import Count, F, Q, Sum, Value
from django.db.models.functions import Coalesce, NullIf

from analytics.ledger.sums import usage_rows
from analytics.metrics.sources import NANOS_PER_DOLLAR
from analytics.models import RollupDay, UsageEvent
from analytics.query import ALL, Window

Status = UsageEvent.Status

# Our names, and those of OpenAI's export. Input tokens include the cached ones, on both sides.
FIGURES = {
    "requests": "num_model_requests",
    "prompt_tokens": "input_tokens",
    "cached_tokens": "input_cached_tokens",
    "completion_tokens": "output_tokens",
}
# What OpenAI calls the model of a row; it never named that of a reply which broke off early.
SERVED = Coalesce(NullIf("served_model", Value("")), F("model"))
REQUIRED = {"model", "num_model_requests", "input_tokens", "output_tokens"}
# The dashboard's CSV of days without any usage has these columns alone.
TIMES = {"start_time", "end_time", "start_time_iso", "end_time_iso"}
SNAPSHOT = r"-\d{4}(-\d{2}-\d{2})?"

SOLD = Q(status=Status.COMPLETED) | Q(prompt_tokens__gt=0)


class BadExport(Exception):
    """The file cannot be compared; the message says what to do."""


@dataclass(frozen=True)
class Bucket:
    start: datetime
    end: datetime
    results: list[dict[str, Any]]

    @property
    def day(self) -> date:
        return self.start.date()


def reconcile(text: str, day: date | None = None) -> dict[str, Any]:
    """Compare `text`, an export, with the ledger of `day`: the only day in the export where none is named."""
    buckets = parse(text)
    day = chosen_day(buckets, day)
    if RollupDay.objects.filter(pk=day, purged_at__isnull=False).exists():
        raise BadExport(f"The ledger's rows of {day} were deleted after RAW_RETENTION_DAYS: compare a later day.")
    buckets = [bucket for bucket in buckets if bucket.day == day]
    return {"day": day.isoformat(), "export": covered(buckets, day), **compare(sold_by_openai(buckets), ledger(day))}


def parse(text: str) -> list[Bucket]:
    """The buckets of an export: pages of the usage API, or the CSV of the dashboard."""
    buckets = list(from_json(text) if text.lstrip().startswith(("{", "[")) else from_csv(text))
    for bucket in buckets:
        if bucket.day != max(bucket.start, bucket.end - timedelta(microseconds=1)).date():
            raise BadExport(
                f"The bucket from {bucket.start:%Y-%m-%d %H:%M} to {bucket.end:%Y-%m-%d %H:%M} straddles a UTC "
                "midnight: export with a start_time that is a midnight, or with bucket_width=1h."
            )
    return buckets


def from_json(text: str) -> Iterator[Bucket]:
    """Pages one after another, on a line each or not, or in a list."""
    pages = list(json_values(text))
    starts = set()
    for page in pages:
        for bucket in entries(page, "data"):
            found = Bucket(instant(bucket, "start_time"), instant(bucket, "end_time"), entries(bucket, "results"))
            if found.start in starts:
                raise BadExport(f"The bucket of {found.start:%Y-%m-%d %H:%M} is there twice: give each page once.")
            starts.add(found.start)
            yield found
    if pages and pages[-1].get("has_more"):
        raise BadExport(
            f"The last page has more: fetch the next one with page={pages[-1].get('next_page')} and append it."
        )


def json_values(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    rest = text.strip()
    while rest:
        try:
            value, end = decoder.raw_decode(rest)
        except (ValueError, RecursionError) as exc:
            raise BadExport("The file is neither JSON nor CSV: give what the usage API answered, unchanged.") from exc
        yield from value if isinstance(value, list) else [value]
        rest = rest[end:].lstrip()


def entries(value: Any, name: str) -> list[dict[str, Any]]:
    found = value.get(name) if isinstance(value, dict) else None
    if isinstance(found, list) and all(isinstance(entry, dict) for entry in found):
        return found
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, dict):
        raise BadExport(f"The file holds an error instead of a page: {error.get('message')} Export it again.")
    raise BadExport(f"A page of the usage API has a list `{name}`, this file has none: export it again.")


def from_csv(text: str) -> Iterator[Bucket]:
    """A row is one result; its bucket is named again in each."""
    reader = csv.DictReader(io.StringIO(text))
    try:
        columns = set(reader.fieldnames or [])
        if not columns & {"start_time", "start_time_iso"}:
            raise BadExport(
                "The file is neither JSON nor CSV with a start_time: export the usage of completions again."
            )
        for row in reader:
            start = instant(row, "start_time", "start_time_iso")
            end = instant(row, "end_time", "end_time_iso") if columns & {"end_time", "end_time_iso"} else start
            yield Bucket(start, end, [] if columns <= TIMES else [row])
    except csv.Error as exc:
        raise BadExport(f"The CSV cannot be read after line {reader.line_num}: {exc}. Export it again.") from exc


def instant(row: dict[str, Any], *names: str) -> datetime:
    """Unix seconds or ISO 8601; without an offset it is UTC, as all of OpenAI's times are."""
    value = next((row[name] for name in names if row.get(name) not in (None, "")), None)
    try:
        return datetime.fromtimestamp(float(value), UTC)  # type: ignore[arg-type]
    except (TypeError, OverflowError, OSError, ValueError):
        pass
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError as exc:
        raise BadExport(f"{value!r} is no {names[0]}: give Unix seconds or ISO 8601.") from exc
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def chosen_day(buckets: list[Bucket], day: date | None) -> date:
    days = sorted({bucket.day for bucket in buckets})
    named = ", ".join(found.isoformat() for found in days)
    if not days:
        raise BadExport("The export holds no buckets: export the day again.")
    if day is None and len(days) > 1:
        raise BadExport(f"The export holds several days: choose one with --day: {named}.")
    if day is not None and day not in days:
        raise BadExport(f"The export does not hold {day}: export that day, or choose one with --day: {named}.")
    return day or days[0]


def covered(buckets: list[Bucket], day: date) -> dict[str, Any]:
    """From when to when the buckets reach: an export that was cut short explains a difference."""
    midnight = datetime.combine(day, time(), UTC)
    start, end = min(bucket.start for bucket in buckets), max(bucket.end for bucket in buckets)
    is_whole = start == midnight and end == midnight + timedelta(days=1)
    return {"from": start.isoformat(), "to": end.isoformat(), "is_whole_day": is_whole}


def sold_by_openai(buckets: Iterable[Bucket]) -> dict[str, Counter[str]]:
    sold: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for result in (result for bucket in buckets for result in bucket.results):
        if missing := REQUIRED - result.keys():
            names = ", ".join(sorted(missing))
            raise BadExport(f"The export lacks {names}: export the usage of completions, grouped by model.")
        figures = {ours: whole(result, theirs) for ours, theirs in FIGURES.items()}
        if any(figures.values()):
            if not isinstance(result["model"], str) or not result["model"]:
                raise BadExport("The export names no model: export it again with group_by=model.")
            sold[result["model"]].update(figures)
    return sold


def whole(result: dict[str, Any], name: str) -> int:
    """The dashboard writes counts as `3.0`, and leaves those of a bucket without usage empty."""
    value = result.get(name) or 0
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if number < 0 or not number.is_integer():
        raise BadExport(f"{value!r} is no count of {name}: export it again.")
    return int(number)


def ledger(day: date) -> list[dict[str, Any]]:
    """The day's rows by model, in one pass over the index on created_at.

    OpenAI counts a request in the bucket in which it was made, which is when its row was opened. It counts
    those that it answered: here rows that completed, or that failed or were superseded after tokens were sold.
    """
    abandoned, failed = Q(status=Status.ABANDONED), Q(status=Status.FAILED)
    rows = usage_rows(Window(day, day), ALL).order_by().annotate(name=SERVED).values("name")
    by_model = rows.annotate(
        requests=Count("id", filter=SOLD),
        prompt=Sum("prompt_tokens"),
        cached=Sum("cached_tokens"),
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


def compare(sold: dict[str, Counter[str]], rows: list[dict[str, Any]]) -> dict[str, Any]:
    bought = [row for row in rows if row["requests"]]
    recorded = {row["name"] for row in bought}
    mine: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in bought:
        mine[exported_name(row["name"], set(sold), recorded)].append(row)
    models = [line(model, sold.get(model, Counter()), mine[model]) for model in sorted({*sold, *mine})]
    causes = ["abandoned_without_figures", "failed_without_figures", "estimated", "estimated_tokens", "pending"]
    return {
        "is_equal": not any(any(model["difference"].values()) for model in models),
        "models": models,
        "causes": {cause: sum(row[cause] for row in rows) for cause in causes},
    }


def exported_name(model: str, sold: set[str], recorded: set[str]) -> str:
    """The name by which OpenAI lists what the ledger calls `model`.

    The ledger holds the name in the answer, which is dated; a reply that broke off before it named its model,
    or a provider that echoes the request, leaves the alias that was asked for. An alias that the export lacks
    is the dated model of that alias: one that the ledger lacks, or else the only one. Where several would do
    it stays by itself, for guessing would hide a difference.
    """
    if model in sold:
        return model
    dated = {name for name in sold if re.fullmatch(re.escape(model) + SNAPSHOT, name)}
    candidates = dated - recorded or dated
    return candidates.pop() if len(candidates) == 1 else model


def line(model: str, theirs: Counter[str], rows: list[dict[str, Any]]) -> dict[str, Any]:
    # A sum in SQL may not be called as the column it sums.
    ours = {name: sum(row[name.removesuffix("_tokens")] for row in rows) for name in FIGURES}
    is_priced = not any(row["unpriced"] for row in rows)
    return {
        "model": model,
        "ledger_names": sorted(row["name"] for row in rows),
        "openai": {name: theirs[name] for name in FIGURES},
        "ledger": ours,
        "difference": {name: theirs[name] - ours[name] for name in FIGURES},
        "ledger_cost_usd": sum(row["cost"] for row in rows) / NANOS_PER_DOLLAR if is_priced else None,
    }
