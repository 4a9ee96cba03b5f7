"""Budgets in tokens and dollars: reserved before they are used, and never overrun."""

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from chat.limits import budgets
from chat.models import Budget, ClientToken, IdempotencyKey, RateLimit
from chat.retention import purge_expired
from chat.turns import reply_log
from chat.turns.recovery import settle_all_abandoned
from conftest import ApiClient, Server, wait_until

URL = "/v1/chat/completions"
# "Hi" is reserved as 9 tokens (its bytes, 4 for the message's frame, 3 before the reply), and the double sells 5 for
# it and 3 for "echo: Hi".
HI = {"messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 91}
SOLD = 8


def ask(client: ApiClient, key: str | None = None, **fields: Any) -> Any:
    return client.send(URL, {**HI, **fields}, key)


def limit(client: ApiClient, **limits: Any) -> None:
    ClientToken.objects.filter(pk=client.token_row.pk).update(**limits)


def used(unit: str = "tokens", user_id: str = "") -> list[int]:
    rows = Budget.objects.filter(unit=unit, user_id=user_id).order_by("period")
    return list(rows.values_list("used", flat=True))


def test_it_works(alice: ApiClient, upstream: OpenAIDouble) -> None:
    limit(alice, day_tokens=110)

    answers = [ask(alice) for _ in range(3)]

    # 100 are reserved and 8 are used: with 16 used, 94 are left.
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert used() == [2 * SOLD]
    refused = answers[-1]
    error = refused.json()["error"]
    assert error["code"] == "budget_exceeded"
    assert "up to 100 tokens, and 94 tokens are left of the 110 tokens" in error["message"]
    assert refused["x-should-retry"] == "false"
    assert 0 < int(refused["Retry-After"]) <= 24 * 3600
    assert '"day_tokens";q=110' in refused["RateLimit-Policy"]
    assert f'"day_tokens";r=94;t={refused["Retry-After"]}' in refused["RateLimit"]
    assert len(upstream.requests) == 2
    assert ask(alice, max_completion_tokens=80).status_code == 200


def test_a_refused_turn_leaves_nothing(alice: ApiClient, upstream: OpenAIDouble) -> None:
    limit(alice, day_tokens=1, tokens_per_min=1000)

    assert ask(alice, key="k").status_code == 429

    assert not UsageEvent.objects.exists()
    assert not IdempotencyKey.objects.exists()
    assert not RateLimit.objects.filter(key__startswith="tpm").exists()
    assert not used()


def test_the_upstream_is_held_to_what_was_reserved(alice: ApiClient, upstream: OpenAIDouble) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    alice.send(URL, body)
    limit(alice, day_tokens=100_000)
    alice.send(URL, body)
    alice.send(URL, {**body, "max_tokens": 7})

    sent = [{k: v for k, v in request["body"].items() if "max" in k} for request in upstream.requests]
    assert sent == [{}, {"max_completion_tokens": 4096}, {"max_tokens": 7}]


def test_failures_give_back_what_they_did_not_use(
    alice: ApiClient, upstream: OpenAIDouble, transactional_db: None
) -> None:
    limit(alice, day_tokens=1000, day_usd=1)
    upstream.plan(Behaviour(status=500), Behaviour(stop_after=1, text="echo and more"))

    assert ask(alice).status_code == 502
    assert used() == [0]
    assert used("nanos") == [0]
    assert used("turns") == [0]
    b"".join(ask(alice, stream=True).streaming_content)

    row = UsageEvent.objects.order_by("id").last()
    assert row
    assert row.status == "failed"
    assert used() == [row.total_tokens]
    assert used("nanos") == [row.cost_nanos]


def test_an_abandoned_turn_stays_reserved_until_it_ends(server: Server, upstream: OpenAIDouble) -> None:
    ClientToken.objects.update(day_tokens=1000, concurrent_turns=5)
    gate = threading.Event()
    upstream.plan(Behaviour(gate=gate))
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(server.post, URL, HI)
        wait_until(lambda: len(upstream.requests) == 1)
        assert (used(), used("turns")) == ([100], [1])

        settle_all_abandoned(timezone.now() + timedelta(hours=1))
        assert (used(), used("turns")) == ([100], [0])

        gate.set()
        assert late.result()[0] == 200
    assert (used(), used("turns")) == ([SOLD], [0])


def test_money(alice: ApiClient, upstream: OpenAIDouble, settings: Settings) -> None:
    # gpt-4o-mini: 150 nanos a prompt token, 600 a completion token; 9 * 150 + 91 * 600 = 55,950 are reserved.
    limit(alice, month_usd=Decimal("0.0001"))

    answers = [ask(alice, service_tier="default") for _ in range(20)]

    # 5 * 150 + 3 * 600 = 2,550 a turn; 55,950 fit while at most 44,050 are used.
    assert Counter(answer.status_code for answer in answers) == {200: 18, 429: 2}
    assert used("nanos") == [18 * 2550]
    assert "$0.0001 that this client has for" in answers[-1].json()["error"]["message"]

    settings.OPENAI_MODEL = "a-model-without-a-price"
    answer = ask(alice)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "model"


def test_each_user_has_a_budget(alice: ApiClient, upstream: OpenAIDouble) -> None:
    limit(alice, user_day_tokens=105, month_tokens=1_000)

    assert [ask(alice, user="u1").status_code for _ in range(2)] == [200, 429]
    assert ask(alice, user="u2").status_code == 200
    assert ask(alice).status_code == 200
    assert (used(user_id="u1"), used(user_id="u2"), used()) == ([SOLD], [SOLD], [3 * SOLD])


def test_a_replay_costs_nothing(alice: ApiClient, upstream: OpenAIDouble) -> None:
    limit(alice, day_tokens=100, concurrent_turns=1)

    assert [ask(alice, key="k").status_code for _ in range(3)] == [200, 200, 200]
    assert used() == [SOLD]


def test_periods_are_utc_days_and_months(alice: ApiClient) -> None:
    client = ClientToken(pk=1, day_tokens=1, month_usd=Decimal("2.5"), user_day_tokens=3)

    rows = budgets.budgets_of(client, "u", datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC))

    new_year = datetime(2027, 1, 1, tzinfo=UTC)
    assert [(row.key, row.most, row.resets_at) for row in rows] == [
        ("1:turns::", None, None),
        ("1:tokens:2026-12-31:", 1, new_year),
        ("1:tokens:2026-12-31:u", 3, new_year),
        ("1:nanos:2026-12:", 2_500_000_000, new_year),
    ]


