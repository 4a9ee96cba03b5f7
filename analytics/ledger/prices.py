"""What OpenAI charges. Prices are those of the pinned genai-prices, in billionths of a US dollar."""

from datetime import datetime
from decimal import Decimal
from functools import lru_cache

from django.utils import timezone
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice, calc_unit_price

NANOS = Decimal(1_000_000_000)
MILLION = 1_000_000
DEFAULT_TIER = "default"
# The tiers that have prices. OpenAI calls `fast` what it also calls `priority`, and answers `priority`.
PRICED_TIERS = (DEFAULT_TIER, "flex", "priority", "fast")


def cost_nanos(
    model: str,
    *,
    prompt_tokens: int,
    cached_tokens: int = 0,
    cache_write_tokens: int = 0,
    completion_tokens: int,
    service_tier: str = "",
) -> int | None:
    """Return what a completion costs; None where the price of the model, or of its service tier, is unknown.

    Tokens that were read from the cache and tokens that were written to it are parts of the prompt's, and no token is
    both. An empty tier is the default one.
    """
    prices = find_prices(model, service_tier or DEFAULT_TIER)
    if prices is None:
        return None
    cached = min(cached_tokens, prompt_tokens)
    written = min(cache_write_tokens, prompt_tokens - cached)
    # A model without prices for its cache bills all of the prompt alike. genai-prices' own ModelPrice.calc_price comes
    # to the same in ten times the time: it looks up and checks each unit that any provider bills.
    read_price = prices.input_mtok if prices.cache_read_mtok is None else prices.cache_read_mtok
    write_price = prices.input_mtok if prices.cache_write_mtok is None else prices.cache_write_mtok
    parts = (
        (prices.input_mtok, prompt_tokens - cached - written),
        (read_price, cached),
        (write_price, written),
        (prices.output_mtok, completion_tokens),
    )
    return _nanos(sum((calc_unit_price(price, count, prompt_tokens, MILLION) for price, count in parts), Decimal()))


def most_cost_nanos(model: str, *, prompt_tokens: int, completion_tokens: int, service_tier: str = "") -> int | None:
    """Return the most that a completion of at most so many tokens can cost; None where no price is known.

    `service_tier` is what the request asks for. The upstream may bill the prompt as written to the cache, and may serve
    another tier than it was asked for.
    """
    if service_tier in {"", "auto"}:
        # The tier is that of the project's settings, which only OpenAI knows.
        found = [prices for tier in PRICED_TIERS if (prices := find_prices(model, tier))]
    else:
        served = {service_tier, DEFAULT_TIER} | ({"priority"} if service_tier == "fast" else set())
        tiers = [find_prices(model, tier) for tier in served]
        found = [prices for prices in tiers if prices]
        if len(found) < len(tiers):
            return None
    costs = [_most_cost(prices, prompt_tokens, completion_tokens) for prices in found]
    return _nanos(max(costs)) if costs else None


def _most_cost(prices: ModelPrice, prompt_tokens: int, completion_tokens: int) -> Decimal:
    """Price the whole prompt in its dearest way: a cost grows evenly with each part, so no mixture is dearer."""
    ways = (prices.input_mtok, prices.cache_write_mtok, prices.cache_read_mtok)
    prompt = max(calc_unit_price(price, prompt_tokens, prompt_tokens, MILLION) for price in ways)
    return prompt + calc_unit_price(prices.output_mtok, completion_tokens, prompt_tokens, MILLION)


def find_prices(model: str, service_tier: str) -> ModelPrice | None:
    """Return the prices of a model in a tier, as they are in this minute; None where they are unknown."""
    return _prices_at(model, service_tier, timezone.now().replace(second=0, microsecond=0))


@lru_cache(maxsize=256)
def _prices_at(model: str, service_tier: str, now: datetime) -> ModelPrice | None:
    """Look the prices up. genai-prices itself prices a tier that it does not know as the default one."""
    try:
        _, info = get_snapshot().find_provider_model(model, None, "openai", None)
    except LookupError:
        return None
    if service_tier == DEFAULT_TIER:
        return info.get_prices(now)
    asked = {"service_tier": service_tier}
    variants = [variant for variant in info.price_variants or [] if variant.when == asked]
    if not any(variant.constraint is None or variant.constraint.active(now) for variant in variants):
        return None
    return info.get_prices(now, asked)


def _nanos(dollars: Decimal) -> int:
    return int((dollars * NANOS).to_integral_value())
