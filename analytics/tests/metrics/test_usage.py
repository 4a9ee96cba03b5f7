"""Turns, latency, tokens and cost of the sample week, worked out by hand."""

from typing import Any

import pytest

from analytics import histograms
from analytics.ledger import refusals
from analytics.metrics import usage
from analytics.metrics.registry import METRICS
from analytics.metrics.sources import Usage
from analytics.query import Filters
from analytics.tests.sample_week import ANN, BOB, MON, THU, TODAY, TUE, at, table, turn, write_built_week

GPT = Filters(model="gpt")


@pytest.fixture
def written(db: None) -> None:
    write_built_week()


def column(rows: list[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]


def test_turns_by_how_they_ended(written: None) -> None:
    found = table()

    assert usage.turns(found) == {"pending": 1, "completed": 12, "failed": 1, "abandoned": 1}
    # 12 of 14 that ended.
    assert usage.success_rate(found) == 0.8571
    rows = usage.turns_by_day(found)
    assert column(rows, "completed") == [4, 3, 3, 0, 0, 0, 0, 2]
    assert column(rows, "success_rate") == [1, 0.75, 1, 0, None, None, None, 1]
    assert column(usage.abandoned(found), "share") == [0, 0, 0, 1, None, None, None, 0]
    assert usage.failures(found) == [
        {"day": TUE.date().isoformat(), "code": "upstream_error", "turns": 1},
        {"day": THU.date().isoformat(), "code": "abandoned", "turns": 1},
    ]


def test_all_but_one_are_not_all() -> None:
    assert Usage(completed=29_999, failed=1).success_rate == 0.9999
    assert Usage(completed=1, failed=29_999).success_rate == 0.0001
    assert [Usage(completed=9).success_rate, Usage(failed=9).success_rate, Usage().success_rate] == [1, 0, None]


def test_latency_by_nearest_rank(written: None) -> None:
    # 50 60 70 100 100 100 200 300 400 400 500 1,234: 3,514 in all; the last is kept as 1,230.
    found = usage.latency_ms(table())

    assert {name: found[name] for name in ("mean", "p50", "p95", "p99")} == {
        "mean": 292.8,
        "p50": 100,
        "p95": 1230,
        "p99": 1230,
    }
    # Monday: 100 100 100 1,234.
    assert found["by_day"][0] == {"day": MON.date().isoformat(), "mean": 383.5, "p50": 100, "p95": 1230, "p99": 1230}
    first = usage.first_token_ms(table())
    assert (first["mean"], first["p50"], first["p95"]) == (30, 20, 40)
    assert usage.latency_ms(table(Filters(9))) == {"mean": None, "p50": None, "p95": None, "p99": None, "by_day": []}


def test_tokens_and_cost(written: None) -> None:
    rows = usage.token_burn(table())

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
    assert (usage.cost_usd(table()), usage.cost_usd(table(GPT))) == (None, 9e-6)
    clients = usage.token_burn_by_client(table())
    assert [(row["client_token_id"], row["total_tokens"], row["cost_usd"]) for row in clients] == [
        (1, 900, 9e-6),
        (2, 300, None),
    ]
    assert [(row["user_id"], row["total_tokens"], row["cost_usd"]) for row in usage.token_burn_by_user(table())] == [
        ("ann", 600, 6e-6),
        ("bob", 300, 3e-6),
        ("cid", 300, None),
    ]


def test_the_first_of_many_users(written: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """bob is third until today, and second with today's turn."""
    monkeypatch.setattr(usage, "TOP", 2)
    turn(BOB, at(TODAY, 0, 1))

    assert column(usage.token_burn_by_user(table()), "user_id") == ["ann", "bob"]


def test_replays_save_what_the_first_answer_cost(written: None) -> None:
    saved = {"replays": 1, "tokens_saved": 100, "usd_saved": 1e-6}

    assert usage.replays(table()) == {**saved, "by_day": [{"day": THU.date().isoformat(), **saved}]}
    assert usage.replays(table(GPT))["replays"] == 1
    assert usage.replays(table(Filters(model="local")))["replays"] == 0


def test_refusals_are_counted_once_they_are_flushed(db: None) -> None:
    for code in ("rate_limit_exceeded", "budget_exceeded", "rate_limit_exceeded"):
        refusals.count_refusal(1, code)
    refusals.count_refusal(2, "budget_exceeded")
    assert usage.refusals(table()) == []

    assert refusals.flush_refusals() == 4
    refusals.count_refusal(1, "budget_exceeded")
    assert refusals.flush_refusals() == 1
    assert refusals.flush_refusals() == 0

    today = TODAY.date().isoformat()
    assert usage.refusals(table()) == [
        {"day": today, "code": "budget_exceeded", "requests": 3},
        {"day": today, "code": "rate_limit_exceeded", "requests": 2},
    ]
    assert column(usage.refusals(table(Filters(2))), "requests") == [1]


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_defined(name: str) -> None:
    assert len(METRICS[name].definition) > 20


def test_histograms_round_as_the_database_does(db: None) -> None:
    values = [0, 1, 999, 1000, 1004, 1005, 9994, 9995, 10_049, 10_050, 123_456, 99_950_000, 2_147_483_647]
    for value in values:
        turn(ANN, at(MON, 1), latency_ms=value)

    found = table()

    counts = found.latency[MON.date()].counts()
    kept = {histograms.value_at(place) for place, count in enumerate(counts) if count}
    assert kept == set(map(histograms.rounded, values))
    assert usage.latency_ms(found)["p99"] == 2_150_000_000
    assert all(abs(histograms.rounded(value) - value) <= value * 0.005 for value in values)
