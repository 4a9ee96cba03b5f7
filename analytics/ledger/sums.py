"""Raw rows of a range of days, added up by the database: what rollups are built of, and what is read until they are.

Both tables are read over their index on `created_at`. Days without rows, and keys without rows, are absent.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date
from typing import Any

from django.db.models import Count, Max, Min, Q, QuerySet, Sum
from django.db.models.functions import Coalesce, TruncDate

from analytics.histograms import rounded_column
from analytics.models import AnalyticsEvent, UsageEvent
from analytics.query import Filters, Window

Status = UsageEvent.Status
DAY_OF = TruncDate("created_at", tzinfo=UTC)
SOLD = Q(total_tokens__gt=0) & ~Q(status=Status.PENDING)
COMPLETED = Q(status=Status.COMPLETED)
TURN = "chat.completed"
REPLAY = "chat.replayed"
BATCH = 500


def total(name: str, condition: Q = SOLD) -> Coalesce:
    return Coalesce(Sum(name, filter=condition), 0)


# The columns of a usage rollup that add up, and how they come of usage rows.
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
# The same of replays.
REPLAY_FIGURES = ["replays", "replayed_priced", "replayed_tokens", "replayed_nanos"]
# The same of what clients say of replies, by the events that say it.
FEEDBACK = {
    "thumbs_up": "client.thumbs_up",
    "thumbs_down": "client.thumbs_down",
    "regenerated": "client.regenerated",
}
BOUGHT = ["sold", "priced", "total_tokens", "cost_nanos"]


def usage_rows(window: Window, filters: Filters) -> QuerySet[UsageEvent]:
    return UsageEvent.objects.filter(window.condition, **filters.values)


def event_rows(window: Window, filters: Filters) -> QuerySet[AnalyticsEvent]:
    return AnalyticsEvent.objects.filter(window.condition, **filters.values)


def usage(window: Window, filters: Filters, *by: str, figures: Iterable[str] = FIGURES) -> list[dict[str, Any]]:
    """The figures of usage rows, for each value of the columns `by`."""
    rows = usage_rows(window, filters).annotate(day=DAY_OF).order_by()
    # A sum may be called what its column is called only once the columns are no longer named.
    sums = {f"sum_{name}": FIGURES[name] for name in figures}
    found = rows.values(*by).annotate(**sums) if by else [rows.aggregate(**sums)]
    return [{name.removeprefix("sum_"): value for name, value in row.items()} for row in found]


def failures(window: Window, filters: Filters, *by: str) -> Iterator[tuple[dict[str, Any], str, int]]:
    """Key, error code, and failed or abandoned turns that ended with it."""
    ended = usage_rows(window, filters).filter(status__in=[Status.FAILED, Status.ABANDONED])
    for row in ended.annotate(day=DAY_OF).order_by().values(*by, "error_code").annotate(count=Count("id")):
        code, count = row.pop("error_code"), row.pop("count")
        yield row, code, count


def durations(window: Window, filters: Filters, column: str, *by: str) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Key, milliseconds as a histogram has them, and completed turns that took as long."""
    rows = usage_rows(window, filters).filter(COMPLETED, **{f"{column}__isnull": False})
    keyed = rows.annotate(day=DAY_OF, rounded=rounded_column(column)).order_by().values(*by, "rounded")
    for row in keyed.annotate(count=Count("id")).iterator():
        rounded, count = row.pop("rounded"), row.pop("count")
        yield row, rounded, count


def replays(window: Window, filters: Filters) -> Iterator[dict[str, Any]]:
    """One row a replay: its day, client and version; the model and the price of the turn whose answer was given."""
    # The model is that of the original, so it cannot be asked of the event.
    values = {name: value for name, value in filters.values.items() if name != "model"}
    events = AnalyticsEvent.objects.filter(window.condition, event_name=REPLAY, **values).annotate(day=DAY_OF)
    columns = ["day", "client_token_id", "app_version", "metadata_json"]
    replayed = list(events.values(*columns))
    for start in range(0, len(replayed), BATCH):
        batch = replayed[start : start + BATCH]
        originals = {event["metadata_json"].get("original_request_id") for event in batch}
        found = UsageEvent.objects.filter(request_id__in=originals)
        sold = {row["request_id"]: row for row in found.values("request_id", "model", "total_tokens", "cost_nanos")}
        for event in batch:
            original = sold.get(event.pop("metadata_json").get("original_request_id"))
            row = event | replay_figures(original)
            if filters.model in ("", row["model"]):
                yield row


def replay_figures(original: Mapping[str, Any] | None) -> dict[str, Any]:
    if original is None:
        return {"model": "", "replays": 1, "replayed_priced": 0, "replayed_tokens": 0, "replayed_nanos": 0}
    return {
        "model": original["model"],
        "replays": 1,
        "replayed_priced": int(original["cost_nanos"] is not None),
        "replayed_tokens": original["total_tokens"],
        "replayed_nanos": original["cost_nanos"] or 0,
    }


def added_replays(window: Window, filters: Filters, *by: str) -> list[dict[str, Any]]:
    """The figures of replays, for each value of the columns `by`."""
    sums: dict[tuple[Any, ...], Counter[str]] = {}
    for row in replays(window, filters):
        figures = sums.setdefault(tuple(row[name] for name in by), Counter())
        figures.update({name: row[name] for name in REPLAY_FIGURES})
    return [
        dict(zip(by, key, strict=True)) | {name: figures[name] for name in REPLAY_FIGURES}
        for key, figures in sums.items()
    ]


def feedback(window: Window, filters: Filters, *by: str) -> list[dict[str, Any]]:
    """The figures of what clients said of replies, for each value of the columns `by`."""
    said = event_rows(window, filters).filter(event_name__in=FEEDBACK.values()).annotate(day=DAY_OF).order_by()
    sums = {figure: Count("id", filter=Q(event_name=name)) for figure, name in FEEDBACK.items()}
    return list(said.values(*by).annotate(**sums) if by else [said.aggregate(**sums)])


def user_events(window: Window, filters: Filters, *by: str) -> Iterator[dict[str, Any]]:
    """Completed turns, events, and the first and the last of them, for each value of the columns `by`."""
    rows = event_rows(window, filters).annotate(day=DAY_OF).order_by().values(*by)
    figures = rows.annotate(
        turns=Count("id", filter=Q(event_name=TURN)),
        events=Count("id"),
        first_at=Min("created_at"),
        last_at=Max("created_at"),
    )
    return iter(figures.iterator())


def active_users(window: Window, filters: Filters) -> dict[date, set[str]]:
    """Users with a completed turn, by day."""
    active = event_rows(window, filters).filter(event_name=TURN).annotate(day=DAY_OF)
    users: dict[date, set[str]] = {}
    for day, user in active.order_by().values_list("day", "user_id").distinct():
        users.setdefault(day, set()).add(user)
    return users
