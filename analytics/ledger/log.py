"""One line in the log for each turn that is settled: who asked, what came of it, and what it cost."""

import hashlib
import logging
from functools import lru_cache
from typing import Any

from django.conf import settings

from analytics.formatting import NANOS_PER_DOLLAR
from analytics.ledger.endings import DIED, Ending, Status

logger = logging.getLogger(__name__)


def log_turn(ending: Ending, **more: Any) -> None:
    """Log how a turn ended, once that is committed. `more`: what only the process knows that ran it."""
    subject, tokens, nanos = ending.subject, ending.tokens, ending.cost_nanos
    fields = {
        "request_id": subject.request_id,
        "client": None,
        "client_id": subject.client_token_id,
        "user": pseudonym(subject.user_id),
        "conversation": subject.conversation_id,
        "model": subject.model,
        "served_model": ending.served_model,
        "status": ending.status.value,
        "code": ending.code,
        "prompt_tokens": tokens and tokens.prompt,
        "cached_tokens": tokens and tokens.cached,
        "completion_tokens": tokens and tokens.completion,
        "estimated": True if tokens and tokens.is_estimated else None,
        "cost_usd": None if nanos is None else nanos / NANOS_PER_DOLLAR,
        "first_token_ms": ending.first_token_ms,
        # When it died, nobody knows.
        "latency_ms": None if ending.code == DIED else ending.latency_ms,
        **more,
    }
    level = logging.INFO if ending.status == Status.COMPLETED else logging.WARNING
    logger.log(level, "turn", extra={"fields": fields})


@lru_cache(maxsize=1)
def _key(secret: str) -> bytes:
    return hashlib.sha256(b"users in logs" + secret.encode()).digest()


def pseudonym(user_id: str) -> str:
    """Return what stands for a user in the log: the same for each of their turns, and of no use without SECRET_KEY."""
    return hashlib.blake2b(user_id.encode(), key=_key(settings.SECRET_KEY), digest_size=6).hexdigest()
