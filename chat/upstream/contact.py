"""Whether the model's provider can be reached: asked once when a process starts, and told to whoever operates it.

It is never a reason not to serve. A provider that is away comes back, and each turn says for itself what failed.
"""

import logging
import time

import openai

from chat.exceptions import ApiError
from chat.upstream.client import Refused, fetch_models

logger = logging.getLogger(__name__)
ASK_SECONDS = 5
NOT_ASKED = "not asked yet"

_words = NOT_ASKED


def words() -> str:
    """Return what came of it, without the address and the key."""
    return _words


def ask() -> bool:
    """Ask for the models, and note what comes of it. Returns whether the provider answers, and takes the key."""
    global _words
    is_well = False
    began = time.monotonic()
    try:
        fetch_models(ASK_SECONDS)
    except Refused as exc:
        _words = REFUSALS.get(exc.status, f"answers with status {exc.status}")
        is_well = exc.status in WITHOUT_LIST
    except (openai.OpenAIError, ApiError) as exc:
        cause = exc.__cause__ or exc
        is_answered = isinstance(cause, ValueError)
        away = f"cannot be reached ({type(cause.__cause__ or cause).__name__})"
        _words = "answers, but with no JSON" if is_answered else away
    except Exception as exc:
        # Before a connection is made everything fails for the same reason, as in a turn (`client.post`).
        _words = f"cannot be called ({type(exc).__name__})"
    else:
        _words = f"answers in {round((time.monotonic() - began) * 1000)} ms"
        return True
    logger.warning("the model's provider: %s", _words)
    return is_well


# Many servers have no list of models.
WITHOUT_LIST = {404, 405}
# What a status says about the settings.
REFUSALS = {
    401: "refuses OPENAI_API_KEY (status 401)",
    403: "refuses OPENAI_API_KEY (status 403)",
    404: "answers, and has no list of models (status 404)",
    405: "answers, and has no list of models (status 405)",
}