def test_periods_that_are_over_are_purged(alice: ApiClient, upstream: OpenAIDouble) -> None:
    limit(alice, day_tokens=100, month_tokens=300)
    ask(alice)

    purge_expired(timezone.now() + timedelta(days=1))
    assert len(used()) == 2
    purge_expired(timezone.now() + timedelta(days=40))
    assert used() == []
    assert used("turns") == [0]


def test_turns_at_once(server: Server, upstream: OpenAIDouble) -> None:
    ClientToken.objects.update(concurrent_turns=2)
    gate = threading.Event()
    upstream.default = Behaviour(gate=gate)
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(server.post, URL, HI) for _ in range(2)]
        wait_until(lambda: len(upstream.requests) == 2)

        status, headers, body = server.post(URL, HI)
        gate.set()
        assert [turn.result()[0] for turn in running] == [200, 200]

    assert status == 429
    assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
    assert headers["Retry-After"] == "1"
    assert "x-should-retry" not in headers
    assert server.post(URL, HI)[0] == 200


def test_tokens_per_minute(alice: ApiClient, upstream: OpenAIDouble) -> None:
    limit(alice, tokens_per_min=300)

    # A rate is taken as it is estimated: "Hi" as 5 tokens.
    first = ask(alice, max_completion_tokens=95)
    second = ask(alice, max_completion_tokens=250)
    refused = ask(alice, max_completion_tokens=290)
    too_large = ask(alice, max_completion_tokens=296)

    assert (first["x-ratelimit-limit-tokens"], first["x-ratelimit-remaining-tokens"]) == ("300", "200")
    assert first["RateLimit-Policy"] == '"rpm";q=1000;w=60, "tpm";q=300;w=60'
    assert first["RateLimit"].split(", ")[1].startswith('"tpm";r=200;t=')
    # What the first did not use has come back, as far as it has not leaked out by itself.
    assert second.status_code == 200
    assert 36 <= int(second["x-ratelimit-remaining-tokens"]) <= 37
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 0 < int(refused["Retry-After"]) <= 3
    assert too_large.status_code == 429
    assert too_large["x-should-retry"] == "false"
    assert "lower max_completion_tokens" in too_large.json()["error"]["message"]


