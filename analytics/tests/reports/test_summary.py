"""What the dashboard and the mailed report show: the figures of a week that is worked out by hand, and their cost."""

from datetime import datetime, timedelta

import pytest
from django.template.loader import render_to_string
from pytest_django import DjangoAssertNumQueries

from analytics.formatting import Unit
from analytics.metrics.registry import Direction
from analytics.metrics.sources import Table
from analytics.models import ActivityRollup, Refusals
from analytics.query import Filters, Period, Query
from analytics.reports import panels
from analytics.reports.cards import Card
from analytics.reports.charts.cohort_table import Cohorts
from analytics.reports.charts.plots import Plot
from analytics.reports.charts.tables import Column, DataTable
from analytics.reports.panels import Panel
from analytics.reports.summary import Summary, summarize
from analytics.tests.sample_week import (
    ANN,
    BOB,
    CID,
    MON,
    SAT,
    SUN,
    THU,
    TODAY,
    TUE,
    WED,
    at,
    event,
    roll_up,
    row,
    table,
    turn,
    week,
    write_built_week,
    write_week,
)


def summary_of(query: Query) -> Summary:
    return summarize(query, roll_up())


def from_to(first: datetime, last: datetime) -> Query:
    return Query(Period(first.date(), last.date()))


def card(summary: Summary, title: str) -> Card:
    return next(card for card in summary.cards if card.title == title)


def panel(summary: Summary, title: str) -> Panel:
    return next(panel for panel in summary.panels if panel.title == title)


def figures(panel: Panel) -> dict[str, str]:
    assert isinstance(panel.plot, Plot)
    return {series.name: series.figure for series in panel.plot.series}


def rows(panel: Panel) -> list[list[str]]:
    return [[text for _, text in row] for row in panel.table.cells]


@pytest.fixture
def summary(db: None) -> Summary:
    write_built_week()
    Refusals.objects.create(day=WED.date(), client_token_id=1, code="budget_exceeded", count=2)
    return summary_of(week())


def test_figures_of_a_week(summary: Summary) -> None:
    assert {card.title: card.text for card in summary.cards} == {
        # 2, 3, 2, 0, 0, 0, 0 and 2 in eight days.
        "Daily active users": "1.1",
        "Weekly active users": "3",
        "Monthly active users": "3",
        # 1, 1, 2/3, 0, 0, 0, 0 and 2/3.
        "Stickiness": "41.7 %",
        "New users": "3",
        # ann alone.
        "Activation": "33.3 %",
        "Turns": "14",
        "Success rate": "85.7 %",
        # 12 on nine users' days.
        "Messages": "1.3",
        "Time spent, median": "0 s",
        "Sessions": "12",
        "Latency, median": "100 ms",
        "Latency, 95th percentile": "1.2 s",
        "First token, median": "20 ms",
        "Thumbs up": "–",
        "Tokens": "1,200",
        "Cost": "–",
        "Cost of a user": "–",
        "Replays": "1",
    }
    assert card(summary, "Sessions").note == "0 s long, median"
    assert card(summary, "Turns").note == "2 failed or abandoned"
    assert card(summary, "Cost").note == "Price unknown: local"
    assert card(summary, "Replays").note == "$0.0000010 and 100 tokens not spent twice"
    assert card(summary, "Turns").by_day == [4, 4, 3, 1, 0, 0, 0, 2]
    assert card(summary, "Cost").by_day == [pytest.approx(4e-6), None, None, 0, 0, 0, 0, None]
    assert card(summary, "Messages").by_day == [2, 1, 1.5, None, None, None, None, 1]
    assert card(summary, "Stickiness").by_day == [1, 1, 0.6667, 0, 0, 0, 0, 0.6667]
    assert card(summary, "Cost of a user").by_day == [pytest.approx(2e-6), *[None] * 7]
    assert card(summary, "Latency, median").by_day == [100, 200, 400, None, None, None, None, 70]
    assert card(summary, "Tokens").text_sparkline == "▇▅▅▁▁▁▁▃"


