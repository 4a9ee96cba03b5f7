"""What a completion costs, and the most that it can cost."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import time_machine
from genai_prices import Usage
from genai_prices.data_snapshot import get_snapshot

from analytics.ledger.prices import PRICED_TIERS, cost_nanos, find_prices, most_cost_nanos

(OPENAI,) = (provider for provider in get_snapshot().providers if provider.id == "openai")
LUNA = "gpt-6-luna"


@pytest.fixture(autouse=True)
def _november() -> Iterator[None]:
    """The price list has the prices of tiers since October 2026."""
    with time_machine.travel(datetime(2026, 11, 26, tzinfo=UTC)):
        yield


@pytest.mark.parametrize(
    ("cached", "written", "nanos"),
    [
        (0, 0, 1000 * 100),
        (200, 0, 800 * 100 + 200 * 10),
        (0, 300, 700 * 100 + 300 * 125),
        (200, 300, 500 * 100 + 200 * 10 + 300 * 125),
        (0, 1000, 1000 * 125),
        # No token is billed twice, whatever the upstream says.
        (800, 800, 800 * 10 + 200 * 125),
        (2000, 2000, 1000 * 10),
    ],
)
def test_each_token_of_the_prompt_is_billed_once(cached: int, written: int, nanos: int) -> None:
    cost = cost_nanos(LUNA, prompt_tokens=1000, cached_tokens=cached, cache_write_tokens=written, completion_tokens=10)

    assert cost == nanos + 10 * 500


def test_cache_writes_cost_nothing_more_before_gpt_5_6() -> None:
    assert cost_nanos("gpt-5.4", prompt_tokens=10, cache_write_tokens=10, completion_tokens=0) == 10 * 2500


@pytest.mark.parametrize(
    ("model", "tier", "nanos"),
    [
        (LUNA, "", 600),
        (LUNA, "default", 600),
        (LUNA, "flex", 300),
        (LUNA, "priority", 1200),
        (LUNA, "fast", 1200),
        (LUNA, "auto", None),
        (LUNA, "scale", None),
        (LUNA, "tomorrow's", None),
        ("gpt-4o-mini", "priority", 1250),
        ("gpt-4o-mini", "flex", None),
        ("gpt-4o-mini-2024-07-18", "priority", 1250),
        ("a-model-without-a-price", "", None),
        ("a-model-without-a-price", "flex", None),
    ],
)
def test_each_service_tier_has_its_price(model: str, tier: str, nanos: int | None) -> None:
    assert cost_nanos(model, prompt_tokens=1, completion_tokens=1, service_tier=tier) == nanos


def test_a_long_prompt_is_dearer() -> None:
    size = 272_000

    assert cost_nanos(LUNA, prompt_tokens=size, completion_tokens=10) == size * 100 + 10 * 500
    assert cost_nanos(LUNA, prompt_tokens=size + 1, completion_tokens=10) == (size + 1) * 200 + 10 * 750


@pytest.mark.parametrize("size", [1000, 272_000, 300_000])
def test_no_way_of_billing_is_dearer_than_the_most(size: int) -> None:
    """Of all models of OpenAI that the price list knows, in all tiers."""
    ways = [(0, 0), (size, 0), (0, size), (size // 3, size // 3)]
    for model in OPENAI.models:
        for tier in ["auto", *PRICED_TIERS]:
            most = most_cost_nanos(model.id, prompt_tokens=size, completion_tokens=500, service_tier=tier)
            if most is None:
                continue
            served = PRICED_TIERS if tier == "auto" else (tier, "default")
            costs = [
                cost_nanos(
                    model.id,
                    prompt_tokens=size,
                    cached_tokens=cached,
                    cache_write_tokens=written,
                    completion_tokens=500,
                    service_tier=tier,
                )
                for tier in served
                for cached, written in ways
            ]
            assert max(cost for cost in costs if cost is not None) == most, (model.id, tier)


@pytest.mark.parametrize("size", [1000, 300_000])
def test_a_completion_costs_what_genai_prices_says(size: int) -> None:
    """Of all models of OpenAI that the price list knows."""
    read, written = size // 3, size // 4
    usage = Usage(input_tokens=size, cache_read_tokens=read, cache_write_tokens=written, output_tokens=500)
    for model in OPENAI.models:
        prices = find_prices(model.id, "default")
        dollars = prices.calc_price(usage)["total_price"] if prices else None

        cost = cost_nanos(
            model.id, prompt_tokens=size, cached_tokens=read, cache_write_tokens=written, completion_tokens=500
        )

        assert cost == (None if dollars is None else round(dollars * 1_000_000_000)), model.id


def test_no_tier_of_the_price_list_is_priced_in_part() -> None:
    """genai-prices takes what a tier lacks from the default one, which would be too little or too much."""
    for model in OPENAI.models:
        standard = model.get_prices(datetime.now(UTC))
        for variant in model.price_variants or []:
            tier = variant.when.get("service_tier")
            if tier in PRICED_TIERS[1:] and find_prices(model.id, tier):
                assert {name for name in vars(standard) if name.endswith("_mtok")} == {*vars(variant.prices)}