@pytest.mark.parametrize(
    ("limits", "admitted"),
    [({"day_tokens": 1000}, [10]), ({"tokens_per_min": 1000}, range(10, 12)), ({"concurrent_turns": 7}, [7])],
)
def test_parallel_turns_cannot_overrun(
    server: Server, upstream: OpenAIDouble, limits: dict[str, int], admitted: Any
) -> None:
    """Each of 40 turns at once, in two processes, reserves 100 tokens, and none ends before the last has asked."""
    gate = threading.Event()
    upstream.default = Behaviour(gate=gate)
    ClientToken.objects.update(**limits)

    with ThreadPoolExecutor(40) as pool:
        pending = [pool.submit(server.post, URL, HI) for _ in range(40)]
        wait_until(lambda: sum(answer.done() for answer in pending) + len(upstream.requests) == 40)
        gate.set()
        statuses = Counter(answer.result()[0] for answer in pending)

    assert statuses.keys() == {200, 429}
    assert statuses[200] in admitted
    assert len(upstream.requests) == statuses[200]
    if "day_tokens" in limits:
        assert used() == [statuses[200] * SOLD]
    refused = next(json.loads(a.result()[2])["error"]["code"] for a in pending if a.result()[0] == 429)
    assert refused == ("budget_exceeded" if "day_tokens" in limits else "rate_limit_exceeded")


def test_tokens_beyond_the_estimate_are_charged_to_the_minute(alice: ApiClient, upstream: OpenAIDouble) -> None:
    limit(alice, tokens_per_min=1000)
    upstream.default = Behaviour(text="word " * 600)

    answers = [ask(alice) for _ in range(4)]

    # Each uses 606 and has taken 99: the second is let in on what is left, and both are charged in full.
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    # 1,206 of 1,000 are used, and 99 more are asked for: 305 too many, of which a second gives 16.7 back.
    assert 0 < int(answers[-1]["Retry-After"]) < 20


def test_a_turn_cancelled_before_its_first_word_is_paid_for(
    alice: ApiClient, upstream: OpenAIDouble, transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_log, "HEARTBEAT_SECONDS", 0.2)  # the answer begins before the reply does
    limit(alice, day_tokens=100_000)
    upstream.default = Behaviour(text="a long reply", delay=2)
    body = {"messages": [{"role": "user", "content": "word " * 3000}], "stream": True}
    answer = alice.send(URL, body)
    request_id = answer["x-request-id"]

    alice.send(f"{URL}/{request_id}/cancel", {})
    b"".join(answer.streaming_content)

    row = UsageEvent.objects.get()
    assert (row.status, row.error_code, row.is_estimated) == ("failed", "cancelled", True)
    assert used() == [row.total_tokens]
    assert row.prompt_tokens >= 3000


def test_what_a_model_has_thought_unseen_stays_reserved(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings
) -> None:
    """Else a client that breaks off before the first word could spend without end."""
    settings.OPENAI_MODELS = ["gpt-6-luna"]
    limit(alice, day_tokens=100_000, day_usd=1)
    for effort, kept in (("high", True), ("none", False)):
        before = used()[0] if used() else 0
        upstream.plan(Behaviour(cut=True))
        assert ask(alice, model="gpt-6-luna", reasoning_effort=effort, max_completion_tokens=4000).status_code == 502
        assert (used()[0] - before > 4000) == kept