def test_panels_of_a_week(summary: Summary) -> None:
    assert [panel.title for panel in summary.panels] == [
        "Active users",
        "New and returning users",
        "Turns",
        "Failures",
        "What users said of replies",
        "Latency",
        "Time to first token",
        "Time spent per user and day",
        "Sessions",
        "Tokens by model",
        "Cost by model",
        "Replayed and refused requests",
        "Retention of new users",
    ]
    assert figures(panel(summary, "Active users")) == {"DAU": "2", "WAU": "3", "MAU": "3"}
    assert figures(panel(summary, "New and returning users")) == {"new": "0", "returning": "2"}
    assert figures(panel(summary, "Turns")) == {"completed": "12", "failed": "1", "abandoned": "1"}
    assert figures(panel(summary, "Failures")) == {"abandoned": "1", "upstream_error": "1"}
    assert figures(panel(summary, "Tokens by model")) == {"gpt": "900", "local": "300"}
    assert figures(panel(summary, "Cost by model")) == {"gpt": "$0.0000090"}
    assert panel(summary, "Cost by model").note == "Without models of unknown price: local."
    assert figures(panel(summary, "Latency")) == {"p50": "100 ms", "p95": "1.2 s", "p99": "1.2 s"}
    assert figures(panel(summary, "Time to first token")) == {"p50": "20 ms", "p95": "40 ms", "p99": "40 ms"}
    assert figures(panel(summary, "Replayed and refused requests")) == {"replayed": "1", "budget_exceeded": "2"}
    assert isinstance(plot := panel(summary, "Latency").plot, Plot)
    assert plot.note == "of the period"


def test_tables_of_a_week(summary: Summary) -> None:
    assert rows(panel(summary, "Active users"))[:2] == [
        [TODAY.date().isoformat(), "2", "3", "3"],
        [SUN.date().isoformat(), "0", "3", "3"],
    ]
    assert rows(panel(summary, "Turns"))[-2:] == [
        [TUE.date().isoformat(), "3", "1", "0", "75 %"],
        [MON.date().isoformat(), "4", "0", "0", "100 %"],
    ]
    assert rows(panel(summary, "Replayed and refused requests")) == [
        [THU.date().isoformat(), "1", "0"],
        [WED.date().isoformat(), "0", "2"],
    ]
    assert rows(panel(summary, "Tokens by model")) == [
        ["gpt", "9", "810", "360", "90", "45", "900"],
        ["local", "3", "270", "120", "30", "15", "300"],
    ]
    assert rows(panel(summary, "Cost by model")) == [["gpt", "$0.000009"], ["local", "–"]]
    # Of ann and bob, new on Monday, both came on Tuesday; cid came again on Wednesday.
    (monday, tuesday) = rows(panel(summary, "Retention of new users"))[::-1]
    assert monday[1:] == ["2", "100 %"]
    assert tuesday[1:] == ["1", "100 %"]


def test_changes_against_the_period_before(db: None) -> None:
    write_week()
    turn(ANN, at(MON - timedelta(days=1), 9), latency_ms=50)
    turn(ANN, at(MON - timedelta(days=1), 10), "failed", error_code="upstream_error")

    summary = summary_of(from_to(MON, TUE))

    before = MON.date() - timedelta(days=1)
    assert summary.query.period.before == Period(before - timedelta(days=1), before)
    changes = {card.title: (card.text_before, card.change_text, card.verdict) for card in summary.cards}
    assert changes["Daily active users"] == ("0.5", "+400 %", "good")
    assert changes["Turns"] == ("2", "+300 %", "good")
    assert changes["Success rate"] == ("50 %", "+38 points", "good")
    assert changes["Latency, median"] == ("50 ms", "+100 %", "bad")
    assert changes["Tokens"] == ("100", "+600 %", "neutral")
    assert changes["Replays"] == ("0", "", "neutral")
    # Unknown now, because of cid's model.
    assert changes["Cost"] == ("$0.0000010", "", "neutral")


