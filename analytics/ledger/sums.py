"""Raw rows of one UTC day, added up by the database: what rollups are built of.

Both tables are read over their index on `created_at`. Keys without rows are absent.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

from django.db.models import Count, Max, Min, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from analytics.histograms import rounded_column
from analytics.models import AnalyticsEvent, UsageEvent
from analytics.query import Period

Status = UsageEvent.Status
SOLD = Q(total_tokens__gt=0) & ~Q(status=Status.PENDING)
COMPLETED = Q(status=Status.COMPLETED)
TURN = "chat.completed"
REPLAY = "chat.replayed"
# Request ids looked up in one statement.
BATCH = 500


def total(name: str, condition: Q = SOLD) -> Coalesce:
    return Coalesce(Sum(name, filter=condition), 0)


# The columns of a usage rollup that add up, by how they are computed from usage rows.
FIGURES: dict[str, Any] = {
    **{status.value: Count("id", filter=Q(status=status)) for status in Status},
    "sold": Count("id", filter=SOLD),
    "priced": Count("id", filter=SOLD & Q(cost_nanos__isnull=False)),
    "prompt_tokens": total("prompt_tokens"),
    "cached_tokens": total("cached_tokens"),
    "completion_tokens": total("completion_tokens"),
    "reasoning_tokens": total("reasoning_tokens"),
    "total_tokens": total("total_tokens"),
    "cost_nanos": total("cost_nanos"),
    "timed": Count("latency_ms", filter=COMPLETED),
    "latency_sum_ms": total("latency_ms", COMPLETED),
    "streamed": Count("first_token_ms", filter=COMPLETED),
    "first_token_sum_ms": total("first_token_ms", COMPLETED),
}
# The columns that hold what clients say of replies, by the event that says it.
FEEDBACK = {"thumbs_up": "client.thumbs_up", "thumbs_down": "client.thumbs_down", "regenerated": "client.regenerated"}
# Those that are counted of each day, by their event: what clients say, and people who sign in for the first time.
SIGN_UP = "person.signed_up"
COUNTED = {**FEEDBACK, "sign_ups": SIGN_UP}
BOUGHT = ["sold", "priced", "total_tokens", "cost_nanos"]


def usage_rows(day: date) -> QuerySet[UsageEvent]:
    return UsageEvent.objects.filter(Period(day, day).instants).order_by()


def event_rows(day: date) -> QuerySet[AnalyticsEvent]:
    return AnalyticsEvent.objects.filter(Period(day, day).instants).order_by()


def oldest_day() -> date | None:
    """Return the day of the oldest raw row."""
    events, turns = AnalyticsEvent.objects.all(), UsageEvent.objects.all()
    oldest = [rows.aggregate(at=Min("created_at"))["at"] for rows in (events, turns)]
    return min((at.date() for at in oldest if at), default=None)


def usage(day: date, *by: str, figures: Iterable[str] = FIGURES) -> list[dict[str, Any]]:
    """Add up the named figures of usage rows, for each value of the columns `by`."""
    # A sum may not have its column's name while that column is named in the query.
    sums = {f"sum_{name}": FIGURES[name] for name in figures}
    found = usage_rows(day).values(*by).annotate(**sums)
    return [{name.removeprefix("sum_"): value for name, value in row.items()} for row in found]


def failures(day: date, *by: str) -> Iterator[tuple[dict[str, Any], str, int]]:
    """Yield key, error code, and how many failed or abandoned turns ended with it."""
    ended = usage_rows(day).filter(status__in=[Status.FAILED, Status.ABANDONED])
    for row in ended.values(*by, "error_code").annotate(count=Count("id")):
        code, count = row.pop("error_code"), row.pop("count")
        yield row, code, count


def durations(day: date, column: str, *by: str) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Yield key, milliseconds rounded as a histogram has them, and how many completed turns took that long."""
    rows = usage_rows(day).filter(COMPLETED, **{f"{column}__isnull": False})
    keyed = rows.annotate(rounded=rounded_column(column)).values(*by, "rounded")
    for row in keyed.annotate(count=Count("id")).iterator():
        rounded, count = row.pop("rounded"), row.pop("count")
        yield row, rounded, count


def replays(day: date) -> Iterator[tuple[tuple[Any, ...], Counter[str]]]:
    """Yield client, model and version, and the figures of one replay.

    The model and the price are those of the turn whose answer was given again; empty and 0 where its row is gone.
    """
    columns = ["client_token_id", "app_version", "metadata_json__original_request_id"]
    replayed = list(event_rows(day).filter(event_name=REPLAY).values_list(*columns))
    for start in range(0, len(replayed), BATCH):
        batch = replayed[start : start + BATCH]
        originals = UsageEvent.objects.filter(request_id__in={request_id for *_, request_id in batch})
        sold = {row[0]: row[1:] for row in originals.values_list("request_id", "model", "total_tokens", "cost_nanos")}
        for client, version, request_id in batch:
            model, tokens, nanos = sold.get(request_id, ("", 0, None))
            figures = Counter(
                replays=1, replayed_priced=int(nanos is not None), replayed_tokens=tokens, replayed_nanos=nanos or 0
            )
            yield (client, model, version), figures


def counted(day: date, *by: str) -> list[dict[str, Any]]:
    """Count events by their kinds, for each value of the columns `by`."""
    rows = event_rows(day).filter(event_name__in=COUNTED.values())
    counts = {figure: Count("id", filter=Q(event_name=name)) for figure, name in COUNTED.items()}
    return list(rows.values(*by).annotate(**counts))


def signed_up(day: date) -> QuerySet[AnalyticsEvent, str]:
    """Return the users who signed in for the first time on the day."""
    return event_rows(day).filter(event_name=SIGN_UP).values_list("user_id", flat=True)


def user_events(day: date, *by: str) -> Iterator[dict[str, Any]]:
    """Yield completed turns, events, and the first and the last of them, for each value of the columns `by`."""
    counted = (
        event_rows(day)
        .values(*by)
        .annotate(
            turns=Count("id", filter=Q(event_name=TURN)),
            events=Count("id"),
            first_at=Min("created_at"),
            last_at=Max("created_at"),
        )
    )
    return iter(counted.iterator())