def test_a_timeout_that_may_have_been_billed_is_paid_for(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings
) -> None:
    limit(alice, day_tokens=100_000)
    settings.UPSTREAM_TIMEOUT_SECONDS = 0.2
    upstream.plan(Behaviour(delay=1))

    assert ask(alice).status_code == 504

    row = UsageEvent.objects.get()
    assert (row.prompt_tokens, row.completion_tokens, row.is_estimated) == (5, 0, True)
    assert used() == [5]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "", "refusal": "x" * 5000},
        {"role": "user", "content": "Hi", "name": "x" * 64},
        {"role": "user", "content": "1,2,3," * 1000},
        {"role": "user", "content": [{"type": "file", "file": {"file_data": "x" * 5000}}]},
    ],
)
def test_nothing_is_sent_that_was_not_reserved(
    alice: ApiClient, upstream: OpenAIDouble, message: dict[str, Any]
) -> None:
    """Tokenizers work on bytes: no text costs more than a token for each."""
    size = len(json.dumps({name: value for name, value in message.items() if name != "role"}))
    limit(alice, day_tokens=94 + size // 2)

    assert ask(alice, messages=[message]).status_code == 429


def test_both_bounds_at_once_are_refused(alice: ApiClient, upstream: OpenAIDouble) -> None:
    assert ask(alice, max_tokens=100_000).json()["error"]["param"] == "max_tokens"
    assert ask(alice, max_completion_tokens=2**31).status_code == 400


@pytest.mark.parametrize(
    ("model", "tier", "status"),
    [
        ("gpt-6-luna", "flex", 200),
        ("gpt-6-luna", "priority", 200),
        ("gpt-6-luna", "scale", 400),
        ("gpt-6-luna", "tomorrow's", 400),
        # It is not sold in this tier.
        ("gpt-4o-mini", "flex", 400),
    ],
)
def test_only_a_tier_without_a_price_is_refused(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings, model: str, tier: str, status: int
) -> None:
    settings.OPENAI_MODELS = [model]
    limit(alice, day_usd=1)

    answer = ask(alice, model=model, service_tier=tier)

    assert answer.status_code == status
    assert status == 200 or answer.json()["error"]["param"] == "service_tier"
    limit(alice, day_usd=None)
    assert ask(alice, model=model, service_tier=tier).status_code == 200


def sold(prompt: int, completion: int, *, tier: str | None = None, **details: int) -> Behaviour:
    """Let the upstream answer a request for gpt-6-luna, and bill so many tokens."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}
    choices = [{"message": {"role": "assistant", "content": "echo: Hi"}}]
    answer = {"model": "gpt-6-luna", "choices": choices, "usage": usage, "service_tier": tier}
    return Behaviour(raw=json.dumps(answer).encode())


# Of gpt-6-luna a prompt token costs 100 nanos, 125 where it is written to the cache, and a completion token 500. Flex
# costs half of it, and priority twice as much.
@pytest.mark.parametrize(
    ("asked", "served", "most"),
    [
        ("default", "default", 197),  # 9 * 125 + 197 * 500 = 99,625
        ("flex", "default", 197),
        ("priority", "priority", 97),  # 9 * 250 + 97 * 1000 = 99,250
        ("fast", "priority", 97),
        ("auto", "priority", 97),
        (None, "priority", 97),
    ],
)
def test_a_budget_holds_a_prompt_that_is_all_written_to_the_cache(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings, asked: str | None, served: str, most: int
) -> None:
    settings.OPENAI_MODELS = ["gpt-6-luna"]
    limit(alice, month_usd=Decimal("0.0001"))
    upstream.default = sold(9, most, tier=served, cache_write_tokens=9)
    tier = {"service_tier": asked} if asked else {}

    more = ask(alice, model="gpt-6-luna", max_completion_tokens=most + 1, **tier)
    assert more.status_code == 429
    assert ask(alice, model="gpt-6-luna", max_completion_tokens=most, **tier).status_code == 200

    row = UsageEvent.objects.get()
    assert (row.cache_write_tokens, row.service_tier) == (9, served)
    assert used("nanos") == [row.cost_nanos]
    assert 99_000 < used("nanos")[0] <= 100_000


def test_a_budget_holds_a_long_prompt(alice: ApiClient, upstream: OpenAIDouble, settings: Settings) -> None:
    """Above 272,000 tokens a prompt costs twice as much, and a reply half as much again."""
    settings.OPENAI_MODELS = ["gpt-6-luna"]
    size = 272_001
    messages = [{"role": "user", "content": "x" * (size - 7)}]
    fields: dict[str, Any] = {
        "model": "gpt-6-luna",
        "service_tier": "default",
        "messages": messages,
        "max_completion_tokens": 100,
    }
    upstream.default = sold(size, 100, tier="default", cache_write_tokens=size)
    # 272,001 * 250 + 100 * 750 = 68,075,250
    limit(alice, month_usd=Decimal("0.0680"))
    assert ask(alice, **fields).status_code == 429

    limit(alice, month_usd=Decimal("0.0681"))
    assert ask(alice, **fields).status_code == 200
    assert used("nanos") == [68_075_250]


def test_what_a_tier_without_a_price_has_reserved_stays_spent(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings
) -> None:
    settings.OPENAI_MODELS = ["gpt-6-luna"]
    limit(alice, month_usd=1)
    upstream.plan(sold(9, 3, tier="ultrafast"))

    assert ask(alice, model="gpt-6-luna", max_completion_tokens=97).status_code == 200

    row = UsageEvent.objects.get()
    assert (row.service_tier, row.cost_nanos) == ("ultrafast", None)
    assert used("nanos") == [99_250]


def test_no_slot_leaks_where_a_thread_cannot_start(
    alice: ApiClient, upstream: OpenAIDouble, monkeypatch: pytest.MonkeyPatch, transactional_db: None
) -> None:
    limit(alice, concurrent_turns=1)
    start = threading.Thread.start

    def fail(self: threading.Thread) -> None:
        if self.name.startswith("r_"):
            raise RuntimeError("can't start new thread")
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        assert ask(alice, stream=True).status_code == 500

    assert UsageEvent.objects.get().status == "failed"
    assert ask(alice).status_code == 200


def test_a_turn_reserves_by_one_statement(alice: ApiClient, upstream: OpenAIDouble) -> None:
    """With two, turns at once could both take what is left."""
    limit(alice, day_tokens=1000, month_tokens=1000)
    with CaptureQueriesContext(connection) as queries:
        ask(alice)

    found = [query["sql"].split()[0] for query in queries if "budgets" in query["sql"]]
    assert found[0] == "INSERT"
    assert "SELECT" not in found
