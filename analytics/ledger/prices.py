from decimal import Decimal

from genai_prices import Usage, calc_price

NANOS = Decimal(1_000_000_000)


def cost_nanos(model: str, *, prompt_tokens: int, cached_tokens: int = 0, completion_tokens: int) -> int | None:
    """Return what OpenAI charges for a completion, in billionths of a US dollar; None where no price is known.

    Prices are those of the pinned genai-prices. Cached tokens are part of the prompt's.
    """
    cached = min(cached_tokens, prompt_tokens)
    usage = Usage(input_tokens=prompt_tokens, cache_read_tokens=cached, output_tokens=completion_tokens)
    try:
        price = calc_price(usage, model, provider_id="openai")
    except LookupError:
        return None
    return int((price.total_price * NANOS).to_integral_value())
