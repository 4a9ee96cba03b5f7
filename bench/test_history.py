import dataclasses
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection
from django.db.models import F

from analytics.ledger.prices import cost_nanos
from analytics.models import AnalyticsEvent, UsageEvent
from bench import loading, past
from chat.models import ClientToken, Conversation, Message

TURNS, DAYS, UNTIL = 2_000, 30, date(2026, 3, 31)
MADE_UP = past.Past(TURNS, DAYS, UNTIL, clients=(1, 2, 3))


@pytest.fixture
def history(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "CONVERSATIONS_KEPT", 300)
    monkeypatch.setattr(loading, "CONVERSATIONS_WITH_MESSAGES", 50)
    monkeypatch.setattr(loading, "days_ahead", lambda made_up: (past.make_day(*plan) for plan in made_up.plan()))
    loading.load(turns=TURNS, days=DAYS, until=UNTIL)


def test_it_writes_what_was_asked_for(history: None) -> None:
    first = datetime.combine(UNTIL, datetime.min.time(), UTC) - timedelta(days=DAYS - 1)

    assert UsageEvent.objects.count() == TURNS
    assert Conversation.objects.count() == 300
    assert Message.objects.values("conversation").distinct().count() in range(40, 51)
    assert ClientToken.objects.count() == 3
    # A session of the last evening may run past midnight.
    assert not UsageEvent.objects.exclude(created_at__range=(first, first + timedelta(days=DAYS, hours=6))).exists()
    # At the launch of so small a product nobody comes on some days.
    assert UsageEvent.objects.dates("created_at", "day").count() > DAYS - 5
    # Ids follow time, as in a ledger that was written as it went.
    times = UsageEvent.objects.order_by("id").values_list("created_at", flat=True)
    assert sum(later < earlier for earlier, later in pairwise(times)) < DAYS


def test_each_turn_has_one_event_and_the_price_of_its_tokens(history: None) -> None:
    ends = AnalyticsEvent.objects.filter(event_name__in=["chat.completed", "chat.failed", "chat.abandoned"])
    events = {event.request_id: event for event in ends}

    assert len(events) == ends.count() == TURNS
    for turn in UsageEvent.objects.all():
        event = events[turn.request_id]
        assert (event.event_name, event.user_id, event.model) == (f"chat.{turn.status}", turn.user_id, turn.model)
        assert event.created_at == turn.finished_at
        if turn.status == "completed":
            assert event.metadata_json["total_tokens"] == turn.total_tokens
            tokens: Any = {"prompt_tokens": turn.prompt_tokens, "cached_tokens": turn.cached_tokens}
            assert turn.cost_nanos == cost_nanos(turn.model, **tokens, completion_tokens=turn.completion_tokens)
        else:
            assert turn.cost_nanos is None


def test_its_figures_are_those_of_a_product(history: None) -> None:
    turns = UsageEvent.objects.all()
    statuses = Counter(turns.values_list("status", flat=True))

    assert 0.94 < statuses["completed"] / TURNS < 0.99
    assert not turns.filter(cached_tokens__gt=F("prompt_tokens")).exists()
    assert not turns.filter(reasoning_tokens__gt=F("completion_tokens")).exists()
    assert not turns.filter(first_token_ms__gt=F("latency_ms")).exists()
    assert not turns.exclude(total_tokens=F("prompt_tokens") + F("completion_tokens")).exists()
    assert 1.5 < AnalyticsEvent.objects.count() / TURNS < 2.8


def test_indexes_are_all_there_again(transactional_db: None, request: pytest.FixtureRequest) -> None:
    before = constraints()
    request.getfixturevalue("history")
    assert constraints() == before


def constraints() -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        return [connection.introspection.get_constraints(cursor, table) for table in loading.LEDGERS]


def test_a_seed_makes_the_same_history_in_any_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PROCESSES", 1)  # each takes two seconds to start
    here = [past.make_day(*plan) for plan in MADE_UP.plan()]
    elsewhere = list(loading.days_ahead(MADE_UP))
    other = [past.make_day(*plan) for plan in dataclasses.replace(MADE_UP, seed=2).plan()]

    for name in ("usage", "events", "conversations"):
        assert [getattr(day, name) for day in here] == [getattr(day, name) for day in elsewhere]
        assert [getattr(day, name) for day in here] != [getattr(day, name) for day in other]
    assert sum(len(day.usage) for day in other) == TURNS


@pytest.mark.django_db
def test_it_refuses_a_database_that_is_not_empty() -> None:
    AnalyticsEvent.objects.create(event_name="client.opened", client_token_id=1, user_id="ann")

    with pytest.raises(loading.NotEmpty, match="analytics_events has rows"):
        loading.load(turns=1, days=1, until=UNTIL)

    assert not UsageEvent.objects.exists()
