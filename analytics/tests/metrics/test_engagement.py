"""Time that users spend, worked out by hand."""

from datetime import timedelta

import pytest

from analytics import histograms
from analytics.metrics import engagement
from analytics.metrics.sources import Table
from analytics.query import Filters, Period, Query
from analytics.rollups.store import build_day
from analytics.tests.sample_week import (
    ANN,
    MON,
    THU,
    TODAY,
    TUE,
    WED,
    at,
    event,
    table,
    week,
    write_built_week,
    write_week,
)


@pytest.fixture
def written(db: None) -> None:
    write_built_week()


def test_sessions_of_the_week(written: None) -> None:
    found = engagement.session_time(table())

    by_day = {row["day"]: (row["count"], row["median_seconds"], row["p90_seconds"]) for row in found["by_day"]}
    assert by_day == {
        # ann's gap of 30 minutes ends nothing: 45 minutes. bob's goes on past midnight: 20 minutes.
        MON.date().isoformat(): (2, 1200, 2700),
        # cid's, ann's, and bob's failed turn at noon.
        TUE.date().isoformat(): (3, 0, 0),
        # ann's gap of 31 minutes makes two; and cid's.
        WED.date().isoformat(): (3, 0, 0),
        # ann's replay and cid's abandoned turn are events, too.
        THU.date().isoformat(): (2, 0, 0),
        TODAY.date().isoformat(): (2, 0, 0),
    }
    # Of 12, the sixth is 0 and the eleventh 1,200.
    assert (found["count"], found["median_seconds"], found["p90_seconds"]) == (12, 0, 1200)


@pytest.mark.parametrize(
    ("events", "last"),
    # From Monday 23:45 to Wednesday 00:15, and to Thursday night: an event every half hour.
    [(50, TODAY), (150, MON)],
    ids=["in its period", "past its period"],
)
def test_a_session_may_last_for_days(db: None, events: int, last: object) -> None:
    for step in range(events):
        event(ANN, at(MON, 23, 45) + step * timedelta(minutes=30))

    found = engagement.session_time(table(last=last))  # type: ignore[arg-type]

    assert (found["count"], found["p90_seconds"]) == (1, histograms.rounded((events - 1) * 1800))
    assert [row["day"] for row in found["by_day"]] == [MON.date().isoformat()]


def test_an_open_session_counts_as_it_stands(db: None) -> None:
    """Before midnight, too, when it may go on the day after."""
    event(ANN, at(MON, 23, 40))
    event(ANN, at(MON, 23, 45))
    event(ANN, at(TUE, 0, 0))
    build_day(MON.date())

    assert engagement.session_time(Table(week()))["by_day"] == [
        {"day": MON.date().isoformat(), "count": 1, "median_seconds": 300, "p90_seconds": 300}
    ]
    assert engagement.sessions(Table(week(Filters(1, "gpt", "1.0")))) == 1
    assert engagement.sessions(Table(week(Filters(2)))) == 0
    assert engagement.sessions(Table(Query(Period(TUE.date(), TUE.date())))) == 0

    build_day(TUE.date())

    assert engagement.session_time(Table(week()))["by_day"][0] == {
        "day": MON.date().isoformat(),
        "count": 1,
        "median_seconds": 1200,
        "p90_seconds": 1200,
    }


def test_time_spent_is_a_span_of_a_day(written: None) -> None:
    found = engagement.time_spent(table())

    # 11 users' days: 8 of one event, ann's 31 and 45 minutes, and bob's from 00:10 to 12:00.
    assert (found["count"], found["median_seconds"], found["p90_seconds"]) == (11, 0, 2700)
    assert found["by_day"][1] == {
        "day": TUE.date().isoformat(),
        "count": 3,
        "median_seconds": 0,
        "p90_seconds": 42_600,
    }
    samples = [(row["day"], row["user_id"], row["seconds"]) for row in engagement.time_spent_samples(table())]
    assert samples == [
        (TODAY.date().isoformat(), "bob", 0),
        (TODAY.date().isoformat(), "cid", 0),
        (THU.date().isoformat(), "ann", 0),
        (THU.date().isoformat(), "cid", 0),
        (WED.date().isoformat(), "ann", 1860),
        (WED.date().isoformat(), "cid", 0),
        (TUE.date().isoformat(), "bob", 42_600),
        (TUE.date().isoformat(), "ann", 0),
        (TUE.date().isoformat(), "cid", 0),
        (MON.date().isoformat(), "ann", 2700),
        (MON.date().isoformat(), "bob", 0),
    ]


def test_samples_are_the_newest_of_many(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    write_week()
    monkeypatch.setattr(engagement, "SAMPLES", 3)

    samples = [(row["day"], row["user_id"]) for row in engagement.time_spent_samples(table())]

    assert samples == [
        (TODAY.date().isoformat(), "bob"),
        (TODAY.date().isoformat(), "cid"),
        (THU.date().isoformat(), "ann"),
    ]
