"""What clients tell of replies, worked out by hand."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from analytics import ledger
from analytics.metrics import engagement
from analytics.metrics.feedback import feedback
from analytics.models import AnalyticsEvent
from analytics.query import Filters
from analytics.tests.sample_week import ANN, BOB, CID, MON, TODAY, TUE, at, event, table, turn, week

NOTHING = {"thumbs_up": 0, "thumbs_down": 0, "regenerated": 0, "thumbs_up_share": None}


@pytest.fixture
def written(db: None) -> None:
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


def test_feedback(written: None) -> None:
    found = feedback(table())

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
    found = feedback(table(filters))

    assert (found["thumbs_up"], found["thumbs_down"], found["regenerated"]) == expected


def test_a_session_is_of_the_first_model_that_it_names(db: None) -> None:
    event({**ANN, "model": "", "app_version": ""}, at(MON, 9, 50), "client.opened")
    turn(ANN, at(MON, 10))
    turn({**ANN, "model": "local"}, at(MON, 10, 10))

    assert engagement.session_time(table(Filters(1, "gpt", "1.0")))["median_seconds"] == 20 * 60
    assert engagement.session_time(table(Filters(model="local")))["count"] == 0
    assert engagement.session_time(table())["count"] == 1


def test_a_session_is_named_after_midnight(db: None) -> None:
    event({**ANN, "model": ""}, at(MON, 23, 50), "client.opened")
    turn(ANN, at(TUE, 0, 10))

    found = engagement.session_time(table(Filters(model="gpt")))

    assert (found["count"], found["median_seconds"]) == (1, 20 * 60)
    assert found["by_day"][0]["day"] == MON.date().isoformat()


def test_known_ids_are_looked_up_by_an_index(db: None) -> None:
    with CaptureQueriesContext(connection) as captured:
        ledger.known_event_ids(1, ["e-1", "e-2"])

    assert len(captured) == 1
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {captured[0]['sql']}")
            assert "event_once_per_client" in str(cursor.fetchall())


def test_events_are_kept_to_their_id(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(event_id: str | None, client: int = 1) -> ledger.Event:
        return ledger.Event("client.opened", ledger.Subject("", client, "ann"), event_id)

    assert ledger.record_client_events(1, [opened("a"), opened("a"), opened(None), opened(None)]) == 3
    assert ledger.record_client_events(1, [opened("a"), opened("b")]) == 1
    assert ledger.record_client_events(2, [opened("b", 2)]) == 1
    # Whoever stores it at the same moment has not been seen: the constraint keeps the first.
    monkeypatch.setattr("analytics.ledger.events.known_event_ids", lambda *_: set())
    ledger.record_client_events(1, [opened("b"), opened("c")])
    assert AnalyticsEvent.objects.count() == 6
