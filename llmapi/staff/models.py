"""The page of the models of this server: what they cost, how much fits them, and until when they are served."""

from dataclasses import dataclass
from decimal import Decimal

from django.conf import settings
from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils import timezone
from genai_prices.types import TieredPrices

from analytics.api.permissions import VIEW_USAGE
from analytics.formatting import UNKNOWN
from analytics.ledger.prices import DEFAULT_TIER, find_prices
from chat.estimates import context_tokens
from chat.model_names import model_behind
from chat.upstream import lifetimes
from chat.upstream.lifetimes import Shutdown


@dataclass(frozen=True)
class ModelRow:
    """A model that the upstream is asked for, and the names by which clients ask for it."""

    model: str
    names: list[str]
    prices: list[str]  # of a million tokens: input, cached, written to the cache, output
    context_tokens: int
    shutdown: Shutdown | None
    is_told: bool  # by the provider itself
    is_near: bool


def page(site: AdminSite, request: HttpRequest) -> TemplateResponse:
    if not request.user.has_perm(VIEW_USAGE):
        raise PermissionDenied
    context = {**site.each_context(request), "title": "Models of this server", "rows": rows()}
    return TemplateResponse(request, "llmapi/models.html", context)


def rows() -> list[ModelRow]:
    told, today = lifetimes.read_told(), timezone.now().date()
    shutdowns = lifetimes.shutdowns(told)
    return [
        ModelRow(
            model=model,
            names=[name for name in settings.OPENAI_MODELS if model_behind(name) == model],
            prices=price_texts(model),
            context_tokens=context_tokens(model),
            shutdown=(shutdown := shutdowns.get(model)),
            is_told=model in told,
            is_near=shutdown is not None and shutdown.is_near(today),
        )
        for model in lifetimes.models_in_use()
    ]


def price_texts(model: str) -> list[str]:
    prices = find_prices(model, DEFAULT_TIER)
    names = ("input_mtok", "cache_read_mtok", "cache_write_mtok", "output_mtok")
    return [price_text(getattr(prices, name, None)) for name in names]


def price_text(price: Decimal | TieredPrices | None) -> str:
    if price is None:
        return UNKNOWN
    if not isinstance(price, TieredPrices):
        return f"${price:f}"
    dearer = [f"${tier.price:f} above {tier.start:,}" for tier in price.tiers]
    return f"${price.base:f} ({', '.join(dearer)})"


def notices() -> list[str]:
    """Say which models end soon, or have ended."""
    today = timezone.now().date()
    return [
        f"{lifetimes.describe(model, shutdown, today)} {lifetimes.advise(model, shutdown)}"
        for model, shutdown in lifetimes.shutdowns(lifetimes.read_told()).items()
        if shutdown.is_near(today)
    ]
