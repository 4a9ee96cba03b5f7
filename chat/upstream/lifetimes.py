"""Until when the provider serves the models that this server asks for: as it tells, or as OpenAI has announced."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import openai
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from chat.exceptions import ApiError
from chat.model_names import model_behind
from chat.models import UpstreamModel
from chat.upstream.client import fetch_models

logger = logging.getLogger(__name__)

# Staff are warned so long before a model ends.
NOTICE = timedelta(days=60)
ASK_SECONDS = 5
# Of a model object: OpenAI's field, and OpenRouter's.
DATE_FIELDS = ("shutdown_date", "expiration_date")
SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")


@dataclass(frozen=True)
class Shutdown:
    """The day on which a model ends, and the model that its provider names as the successor, if it does."""

    day: date
    successor: str = ""

    def is_near(self, today: date) -> bool:
        return self.day - today <= NOTICE


# https://developers.openai.com/api/docs/deprecations, as of November 2026. A dated snapshot, and what was fine-tuned of
# it, end with the model that it belongs to, unless it is named here itself.
ANNOUNCED = {
    name: Shutdown(day, successor)
    for day, successor, names in [
        (date(2026, 10, 23), "gpt-5.6-terra", ["gpt-3.5-turbo", "o4-mini"]),
        (date(2026, 10, 23), "gpt-5.6-sol", ["gpt-4", "gpt-4-turbo", "gpt-4o-2024-05-13", "o1", "o1-pro", "o3-mini"]),
        (date(2026, 10, 23), "gpt-5.6-luna", ["gpt-4.1-nano"]),
        (date(2026, 12, 11), "gpt-6.1-sol", ["gpt-5", "gpt-5-pro", "o3", "o3-pro"]),
        (date(2026, 12, 11), "gpt-6.1-terra", ["gpt-5-mini"]),
        (date(2026, 12, 11), "gpt-6-luna", ["gpt-5-nano"]),
        (date(2027, 1, 14), "gpt-6-luna", ["gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini"]),
        (date(2027, 4, 1), "", ["gpt-5.1", "gpt-5.3-codex", "gpt-5.4-nano"]),
    ]
    for name in names
}


def models_in_use() -> list[str]:
    """List the models that the upstream is asked for. An alias stands for the model behind it."""
    return list(dict.fromkeys(model_behind(name) for name in settings.OPENAI_MODELS))


def shutdowns(told: Mapping[str, date]) -> dict[str, Shutdown]:
    """Return when models in use end, where that is known. What the provider has told goes before what is announced."""
    found = {}
    for name in models_in_use():
        announced = announced_shutdown(name)
        if name in told:
            found[name] = Shutdown(told[name], announced.successor if announced else "")
        elif announced:
            found[name] = announced
    return found


def announced_shutdown(model: str) -> Shutdown | None:
    """Return what OpenAI has announced of a model; None where another provider serves it."""
    host = urlsplit(settings.OPENAI_BASE_URL).hostname or ""
    if not f".{host}".endswith(".api.openai.com"):
        return None
    # A fine-tuned model is called ft:gpt-4o-mini-2024-07-18:organization::id.
    base = model.split(":")[1] if model.startswith("ft:") else model
    return ANNOUNCED.get(base) or ANNOUNCED.get(SNAPSHOT.sub("", base))


def read_told() -> dict[str, date]:
    """Read the dates that the provider told when it was last asked."""
    rows = UpstreamModel.objects.filter(shutdown_date__isnull=False)
    return {name: day for name, day in rows.values_list("name", "shutdown_date") if day}


def ask_upstream(now: datetime) -> int:
    """Ask the provider for the dates of the models in use, and keep its answer. Returns how many of them it lists.

    A provider that does not answer, or lists no models, changes nothing: many have no such list.
    """
    try:
        body = fetch_models(ASK_SECONDS)
    except (openai.OpenAIError, ApiError, ValueError) as exc:
        logger.info("the models of the provider are not known: %s", type(exc).__name__)
        return 0
    entries = body.get("data") if isinstance(body, dict) else None
    names = models_in_use()
    listed = {
        entry["id"]: entry
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and entry.get("id") in names
    }
    rows = [UpstreamModel(name=name, shutdown_date=told_date(entry), asked_at=now) for name, entry in listed.items()]
    if rows:
        with transaction.atomic():
            UpstreamModel.objects.all().delete()
            UpstreamModel.objects.bulk_create(rows)
    for name, shutdown in shutdowns(read_told()).items():
        if shutdown.is_near(now.date()):
            logger.warning("%s", describe(name, shutdown))
    return len(rows)


def told_date(entry: Mapping[str, Any]) -> date | None:
    """Read the date of a model object; None where it has none that can be read."""
    text = next((entry[field] for field in DATE_FIELDS if isinstance(entry.get(field), str)), "")
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        return None


def describe(model: str, shutdown: Shutdown, today: date | None = None) -> str:
    has_ended = shutdown.day <= (today or timezone.now().date())
    return f"The provider {'has shut' if has_ended else 'shuts'} {model} down on {shutdown.day.isoformat()}."


def advise(model: str, shutdown: Shutdown) -> str:
    if not shutdown.successor:
        return "Set OPENAI_MODEL and OPENAI_MODELS to models that stay."
    return (
        f"Name {shutdown.successor} in OPENAI_MODEL or OPENAI_MODELS, as the provider recommends; "
        f"OPENAI_MODELS={model}={shutdown.successor} answers clients that still ask for {model}."
    )
