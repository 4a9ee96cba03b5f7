"""The Idempotency-Key header: one turn for one key, however often the request is sent.

draft-ietf-httpapi-idempotency-key-header-07, with what clients really send: the key quoted or not.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from django.db.models.expressions import Combinable
from django.db.models.functions import Now
from django.utils import timezone
from rest_framework.request import Request

from chat.exceptions import ApiError, IdempotencyInProgress, IdempotencyKeyReused
from chat.models import ClientToken, IdempotencyKey, IdempotencyKeyQuerySet

KEPT = timedelta(hours=24)
KEY = re.compile(r"[\x20-\x7e]{1,255}")
# How an answer is wanted, not what is asked: a streamed turn replays as JSON, and the other way round.
DELIVERY_FIELDS = {"stream", "stream_options"}


@dataclass(frozen=True)
class Claim:
    """What came of claiming a key: it is ours (`answer` is None), or here is the stored answer.

    `superseded` is the turn of a process that died holding the key.
    """

    answer: dict[str, Any] | None = None
    superseded: str | None = None


class Idempotency:
    """One request's key: who owns it, what was asked, and the row that remembers the answer."""

    def __init__(self, client: ClientToken, key: str, asked: dict[str, Any]) -> None:
        self.client = client
        self.key = key
        self.request_hash = fingerprint(asked)

    @classmethod
    def of(cls, request: Request, asked: dict[str, Any]) -> Self | None:
        """Read the header; None without one, a 400 for one that is not a key."""
        raw = request.headers.get("Idempotency-Key")
        if raw is None:
            return None
        key = raw.strip()
        if len(key) >= 2 and key[0] == key[-1] == '"':
            key = key[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        if not KEY.fullmatch(key):
            raise ApiError("Idempotency-Key must be 1 to 255 printable ASCII characters.", param="Idempotency-Key")
        assert isinstance(request.auth, ClientToken)
        return cls(request.auth, key, asked)

    def equals(self, other: "Idempotency") -> bool:
        """Whether the other is the same request under the same key of the same client."""
        return (self.client.pk, self.key, self.request_hash) == (other.client.pk, other.key, other.request_hash)

    def claim(self, request_id: str, locked_until: Combinable) -> Claim:
        """Take the key for the turn `request_id`, inside its opening transaction.

        Insert first, then look: of two requests at once one inserts, and the other finds its row.
        """
        row = IdempotencyKey(
            client_token=self.client,
            idempotency_key=self.key,
            request_hash=self.request_hash,
            request_id=request_id,
            locked_until=locked_until,
        )
        IdempotencyKey.objects.bulk_create([row], ignore_conflicts=True)
        found = self._rows().annotate(now=Now()).first()
        if found is None:  # its turn failed a moment ago, and released it
            raise IdempotencyInProgress
        if found.request_id == request_id:
            return Claim()
        now: datetime = found.now  # type: ignore[attr-defined]
        is_over = found.created_at < now - KEPT
        if not is_over and found.request_hash != self.request_hash:
            raise IdempotencyKeyReused
        if found.response_json is not None and not is_over:
            return Claim(answer=json.loads(found.response_json))
        if found.response_json is None and found.locked_until >= now:
            raise IdempotencyInProgress
        return self._take_over(found, request_id, locked_until)

    def _take_over(self, found: IdempotencyKey, request_id: str, locked_until: Combinable) -> Claim:
        taken = IdempotencyKey.objects.filter(pk=found.pk, request_id=found.request_id).update(
            request_id=request_id,
            request_hash=self.request_hash,
            response_json=None,
            locked_until=locked_until,
            created_at=timezone.now(),
        )
        if not taken:
            raise IdempotencyInProgress
        return Claim(superseded=found.request_id if found.response_json is None else None)

    def complete(self, request_id: str, answer: dict[str, Any]) -> bool:
        """Store the answer; False when the turn no longer holds the key."""
        return self._held_by(request_id).update(response_json=json.dumps(answer, ensure_ascii=False)) == 1

    def release(self, request_id: str) -> None:
        """Forget a turn that failed, so that a retry runs."""
        self._held_by(request_id).delete()

    def forget(self, request_id: str) -> None:
        """Forget a turn whose answer must not be given again."""
        self._rows().filter(request_id=request_id).delete()

    def is_held(self) -> bool:
        """Whether a turn that still has its lease runs under the key."""
        return self._rows().held().filter(locked_until__gte=Now()).exists()

    def _held_by(self, request_id: str) -> IdempotencyKeyQuerySet:
        return self._rows().held().filter(request_id=request_id)

    def _rows(self) -> IdempotencyKeyQuerySet:
        return IdempotencyKey.objects.filter(client_token=self.client, idempotency_key=self.key)


def fingerprint(asked: dict[str, Any]) -> str:
    """SHA-256 of what is asked: key order, white space and the format it came in do not count."""
    asked = {name: value for name, value in asked.items() if name not in DELIVERY_FIELDS}
    canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
