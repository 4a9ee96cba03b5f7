"""What clients tell: worked out by hand, and the same whether it is read live or from rollups."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from analytics.ledger import events as client_events
from analytics.metrics import engagement as spent
from analytics.metrics import feedback as quality
from analytics.models import AnalyticsEvent
from analytics.query import Filters, Window
from analytics.rollups import schedule as rollups
from analytics.tests.sample_week import ANN, BOB, CID, MON, SUN, TODAY, TUE, at, event, turn, week

NOTHING = {"thumbs_up": 0, "thumbs_down": 0, "regenerated": 0, "thumbs_up_share": None}


@pytest.fixture(params=[None, MON, SUN], ids=["live", "Monday rolled up", "all rolled up"])
def written(db: None, request: pytest.FixtureRequest) -> None:
    turn(ANN, at(MON, 10))
    for who, when, name in (
        (ANN, at(MON, 10, 1), "thumbs_up"),
        (ANN, at(MON, 10, 2), "regenerated"),
        (BOB, at(MON, 11), "thumbs_up"),
        (CID, at(MON, 12), "thumbs_down"),
        (CID, at(TUE, 12), "regenerated"),
        (BOB, at(TODAY, 1), "thumbs_down"),
        (BOB, at(TODAY, 2), "first_token_shown"),
    ):
        event(who, when, f"client.{name}")
    if request.param:
        for day in Window(MON.date(), request.param.date()).days:
            rollups.build_day(day)


def test_feedback(written: None) -> None:
    found = quality.feedback(week())

    days = {row.pop("day"): row for row in found.pop("by_day")}
    assert found == {"thumbs_up": 2, "thumbs_down": 2, "regenerated": 2, "thumbs_up_share": 0.5}
    assert list(days) == [day.isoformat() for day in week().days]
    monday, tuesday, *between, today = days.values()
    assert monday == {"thumbs_up": 2, "thumbs_down": 1, "regenerated": 1, "thumbs_up_share": 0.6667}
    assert tuesday == {**NOTHING, "regenerated": 1}
    assert between == [NOTHING] * 5
    assert today == {**NOTHING, "thumbs_down": 1, "thumbs_up_share": 0}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(1), (2, 1, 1)),
        (Filters(model="local"), (0, 1, 1)),
        (Filters(app_version="1.0"), (1, 0, 1)),
        (Filters(9), (0, 0, 0)),
    ],
    ids=str,
)
def test_feedback_of_a_filter(written: None, filters: Filters, expected: tuple[int, int, int]) -> None:
    found = quality.feedback(week(), filters)

    assert (found["thumbs_up"], found["thumbs_down"], found["regenerated"]) == expected


@pytest.mark.parametrize("is_rolled", [False, True])
def test_a_session_is_of_the_first_model_that_it_names(db: None, is_rolled: bool) -> None:
    event({**ANN, "model": "", "app_version": ""}, at(MON, 9, 50), "client.opened")
    turn(ANN, at(MON, 10))
    turn({**ANN, "model": "local"}, at(MON, 10, 10))
    if is_rolled:
        rollups.build_day(MON.date())

    assert spent.session_time(week(), Filters(1, "gpt", "1.0"))["median_seconds"] == 20 * 60
    assert spent.session_time(week(), Filters(model="local"))["count"] == 0
    assert spent.session_time(week())["count"] == 1


@pytest.mark.parametrize("is_rolled", [False, True])
def test_a_session_is_named_after_midnight(db: None, is_rolled: bool) -> None:
    event({**ANN, "model": ""}, at(MON, 23, 50), "client.opened")
    turn(ANN, at(TUE, 0, 10))
    if is_rolled:
        for day in (MON, TUE):
            rollups.build_day(day.date())

    found = spent.session_time(week(), Filters(model="gpt"))

    assert (found["count"], found["median_seconds"]) == (1, 20 * 60)
    assert found["by_day"][0]["day"] == MON.date().isoformat()


def test_they_are_read_over_indexes(db: None) -> None:
    turn(ANN, at(MON, 10))
    rollups.build_day(MON.date())
    with CaptureQueriesContext(connection) as captured:
        quality.feedback(week())
        client_events.known(1, ["e-1", "e-2"])

    # The last closed day, rollups, events, ids.
    assert len(captured) == 4
    if connection.vendor == "sqlite":
        for query, index in zip([*captured][2:], ("event_name_created", "event_once_per_client"), strict=True):
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN QUERY PLAN {query['sql']}")
                assert index in str(cursor.fetchall())


def test_events_are_kept_to_their_id(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(event_id: str | None, client: int = 1) -> AnalyticsEvent:
        return AnalyticsEvent(
            event_name="client.opened",
            client_token_id=client,
            user_id="ann",
            client_event_id=event_id,
            created_at=TODAY,
        )

    assert client_events.record(1, [opened("a"), opened("a"), opened(None), opened(None)]) == 3
    assert client_events.record(1, [opened("a"), opened("b")]) == 1
    assert client_events.record(2, [opened("b", 2)]) == 1
    # Whoever stores it at the same moment has not been seen: the constraint keeps the first.
    monkeypatch.setattr(client_events, "known", lambda *_: set())
    client_events.record(1, [opened("b"), opened("c")])
    assert AnalyticsEvent.objects.count() == 6