def test_what_users_said(db: None) -> None:
    write_week()
    said = ["thumbs_up", "thumbs_up", "thumbs_up", "thumbs_down", "regenerated"]
    for number, name in enumerate(said):
        event(ANN, at(MON, 11, number), f"client.{name}")
    event(BOB, at(MON - timedelta(days=1), 11), "client.thumbs_down")

    summary = summary_of(from_to(MON, TUE))

    liked = card(summary, "Thumbs up")
    assert (liked.text, liked.text_before, liked.change_text, liked.verdict) == ("75 %", "0 %", "+75 points", "good")
    assert liked.note == "3 up, 1 down, 1 regenerated"
    assert liked.by_day == [0.75, None]
    shown = panel(summary, "What users said of replies")
    assert figures(shown) == {"thumbs up": "3", "thumbs down": "1", "regenerated": "1"}
    assert rows(shown) == [[MON.date().isoformat(), "3", "1", "1", "75 %"]]


@pytest.mark.parametrize(
    ("unit", "value", "before", "text", "rise", "verdict"),
    [
        ("count", 12, 10, "+20 %", "good", "good"),
        ("count", 9.55, 10, "−4.5 %", "good", "bad"),
        ("ms", 9.55, 10, "−4.5 %", "bad", "good"),
        ("ms", 12, 10, "+20 %", "bad", "bad"),
        ("count", 12, 10, "+20 %", "neutral", "neutral"),
        ("count", 100_001, 100_000, "±0 %", "good", "neutral"),
        ("share", 0.981, 0.985, "−0.4 points", "good", "bad"),
        ("share", 0.5, 0.0, "+50 points", "good", "good"),
        ("count", 12_345, 1, "×12,345", "good", "good"),
        ("usd", 10.99, 1, "+999 %", "bad", "bad"),
        ("usd", 11, 1, "×11", "bad", "bad"),
        ("count", 0, 5, "−100 %", "good", "bad"),
        ("count", 5, 0, "", "good", "neutral"),
        ("ms", None, 5, "", "bad", "neutral"),
        ("ms", 5, None, "", "bad", "neutral"),
    ],
)
def test_a_change(
    unit: Unit, value: float | None, before: float | None, text: str, rise: Direction, verdict: Direction
) -> None:
    card = Card("Figure", "dau", unit, value, before, [], rise=rise)

    assert (card.change_text, card.verdict) == (text, verdict)


def test_filters(db: None) -> None:
    write_built_week()

    summary = summary_of(week(Filters(model="gpt")))

    assert card(summary, "Cost").text == "$0.0000090"
    assert card(summary, "Turns").text == "10"
    assert figures(panel(summary, "Tokens by model")) == {"gpt": "900"}
    priced = summary_of(week(Filters(model="gpt")))
    # 9,000 nanodollars on six users' days.
    assert card(priced, "Cost of a user").text == "$0.0000015"
    assert card(summary_of(week(Filters(client_token_id=2))), "Turns").text == "4"
    assert card(summary_of(week(Filters(app_version="2.0"))), "Turns").text == "4"


def test_what_grows_until_the_day_is_over_is_not_judged(db: None) -> None:
    """At five in the morning a steady product has fewer turns than on whole days, and is no worse."""
    for day in (SUN, TODAY):
        turn(ANN, at(day, 1), latency_ms=100 if day == SUN else 200)
    turn(ANN, at(SUN, 2), latency_ms=100)

    of_today, of_yesterday = (summary_of(from_to(day, day)) for day in (TODAY, SUN))

    assert (card(of_today, "Turns").change_text, card(of_today, "Turns").verdict) == ("−50 %", "neutral")
    assert card(of_today, "Latency, median").verdict == "bad"
    turn(ANN, at(SAT, 1))
    assert card(summary_of(from_to(SUN, SUN)), "Turns").verdict == "good"
    assert card(of_yesterday, "Turns").change_text == ""


