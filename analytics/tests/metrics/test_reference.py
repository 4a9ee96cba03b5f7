"""Every metric of random ledgers is what `reference.py` computes from their rows, whatever the rollups went through."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import time_machine
from django.db.models import DateTimeField, Value
from django.db.models.functions import Now
from django.utils import timezone
from pytest_django import Settings

from analytics import ledger
from analytics.ledger import retention
from analytics.metrics.registry import METRICS
from analytics.metrics.sources import Table
from analytics.models import AnalyticsEvent, Refusals, UsageEvent
from analytics.query import ALL, DAY, Filters, Period, Query, days_between
from analytics.rollups import schedule
from analytics.rollups.coverage import bring_up_to_date
from analytics.rollups.store import build_day
from analytics.tests.metrics import reference
from analytics.tests.metrics.random_ledger import DAYS, MODELS, VERSIONS, Story, live, seeded, write

# When ledgers end: at noon, while yesterday may still change, and while sessions may go on past midnight.
NOON = datetime(2026, 3, 18, 12, 34, 56, tzinfo=UTC)
ENDS = [NOON, NOON.replace(hour=0, minute=20), NOON.replace(hour=23, minute=50)]
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def clock(db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[time_machine.Traveller]:
    """Stop the clocks of this process and of the database."""

    def as_sql(_: Now, compiler: Any, connection: Any, **context: Any) -> Any:
        return Value(timezone.now(), output_field=DateTimeField()).as_sql(compiler, connection)

    for vendor in ("sqlite", "postgresql"):
        monkeypatch.setattr(Now, f"as_{vendor}", as_sql)
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


def story_of(seed: int, clock: time_machine.Traveller) -> Story:
    story = Story.tell(seed, ENDS[seed % len(ENDS)])
    clock.move_to(story.now)
    return story


def build() -> None:
    """Build what is due, as often as that makes later days due, and then the days that go on."""
    for _ in range(2 * DAYS):
        days = schedule.due(timezone.now())
        if not days:
            break
        for day in days:
            build_day(day)
    else:
        pytest.fail(f"{days} are due again and again")
    bring_up_to_date()


class Rows:
    """The raw rows that are and were there, as the reference reads them."""

    def __init__(self) -> None:
        self.turns: dict[int, reference.Turn] = {}
        self.events: dict[int, reference.Event] = {}

    def read(self) -> reference.Ledger:
        for turn in UsageEvent.objects.all():
            self.turns[turn.pk] = reference.Turn(
                request_id=turn.request_id,
                at=turn.created_at,
                user=turn.user_id,
                client=turn.client_token_id,
                model=turn.model,
                version=turn.app_version,
                status=turn.status,
                error_code=turn.error_code,
                prompt_tokens=turn.prompt_tokens,
                cached_tokens=turn.cached_tokens,
                completion_tokens=turn.completion_tokens,
                reasoning_tokens=turn.reasoning_tokens,
                total_tokens=turn.total_tokens,
                cost_nanos=turn.cost_nanos,
                latency_ms=turn.latency_ms,
                first_token_ms=turn.first_token_ms,
            )
        for event in AnalyticsEvent.objects.all():
            self.events[event.pk] = reference.Event(
                name=event.event_name,
                at=event.created_at,
                user=event.user_id,
                client=event.client_token_id,
                model=event.model,
                version=event.app_version,
                original=event.metadata_json.get("original_request_id", ""),
            )
        return reference.Ledger(
            turns=list(self.turns.values()),
            events=[event for _, event in sorted(self.events.items())],
            refused=[
                reference.Refused(row.day, row.client_token_id, row.code, row.count) for row in Refusals.objects.all()
            ],
            today=timezone.now().date(),
        )


def compare(seed: int, rows: Rows) -> None:
    """Ask every metric of some periods, without filters and with some."""
    raw, rng = rows.read(), seeded(seed)
    for period in periods(rng):
        for filters in (ALL, *(random_filters(rng) for _ in range(3))):
            asked = reference.Asked(
                raw, period.first, period.last, filters.client_token_id or 0, filters.model, filters.app_version
            )
            table = Table(Query(period, filters))
            for name, metric in METRICS.items():
                found, expected = metric.value(table), getattr(reference, name)(asked)
                assert found == expected, (
                    f"{name} of ledger {seed}, {period.first} to {period.last}, {filters}:\n"
                    f"  product   {found}\n  reference {expected}"
                )


def periods(rng: random.Random) -> list[Period]:
    today = timezone.now().date()
    one_day = today - rng.randrange(1, DAYS) * DAY
    return [
        Period.last_days(1),
        Period.last_days(7),
        Period.last_days(30),
        Period(today - DAYS * DAY, today - DAY),
        Period(one_day, one_day),
        Period(one_day, one_day + rng.randrange((today - one_day).days + 1) * DAY),
    ]


def random_filters(rng: random.Random) -> Filters:
    """One to three filters; one in ten matches nothing."""
    named: dict[str, Any] = {
        "client_token_id": rng.choice([1, 2, 3, 99]),
        "model": rng.choice([*MODELS, "none"]) if rng.random() < 0.4 else rng.choice(MODELS),
        "app_version": rng.choice([version for version in VERSIONS if version]),
    }
    return Filters(**{name: named[name] for name in rng.sample(list(named), rng.choice([1, 1, 2, 3]))})


@pytest.mark.parametrize("seed", range(len(ENDS)))
def test_days_that_change_after_they_were_built(seed: int, clock: time_machine.Traveller) -> None:
    """For the last days the server is live: turns end late, clients tell of yesterday, and days are built meanwhile."""
    story = story_of(seed, clock)
    rng = seeded(seed)
    ends = sorted(story.now - rng.random() * 3 * DAY for _ in range(8))
    clock.move_to(ends[0])
    write(story, ends[0])
    build()

    for start, end in pairwise([*ends, story.now]):
        live(story, start, end, clock)
        build()

    compare(seed, Rows())


@pytest.mark.parametrize("seed", [2])
def test_days_that_are_built_in_any_order(seed: int, clock: time_machine.Traveller) -> None:
    story = story_of(seed, clock)
    write(story, story.now)
    days = list(days_between(story.first_day.date(), story.now.date()))

    seeded(seed).shuffle(days)

    for day in days:
        build_day(day)
    build()
    for day in days[:8]:
        assert build_day(day)
    build()

    compare(seed, Rows())


@pytest.mark.parametrize("seed", [0, 1])
def test_days_whose_rows_are_purged(
    seed: int, clock: time_machine.Traveller, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built once, their figures stay, also where they are built again, and later days go on from them."""
    settings.RAW_RETENTION_DAYS = seeded(seed).choice([2, 7, 20])
    monkeypatch.setattr(retention, "PAUSE_SECONDS", 0)
    story, rows = story_of(seed, clock), Rows()
    start = story.now - 30 * HOUR
    clock.move_to(start)
    write(story, start)
    ledger.abandon(UsageEvent.objects.pending().values_list("request_id", flat=True).filter(created_at__lt=start - DAY))
    build()
    compare(seed, rows)

    assert retention.run_due(timezone.now())
    # Turns and events go on, and every day is built again that can be.
    live(story, start, story.now, clock)
    ledger.invalidate(list(days_between(story.first_day.date(), story.now.date())))
    build()

    kept_from = start - (settings.RAW_RETENTION_DAYS + 1) * DAY
    assert not UsageEvent.objects.filter(created_at__lt=kept_from).exists()
    compare(seed, rows)
