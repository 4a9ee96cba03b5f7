"""What llmapi adds to a client's parameters: who is behind the request, and how hard the model shall think."""

import base64
import re
from typing import Any

from django.conf import settings
from django.utils.crypto import salted_hmac

# OpenAI's models that think before they answer, and those of them that can be told not to.
REASONS = re.compile(r"o\d|gpt-[5-9]")
CAN_SKIP = re.compile(r"gpt-(5\.[1-9]|[6-9])")
# From GPT-5.6 on, chat completions take none of these from a model that thinks.
WITHOUT_REASONING = ("tools", "temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs")


def completed(
    parameters: dict[str, Any], model: str, *, client_id: int, user_id: str, conversation_id: str
) -> dict[str, Any]:
    """Return the parameters with llmapi's own, where the client has sent none of that name.

    `safety_identifier` tells OpenAI which requests are one person's, and `prompt_cache_key` which share a prompt's
    beginning. Both are digests: nobody learns a user's id from them. An upstream that refuses either is not sent it
    again (`compatibility`).
    """
    added = {
        "safety_identifier": digest("safety_identifier", f"{client_id}:{user_id}"),
        "prompt_cache_key": digest("prompt_cache_key", conversation_id or f"{client_id}:{user_id}"),
    }
    if effort := default_effort(model, parameters):
        added["reasoning_effort"] = effort
    return {**added, **parameters}


def digest(purpose: str, value: str) -> str:
    """Return 43 characters: OpenAI takes 64, and this is all of SHA-256."""
    signed = salted_hmac(purpose, value, algorithm="sha256").digest()
    return base64.urlsafe_b64encode(signed).decode().rstrip("=")


def default_effort(model: str, parameters: dict[str, Any]) -> str:
    """Return OPENAI_REASONING_EFFORT for a model that takes it, and `none` where the request allows nothing else."""
    if not REASONS.match(model) or "reasoning_effort" in parameters:
        return ""
    effort: str = settings.OPENAI_REASONING_EFFORT
    if any(name in parameters for name in WITHOUT_REASONING):
        effort = "none"
    return effort if effort != "none" or CAN_SKIP.match(model) else ""


def thinks(body: dict[str, Any]) -> bool:
    """Tell whether the model of a request may think, which nobody sees: it is sold, and no text tells how much."""
    return bool(REASONS.match(str(body["model"]))) and body.get("reasoning_effort") != "none"
