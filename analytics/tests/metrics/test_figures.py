"""Every metric of the week in `ledger`, worked out by hand, and the same whether it is read live or from rollups."""

from collections import Counter
from datetime import date, timedelta
from typing import Any

import pytest

from analytics import histograms
from analytics.ledger import turns as recording
from analytics.metrics import active_users as users
from analytics.metrics import cohorts as activation
from analytics.metrics import engagement as spent
from analytics.metrics import registry as metrics
from analytics.metrics import sources as reading
from analytics.metrics import usage
from analytics.models import AnalyticsEvent, Milestone
from analytics.query import ALL, Filters, Window
from analytics.rollups import schedule as rollups
from analytics.tests.sample_week import ANN, BOB, CID, MON, SUN, THU, TODAY, TUE, WED, at, event, turn, week, write_week

GPT = Filters(model="gpt")
SOME_FILTERS = [
    ALL,
    GPT,
    Filters(1),
    Filters(2),
    Filters(app_version="2.0"),
    Filters(1, "gpt"),
    Filters(1, app_version="2.0"),
    Filters(model="gpt", app_version="1.0"),
    Filters(1, "gpt", "1.0"),
    Filters(2, "gpt"),
    Filters(9),
]


def roll(to: date) -> None:
    for day in Window(MON.date(), to).days:
        rollups.build_day(day)


@pytest.fixture(params=[None, MON, TUE, SUN], ids=["live", "Monday rolled up", "two days rolled up", "all rolled up"])
def written(db: None, request: pytest.FixtureRequest) -> None:
    write_week()
    if request.param:
        roll(request.param.date())


