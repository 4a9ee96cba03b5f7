"""A week of three users in the ledger, small enough to work every figure out by hand.

Today is a Monday too, seven days later, so all days but today are over. It is today where the fixture `noon` is used.
Times are UTC.

      ann (client 1, app 1.0)            bob (client 1, app 2.0)             cid (client 2)
Mon   10:00 10:30 10:45 gpt, 100 ms      23:50 gpt, 1,234 ms                 -
Tue   10:00 gpt, 300 ms                  00:10 gpt, 200 ms; 12:00 fails      00:00:00 local, 50 ms
Wed   10:00 gpt, 10:31 gpt, 400 ms       -                                   23:59:59.999999 local, 60 ms
Thu   10:00 the first of Monday replayed -                                   12:00 is abandoned
Sun   -                                  -                                   -
today -                                  08:00 gpt, 500 ms                   09:00 local, 70 ms; 09:05 pending
"""

from datetime import datetime, timedelta
from typing import Any

from django.db.models import Model
from django.utils import timezone

from analytics.metrics.sources import Table
from analytics.models import (
    ActivityRollup,
    AnalyticsEvent,
    Milestone,
    OpenSession,
    RollupDay,
    SessionRollup,
    UsageEvent,
    UsageRollup,
    UserDay,
)
from analytics.query import ALL, Filters, Period, Query
from analytics.rollups import schedule, store
from analytics.rollups.coverage import Coverage, bring_up_to_date
from conftest import NOON

TODAY = NOON.replace(hour=0)
MON, TUE, WED, THU, FRI, SAT, SUN = (TODAY - timedelta(days=7 - day) for day in range(7))
# The ledger, and what is built of it.
TABLES: list[type[Model]] = [UsageEvent, AnalyticsEvent, RollupDay, UsageRollup, UserDay]
TABLES += [ActivityRollup, Milestone, SessionRollup, OpenSession]
LAST_INSTANT = timedelta(days=1, microseconds=-1)
ANN: dict[str, Any] = {"user_id": "ann", "client_token_id": 1, "model": "gpt", "app_version": "1.0"}
BOB: dict[str, Any] = {"user_id": "bob", "client_token_id": 1, "model": "gpt", "app_version": "2.0"}
CID: dict[str, Any] = {"user_id": "cid", "client_token_id": 2, "model": "local", "app_version": ""}


def week(filters: Filters = ALL) -> Query:
    return Query(Period(MON.date(), TODAY.date()), filters)


def roll_up() -> Coverage:
    """Build every day that is due or goes on, as the server does."""
    for day in schedule.due(timezone.now()):
        store.build_day(day)
    return bring_up_to_date()


def make_current() -> None:
    """Leave nothing for a reader to build: today is built, and so late that none of its rows can be younger."""
    roll_up()
    keep_today_built()


def keep_today_built() -> None:
    """Let no reader build today again, though a turn of it is pending."""
    UsageRollup.objects.update(pending=0)
    RollupDay.objects.filter(is_partial=True).update(built_at=timezone.now() + timedelta(minutes=1))


def table(filters: Filters = ALL, *, first: datetime = MON, last: datetime = TODAY) -> Table:
    """Return what metrics of these days are computed from, up to date."""
    roll_up()
    return Table(Query(Period(first.date(), last.date()), filters))


def at(day: datetime, hour: int, minute: int = 0) -> datetime:
    return day + timedelta(hours=hour, minutes=minute)


def row(who: dict[str, Any], when: datetime, status: str = "completed", latency_ms: int = 100, **fields: Any) -> str:
    """A usage row alone: 100 tokens for 1,000 nanodollars, or of unknown price where the model is local."""
    request_id = f"r_{UsageEvent.objects.count()}"
    sold: dict[str, Any] = {
        "prompt_tokens": 90,
        "cached_tokens": 40,
        "completion_tokens": 10,
        "reasoning_tokens": 5,
        "total_tokens": 100,
        "cost_nanos": None if who["model"] == "local" else 1000,
    }
    UsageEvent.objects.create(
        request_id=request_id,
        **who,
        **{**(sold if status == "completed" else {}), **fields},
        status=status,
        latency_ms=latency_ms if status in ("completed", "failed") else None,
        locked_until=when,
        created_at=when,
        finished_at=None if status == "pending" else when,
    )
    return request_id


def turn(who: dict[str, Any], when: datetime, status: str = "completed", latency_ms: int = 100, **fields: Any) -> str:
    """One row in each table, as a turn leaves them."""
    request_id = row(who, when, status, latency_ms, **fields)
    if status != "pending":
        event(who, when, f"chat.{status}")
    return request_id


def event(who: dict[str, Any], when: datetime, name: str = "chat.completed", **metadata: Any) -> None:
    AnalyticsEvent.objects.create(event_name=name, **who, metadata_json=metadata, created_at=when)


# What `write_built_week` has written for the first time.
_built: list[tuple[type[Model], list[Model]]] = []


def write_built_week() -> None:
    """Write the week with its rollups, in a tenth of the time of a build: from the second time on, from copies.

    For tests that read before they change anything.
    """
    if not _built:
        write_week()
        roll_up()
        _built.extend((table, list(table._default_manager.all())) for table in TABLES)
        return
    for table, rows in _built:
        table._default_manager.bulk_create(copy_of(row) for row in rows)


def forget_builds() -> None:
    """Let every day be built again, of the rows that a test has added as well."""
    RollupDay.objects.all().delete()


def copy_of(row: Model) -> Model:
    """Return a row that can be inserted again, with a new key where the database gives keys."""
    columns = {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}
    return type(row)(**{name: value for name, value in columns.items() if name != "id"})


def write_week() -> None:
    original = turn(ANN, at(MON, 10), first_token_ms=20)
    turn(ANN, at(MON, 10, 30))
    turn(ANN, at(MON, 10, 45))
    turn(BOB, at(MON, 23, 50), latency_ms=1234, first_token_ms=40)
    turn(BOB, at(TUE, 0, 10), latency_ms=200)
    turn(CID, TUE, latency_ms=50)
    turn(ANN, at(TUE, 10), latency_ms=300)
    turn(BOB, at(TUE, 12), "failed", latency_ms=30, error_code="upstream_error")
    turn(ANN, at(WED, 10), latency_ms=400)
    turn(ANN, at(WED, 10, 31), latency_ms=400)
    turn(CID, WED + LAST_INSTANT, latency_ms=60)
    event({**ANN, "model": ""}, at(THU, 10), "chat.replayed", original_request_id=original)
    turn(CID, at(THU, 12), "abandoned", error_code="abandoned")
    turn(BOB, at(TODAY, 8), latency_ms=500)
    turn(CID, at(TODAY, 9), latency_ms=70)
    turn(CID, at(TODAY, 9, 5), "pending")
