"""OpenAI's usage export: pages of the usage API, or the CSV of the dashboard."""

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from analytics.query import DAY, midnight

# Our names of figures, and those of the export. Input tokens include those read from the cache and written to it, on
# both sides.
FIGURES = {
    "requests": "num_model_requests",
    "prompt_tokens": "input_tokens",
    "cached_tokens": "input_cached_tokens",
    "cache_write_tokens": "input_cache_write_tokens",
    "completion_tokens": "output_tokens",
}
# Exports of before GPT-5.6 lack it, and cannot be compared in it.
NEWER = "cache_write_tokens"
REQUIRED = {"model", "num_model_requests", "input_tokens", "output_tokens"}
# The dashboard's CSV has only these columns for days without any usage.
TIMES = {"start_time", "end_time", "start_time_iso", "end_time_iso"}


class BadExport(Exception):
    """The file cannot be compared; the message says what to do."""


@dataclass(frozen=True)
class Bucket:
    """Usage of one span of time."""

    start: datetime
    end: datetime
    results: list[dict[str, Any]]

    @property
    def day(self) -> date:
        return self.start.date()


def parse(text: str) -> list[Bucket]:
    """Read the buckets of an export. Raises BadExport where one straddles a UTC midnight, or nothing can be read."""
    buckets = list(from_json(text) if text.lstrip().startswith(("{", "[")) else from_csv(text))
    for bucket in buckets:
        if bucket.day != max(bucket.start, bucket.end - timedelta(microseconds=1)).date():
            raise BadExport(
                f"The bucket from {bucket.start:%Y-%m-%d %H:%M} to {bucket.end:%Y-%m-%d %H:%M} straddles a UTC "
                "midnight: export with a start_time that is a midnight, or with bucket_width=1h."
            )
    return buckets


def from_json(text: str) -> Iterator[Bucket]:
    """Read pages that stand one after another, on a line each or not, or in a list."""
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
    """Read rows, of which each is one result and names its bucket."""
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
    """Read Unix seconds or ISO 8601. A time without an offset is UTC, as all of OpenAI's times are."""
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


def choose_day(buckets: list[Bucket], day: date | None) -> date:
    """Return `day`, or the only day of the export where none is named."""
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
    """Say from when to when the buckets reach: an export that was cut short explains a difference."""
    start, end = min(bucket.start for bucket in buckets), max(bucket.end for bucket in buckets)
    is_whole = start == midnight(day) and end == midnight(day + DAY)
    return {"from": start.isoformat(), "to": end.isoformat(), "is_whole_day": is_whole}


def sold_by_openai(buckets: Iterable[Bucket]) -> dict[str, Counter[str]]:
    """Return the figures of each model."""
    sold: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for result in (result for bucket in buckets for result in bucket.results):
        if missing := REQUIRED - result.keys():
            names = ", ".join(sorted(missing))
            raise BadExport(f"The export lacks {names}: export the usage of completions, grouped by model.")
        figures = {ours: count_of(result, theirs) for ours, theirs in FIGURES.items()}
        if any(figures.values()):
            if not isinstance(result["model"], str) or not result["model"]:
                raise BadExport("The export names no model: export it again with group_by=model.")
            sold[result["model"]].update(figures)
    return sold


def told_figures(buckets: Iterable[Bucket]) -> list[str]:
    """Name the figures that the export tells."""
    results = [result for bucket in buckets for result in bucket.results]
    is_told = not results or any(FIGURES[NEWER] in result for result in results)
    return [name for name in FIGURES if name != NEWER or is_told]


def count_of(result: dict[str, Any], name: str) -> int:
    """Read a count. The dashboard writes counts as `3.0`, and leaves those of a bucket without usage empty."""
    value = result.get(name) or 0
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if number < 0 or not number.is_integer():
        raise BadExport(f"{value!r} is no count of {name}: export it again.")
    return int(number)