def column(rows: list[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]


def test_active_users(written: None) -> None:
    # Mon: ann, bob. Tue: and cid. Wed: ann, cid. Today: bob, cid.
    assert column(users.dau(week()), "users") == [2, 3, 2, 0, 0, 0, 0, 2]
    # The seven days that end today begin on Tuesday, when ann was there too.
    assert column(users.wau(week()), "users") == [2, 3, 3, 3, 3, 3, 3, 3]
    assert column(users.mau(week()), "users") == [2, 3, 3, 3, 3, 3, 3, 3]
    assert column(users.stickiness(week()), "stickiness") == [1, 1, 0.6667, 0, 0, 0, 0, 0.6667]


def test_active_users_of_a_filter(written: None) -> None:
    bobs = Filters(app_version="2.0")

    assert column(users.dau(week(), bobs), "users") == [1, 1, 0, 0, 0, 0, 0, 1]
    assert column(users.wau(week(), bobs), "users") == [1, 1, 1, 1, 1, 1, 1, 1]
    assert column(users.wau(week(), Filters(2)), "users") == [0, 1, 1, 1, 1, 1, 1, 1]


def test_a_user_leaves_the_trailing_days(db: None) -> None:
    turn(ANN, at(MON, 1))
    turn(ANN, at(TUE, 1))
    turn(CID, at(WED, 1))
    later = Window(MON.date(), MON.date() + timedelta(days=40))
    # Weekly: ann up to Monday, the seventh day from Tuesday on; cid up to the Tuesday after. Monthly: 30 days each.
    weekly = [1, 1, 2, 2, 2, 2, 2, 2, 1] + 32 * [0]
    monthly = [1, 1] + 29 * [2] + [1] + 9 * [0]
    for filters in (ALL, Filters()):
        assert column(users.wau(later, filters), "users") == weekly
        assert column(users.mau(later, filters), "users") == monthly

    # Days to come can be closed as well as any, for the sake of this.
    roll(later.last)
    everybody = dict.fromkeys(later.days, 0)
    for client in (1, 2):
        for row in users.wau(Window(later.first, later.last), Filters(client)):
            everybody[date.fromisoformat(row["day"])] += row["users"]
    assert list(everybody.values()) == weekly
    assert column(users.wau(Window(later.first, later.last)), "users") == weekly
    assert column(users.mau(Window(later.first, later.last)), "users") == monthly


def test_new_and_returning(written: None) -> None:
    rows = users.new_and_returning(week())

    assert column(rows, "new") == [2, 1, 0, 0, 0, 0, 0, 0]
    assert column(rows, "returning") == [0, 2, 2, 0, 0, 0, 0, 2]
    # Who is new is so with all clients: bob's second version is no new user.
    event({**BOB, "app_version": "3.0"}, at(TODAY, 10))
    assert users.new_and_returning(week(), Filters(app_version="3.0"))[-1]["new"] == 0


def test_retention(written: None) -> None:
    rows = users.retention(week())

    # Both of Monday's came on Tuesday. The seventh day after is today, which is not over.
    assert rows[0] == {"day": MON.date().isoformat(), "new": 2, "d1": 1, "d7": None, "d30": None}
    # cid came on Wednesday; the seventh day is tomorrow.
    assert rows[1] == {"day": TUE.date().isoformat(), "new": 1, "d1": 1, "d7": None, "d30": None}
    # Nobody was new.
    assert rows[2] == {"day": WED.date().isoformat(), "new": 0, "d1": None, "d7": None, "d30": None}
    # The days on which users return may lie after the window.
    assert users.retention(Window(MON.date(), MON.date())) == rows[:1]


@pytest.mark.parametrize("rolled_up_to", [None, TUE, SUN], ids=["live", "two days rolled up", "all rolled up"])
def test_retention_of_a_filter(db: None, rolled_up_to: Any) -> None:
    """A release: who was new with 1.0 comes back with 2.0, and who was new with 2.0 does not."""
    new, old, before = {**ANN, "app_version": "2.0"}, ANN, MON - timedelta(days=1)
    for user in ("eve", "fay", "gil"):
        turn({**old, "user_id": user}, at(before, 9))
        if user != "gil":
            turn({**new, "user_id": user}, at(SUN, 9))
    turn({**new, "user_id": "hal"}, at(before, 9))
    turn({**old, "user_id": "fay"}, at(SUN, 10))
    if rolled_up_to:
        rollups.build_day(before.date())
        roll(rolled_up_to.date())

    def sevenths(filters: Filters) -> tuple[int, float | None]:
        (found,) = users.retention(Window(before.date(), before.date()), filters)
        return found["new"], found["d7"]

    assert sevenths(ALL) == (4, 0.5)
    # Two of three, whatever they came back with; and not one that was new with another version.
    assert sevenths(Filters(app_version="1.0")) == (3, 0.6667)
    assert sevenths(Filters(app_version="2.0")) == (1, 0)
    assert sevenths(Filters(1, "gpt", "1.0")) == (3, 0.6667)
    assert sevenths(Filters(2)) == (0, None)


def test_activation(written: None) -> None:
    # ann's fifth is Wednesday's first; bob and cid have three each.
    rows = activation.activation(week())
    assert column(rows, "new")[:3] == [2, 1, 0]
    assert column(rows, "activated")[:3] == [1, 0, 0]
    assert column(rows, "share")[:3] == [0.5, 0, None]

    # bob's fourth and fifth, today; and a user who is new today and has five at once.
    for minute in range(5):
        event({**CID, "user_id": "dee"}, at(TODAY, 11, minute))
        if minute < 2:
            event(BOB, at(TODAY, 11, minute))
    rows = activation.activation(week())
    assert column(rows, "new") == [2, 1, 0, 0, 0, 0, 0, 1]
    assert column(rows, "activated") == [2, 0, 0, 0, 0, 0, 0, 1]
    assert column(activation.activation(week(), Filters(1)), "activated") == [2, 0, 0, 0, 0, 0, 0, 0]
    assert column(activation.activation(week(), Filters(app_version="2.0")), "new") == [1, 0, 0, 0, 0, 0, 0, 0]


def test_the_fifth_turn_is_kept_by_day(db: None) -> None:
    write_week()
    roll(SUN.date())

    assert dict(Milestone.objects.values_list("user_id", "fifth_day")) == {"ann": WED.date(), "bob": None, "cid": None}


def test_messages_and_cost_of_an_active_user(written: None) -> None:
    messages = column(users.messages_per_active_user(week()), "messages")
    # 4 turns of 2 users, 3 of 3, 3 of 2; today 2 of 2.
    assert messages == [2, 1, 1.5, None, None, None, None, 1]

    # cid's model has no price, so only Monday is known: 4,000 nanodollars of 2 users.
    assert column(users.cost_per_active_user(week()), "cost_usd") == [2e-6, *[None] * 7]
    gpt = column(users.cost_per_active_user(week(), GPT), "cost_usd")
    assert gpt == [2e-6, 1e-6, 2e-6, None, None, None, None, 1e-6]


def test_sessions(written: None) -> None:
    found = spent.session_time(week())

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


def test_a_session_may_last_for_days(db: None) -> None:
    """From Monday 23:45 to Wednesday 00:15, an event every half hour; read in all states of the rollups."""
    for step in range(50):
        event(ANN, at(MON, 23, 45) + step * timedelta(minutes=30))
    expected = {"count": 1, "median_seconds": histograms.rounded(49 * 1800), "p90_seconds": 88_200}
    monday = [{"day": MON.date().isoformat(), **expected}]

    assert spent.session_time(week()) == {**expected, "by_day": monday}
    for day in week().days:
        rollups.build_day(day)
        assert spent.session_time(week()) == {**expected, "by_day": monday}, day


def test_a_session_may_go_on_after_its_window(db: None) -> None:
    """It begins on Monday, and has its last event three days later."""
    for step in range(150):
        event(ANN, at(MON, 23, 45) + step * timedelta(minutes=30))
    monday = Window(MON.date(), MON.date())
    expected = histograms.rounded(149 * 1800)

    assert spent.session_time(monday)["p90_seconds"] == expected
    for day in week().days:
        rollups.build_day(day)
        assert spent.session_time(Window(MON.date(), MON.date()))["p90_seconds"] == expected, day


def test_all_but_one_are_not_all() -> None:
    assert usage.rate(Counter(completed=29_999, failed=1)) == 0.9999
    assert usage.rate(Counter(completed=1, failed=29_999)) == 0.0001
    assert (usage.rate(Counter(completed=9)), usage.rate(Counter(failed=9)), usage.rate(Counter())) == (1, 0, None)


def test_time_spent(written: None) -> None:
    found = spent.time_spent(week())

    # 11 users' days: 8 of one event, ann's 31 and 45 minutes, and bob's from 00:10 to 12:00.
    assert (found["count"], found["median_seconds"], found["p90_seconds"]) == (11, 0, 2700)
    assert found["by_day"][1] == {
        "day": TUE.date().isoformat(),
        "count": 3,
        "median_seconds": 0,
        "p90_seconds": 42_600,
    }
    samples = [(row["day"], row["user_id"], row["seconds"]) for row in spent.time_spent_samples(week())]
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


def test_turns(written: None) -> None:
    assert usage.turns(week()) == {"pending": 1, "completed": 12, "failed": 1, "abandoned": 1}
    # 12 of 14 that ended.
    assert usage.success_rate(week()) == 0.8571
    rows = usage.turns_by_day(week())
    assert column(rows, "completed") == [4, 3, 3, 0, 0, 0, 0, 2]
    assert column(rows, "success_rate") == [1, 0.75, 1, 0, None, None, None, 1]
    assert column(usage.abandoned(week()), "share") == [0, 0, 0, 1, None, None, None, 0]
    assert usage.failures(week()) == [
        {"day": TUE.date().isoformat(), "code": "upstream_error", "turns": 1},
        {"day": THU.date().isoformat(), "code": "abandoned", "turns": 1},
    ]


def test_latency(written: None) -> None:
    # 50 60 70 100 100 100 200 300 400 400 500 1,234: 3,514 in all; the last is kept as 1,230.
    found = usage.latency_ms(week())

    assert {name: found[name] for name in ("mean", "p50", "p95", "p99")} == {
        "mean": 292.8,
        "p50": 100,
        "p95": 1230,
        "p99": 1230,
    }
    # Monday: 100 100 100 1,234.
    assert found["by_day"][0] == {"day": MON.date().isoformat(), "mean": 383.5, "p50": 100, "p95": 1230, "p99": 1230}
    first = usage.first_token_ms(week())
    assert (first["mean"], first["p50"], first["p95"]) == (30, 20, 40)
    assert usage.latency_ms(week(), Filters(9)) == {"mean": None, "p50": None, "p95": None, "p99": None, "by_day": []}


def test_tokens_and_cost(written: None) -> None:
    rows = usage.token_burn(week())

    assert [(row["model"], row["turns"], row["total_tokens"], row["cost_usd"]) for row in rows] == [
        ("gpt", 4, 400, 4e-6),
        ("gpt", 2, 200, 2e-6),
        ("local", 1, 100, None),
        ("gpt", 2, 200, 2e-6),
        ("local", 1, 100, None),
        ("gpt", 1, 100, 1e-6),
        ("local", 1, 100, None),
    ]
    assert [rows[0][f"{kind}_tokens"] for kind in ("prompt", "cached", "completion", "reasoning")] == [360, 160, 40, 20]
    assert (usage.cost_usd(week()), usage.cost_usd(week(), GPT)) == (None, 9e-6)
    clients = usage.token_burn_by_client(week())
    assert [(row["client_token_id"], row["total_tokens"], row["cost_usd"]) for row in clients] == [
        (1, 900, 9e-6),
        (2, 300, None),
    ]
    assert [(row["user_id"], row["total_tokens"], row["cost_usd"]) for row in usage.token_burn_by_user(week())] == [
        ("ann", 600, 6e-6),
        ("bob", 300, 3e-6),
        ("cid", 300, None),
    ]


def test_the_first_of_many_users(written: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """bob is third by closed days alone, and with today's second."""
    monkeypatch.setattr(usage, "TOP", 2)
    turn(BOB, at(TODAY, 10))

    assert column(usage.token_burn_by_user(week()), "user_id") == ["ann", "bob"]


def test_replays(written: None) -> None:
    saved = {"replays": 1, "tokens_saved": 100, "usd_saved": 1e-6}

    assert usage.replays(week()) == {**saved, "by_day": [{"day": THU.date().isoformat(), **saved}]}
    assert usage.replays(week(), GPT)["replays"] == 1
    assert usage.replays(week(), Filters(model="local"))["replays"] == 0


def test_refusals(db: None) -> None:
    for code in ("rate_limit_exceeded", "budget_exceeded", "rate_limit_exceeded"):
        recording.count_refusal(1, code)
    recording.count_refusal(2, "budget_exceeded")
    assert usage.refusals(week()) == []

    assert recording.flush_refusals() == 4
    recording.count_refusal(1, "budget_exceeded")
    assert recording.flush_refusals() == 1
    assert recording.flush_refusals() == 0

    today = week().last.isoformat()
    assert usage.refusals(week()) == [
        {"day": today, "code": "budget_exceeded", "requests": 3},
        {"day": today, "code": "rate_limit_exceeded", "requests": 2},
    ]
    assert column(usage.refusals(week(), Filters(2)), "requests") == [1]


@pytest.mark.parametrize("filters", SOME_FILTERS, ids=str)
def test_rollups_say_what_the_raw_rows_say(db: None, filters: Filters) -> None:
    write_week()
    windows = [(MON.date(), TODAY.date()), (TUE.date(), WED.date()), (THU.date(), TODAY.date())]

    def figures() -> dict[Any, Any]:
        return {
            (name, *bounds): metric.run(Window(*bounds), filters)
            for name, metric in metrics.METRICS.items()
            for bounds in windows
        }

    live = figures()
    for day in (TUE, SUN):
        roll(day.date())
        assert figures() == live, day


def test_every_metric_is_defined() -> None:
    for name, metric in metrics.METRICS.items():
        assert len(metric.definition) > 20, name


def test_histograms_round_as_the_database_does(db: None) -> None:
    values = [0, 1, 999, 1000, 1004, 1005, 9994, 9995, 10_049, 10_050, 123_456, 99_950_000, 2_147_483_647]
    for value in values:
        turn(ANN, at(MON, 1), latency_ms=value)

    found = usage.latency_ms(week())

    counts = reading.durations(week(), ALL, "latency_ms")[MON.date()].histogram.counts()
    kept = {histograms.value_at(place) for place, count in enumerate(counts) if count}
    assert kept == set(map(histograms.rounded, values))
    assert found["p99"] == 2_150_000_000
    assert all(abs(histograms.rounded(value) - value) <= value * 0.005 for value in values)
    assert AnalyticsEvent.objects.count() == len(values)
