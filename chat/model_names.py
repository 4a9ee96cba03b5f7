"""The names by which clients ask for a model, and the model that answers to each (OPENAI_MODEL and OPENAI_MODELS)."""

from django.conf import settings

# As an alias: every name that is not listed.
ANY = "*"


def is_known(name: str) -> bool:
    return name in settings.OPENAI_MODELS or ANY in settings.MODEL_ALIASES


def model_behind(name: str) -> str:
    """Return the model that answers to a name that is known."""
    if name in settings.OPENAI_MODELS:
        return str(settings.MODEL_ALIASES.get(name, name))
    return str(settings.MODEL_ALIASES.get(ANY, name))
