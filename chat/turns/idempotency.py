"""The Idempotency-Key header: one turn for each key, however often the request is sent.

This is draft-ietf-httpapi-idempotency-key-header-07. Clients send the key quoted or not; both are one key.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from django.db.models.expressions import Combinable
from django.db.models.functions import Now
from rest_framework.request import Request

from chat.exceptions import ApiError, IdempotencyInProgress, IdempotencyKeyReused
from chat.models import KEY_TTL, ClientToken, IdempotencyKey, IdempotencyKeyQuerySet

KEY = re.compile(r"[\x20-\x7e]{1,255}")
# Fields that say how the answer is delivered: a streamed turn can be replayed as JSON, and the other way round.
DELIVERY_FIELDS = {"stream", "stream_options"}


@dataclass(frozen=True)
class Claim:
    """The result of claiming a key: it is ours where `answer` is None; else `answer` is the stored one.

    `superseded` is the request id of a turn that died while it held the key.
    """

    answer: dict[str, Any] | None = None
    superseded: str | None = None


@dataclass(frozen=True)
class Idempotency:
    """The key of one request, and the hash of what is asked under it."""

    client: ClientToken
    key: str
    request_hash: str

    @classmethod
    def of(cls, request: Request, asked: dict[str, Any]) -> Self | None:
        """Read the header; None without one. Raises ApiError where it is not a key.

        The hash is SHA-256. The order of fields, white space and the request's format do not count.
        """
        raw = request.headers.get("Idempotency-Key")
        if raw is None:
            return None
        key = raw.strip()
        if len(key) >= 2 and key[0] == key[-1] == '"':
            key = key[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        if not KEY.fullmatch(key):
            raise ApiError("Idempotency-Key must be 1 to 255 printable ASCII characters.", param="Idempotency-Key")
        assert isinstance(request.auth, ClientToken)
        content = {name: value for name, value in asked.items() if name not in DELIVERY_FIELDS}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return cls(request.auth, key, hashlib.sha256(canonical.encode()).hexdigest())

    def claim(self, request_id: str, locked_until: Combinable) -> Claim:
        """Take the key for the turn `request_id`, inside its opening transaction.

        It inserts first, and then looks: of two requests at once one inserts, and the other finds that row. Raises
        IdempotencyInProgress or IdempotencyKeyReused where another request has the key.
        """
        row = IdempotencyKey(
            client_token=self.client,
            idempotency_key=self.key,
            request_hash=self.request_hash,
            request_id=request_id,
            locked_until=locked_until,
            created_at=Now(),
        )
        IdempotencyKey.objects.bulk_create([row], ignore_conflicts=True)
        found = self._rows().annotate(now=Now()).first()
        if found is None:  # Its turn failed just now, and released it.
            raise IdempotencyInProgress
        if found.request_id == request_id:
            return Claim()
        now: datetime = found.now  # type: ignore[attr-defined]
        is_expired = found.created_at < now - KEY_TTL
        if not is_expired and found.request_hash != self.request_hash:
            raise IdempotencyKeyReused
        if found.response_json is not None and not is_expired:
            return Claim(answer=json.loads(found.response_json))
        if found.response_json is None and found.locked_until >= now:
            raise IdempotencyInProgress
        # Take it over, unless another request does so at the same time.
        taken = IdempotencyKey.objects.filter(pk=found.pk, request_id=found.request_id).update(
            request_id=request_id,
            request_hash=self.request_hash,
            response_json=None,
            locked_until=locked_until,
            created_at=Now(),
        )
        if not taken:
            raise IdempotencyInProgress
        return Claim(superseded=found.request_id if found.response_json is None else None)

    def complete(self, request_id: str, answer: dict[str, Any]) -> bool:
        """Store the answer. False where the turn no longer holds the key."""
        return self._held_by(request_id).update(response_json=json.dumps(answer, ensure_ascii=False)) == 1

    def release(self, request_id: str) -> None:
        """Delete the key of a turn that failed, so that a retry runs."""
        self._held_by(request_id).delete()

    def forget(self, request_id: str) -> None:
        """Delete the key of a turn whose answer must not be given again."""
        self._rows().filter(request_id=request_id).delete()

    def holder(self) -> str | None:
        """Return the id of the turn that runs the same request under the key, and still has its lease."""
        held = self._rows().held().filter(request_hash=self.request_hash, locked_until__gte=Now())
        return held.values_list("request_id", flat=True).first()

    def outcome(self, request_id: str) -> tuple[dict[str, Any] | None, bool]:
        """Return the stored answer of a turn that held the key, and whether the turn still runs."""
        row = self._rows().filter(request_id=request_id).annotate(now=Now()).first()
        if row is None:
            return None, False
        answer = None if row.response_json is None else json.loads(row.response_json)
        return answer, answer is None and row.locked_until >= row.now  # type: ignore[attr-defined]

    def _held_by(self, request_id: str) -> IdempotencyKeyQuerySet:
        return self._rows().held().filter(request_id=request_id)

    def _rows(self) -> IdempotencyKeyQuerySet:
        return IdempotencyKey.objects.filter(client_token=self.client, idempotency_key=self.key)