def test_an_empty_database(db: None) -> None:
    summary = summary_of(Query.last_days(30))

    assert {card.text for card in summary.cards} == {"0", "–", "$0"}
    assert {card.change_text for card in summary.cards} == {""}
    for panel in summary.panels:
        assert "Nothing in this period." in drawn(panel) or panel.title == "Active users"


def drawn(panel: Panel) -> str:
    context = {"cohorts" if isinstance(panel.plot, Cohorts) else "plot": panel.plot}
    return render_to_string(panel.plot.template, context)


def test_one_day(db: None) -> None:
    write_built_week()

    summary = summary_of(from_to(WED, WED))

    assert card(summary, "Turns").text == "3"
    assert card(summary, "Turns").change_text == "−25 %"
    assert all(drawn(panel) for panel in summary.panels)


@pytest.mark.parametrize(("days", "cohorts"), [(14, 14), (30, 6), (365, 13), (3000, 10)])
def test_retention_has_few_rows_whatever_the_window(db: None, days: int, cohorts: int) -> None:
    query = Query.last_days(days)
    ActivityRollup.objects.bulk_create(ActivityRollup(day=day, dau=1, new_users=1) for day in query.days)

    found = rows(panels.retention(Table(query)))

    assert abs(len(found) - cohorts) <= 1
    assert sum(int(cells[1].replace(",", "")) for cells in found) == days


def test_retention_is_of_those_whose_day_is_over(db: None) -> None:
    """Three were new on Monday and one on Tuesday, a week ago and less; one each came the day after."""
    for user, day in (("a", MON), ("b", MON), ("c", MON), ("d", SUN)):
        turn({**ANN, "user_id": user}, at(day, 1))
    turn({**ANN, "user_id": "a"}, at(TUE, 1))

    cohort = panels.cohort(table(), "This week", list(week().days))

    # One of the three; the one of Sunday may still come today. Nobody's seventh day is over.
    assert (cohort.size, cohort.shares) == (4, [0.3333, None, None])


def test_each_part_is_read_once(db: None, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    write_week()
    for number in range(40):
        turn({**BOB, "model": f"model-{number}", "user_id": f"u{number}"}, at(TODAY, 7))
    coverage = roll_up()
    # Of the period: usage, users, returned, activated, latency, first tokens, time, sessions, failures, refusals.
    # Of the period before all but the returned, failures and refusals.
    for query in (
        Query.last_days(30),
        Query.last_days(365),
        Query.last_days(30, Filters(model="gpt")),
        from_to(MON, SUN),
    ):
        with django_assert_num_queries(10 + 9):
            summarize(query, coverage)


def test_a_table_shows_its_first_rows() -> None:
    table = DataTable.of([Column("Model"), Column("tokens", "tokens")], [(f"m{n}", 10**n) for n in range(8)], most=3)

    assert [[text for _, text in cells] for cells in table.cells] == [["m0", "1"], ["m1", "10"], ["m2", "100"]]
    assert table.note == "The first 3 of 8 rows."
    assert DataTable.of([Column("tokens", "tokens")], [(12_345_678,), (None,)]).cells[0][0][1] == "12,345,678"
    assert DataTable.of([], []).note == ""


def test_every_figure_has_a_definition(db: None) -> None:
    summary = summary_of(week())

    assert all(card.definition.endswith((".", "did")) for card in summary.cards)
    assert all(definition for panel in summary.panels for definition in panel.definitions.values())


def test_days_without_any_known_price_are_no_zero(db: None) -> None:
    row(CID, at(MON, 1))

    summary = summary_of(week())

    assert "Nothing in this period." in drawn(panel(summary, "Cost by model"))
    assert card(summary, "Cost").text == "–"
