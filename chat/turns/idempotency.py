"""The Idempotency-Key header: one turn for each key, however often the request is sent.

This is draft-ietf-httpapi-idempotency-key-header-07. Clients send the key quoted or not; both are one key.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from django.db.models.functions import Now
from rest_framework.request import Request

from chat.exceptions import ApiError, IdempotencyInProgress, IdempotencyKeyReused
from chat.models import ClientToken, IdempotencyKey, IdempotencyKeyQuerySet
from chat.pieces import PIECE_BYTES, PIECE_VALUES, worked
from chat.sql import Row

MAX_KEY = 255  # characters
KEY = re.compile(rf"[\x20-\x7e]{{1,{MAX_KEY}}}")
# Fields that say how the answer is delivered: a streamed turn can be replayed as JSON, and the other way round.
DELIVERY_FIELDS = {"stream", "stream_options"}


# Made once: `json.dumps` with an option makes one for each value.
ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
# Down to the URL of a picture in a message: messages, message, content, part, image_url, url.
MESSAGE_LEVELS = 6


class HeldKey(NamedTuple):
    """The row of a key: the turn that runs or ran under it, what it was asked, and its answer once that is there."""

    request_id: str
    request_hash: str
    response_json: str | None
    is_expired: bool
    is_locked: bool

    @property
    def is_dead(self) -> bool:
        """Tell whether the turn died that holds the key."""
        return self.response_json is None and not self.is_locked


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
        is_small = int(request.META.get("CONTENT_LENGTH") or 0) <= PIECE_BYTES
        return cls(
            request.auth,
            request.auth.own_name(key, MAX_KEY),
            hash_of(content, levels=0 if is_small else MESSAGE_LEVELS),
        )

    def row(self, request_id: str) -> Row:
        """Return what statements take that read or write the key for the turn `request_id`."""
        return {
            "client_token_id": self.client.pk,
            "idempotency_key": self.key,
            "request_hash": self.request_hash,
            "request_id": request_id,
        }

    def answer_of(self, held: HeldKey) -> dict[str, Any] | None:
        """Return the stored answer; None where the key is over or its turn died, so that it may be claimed.

        Raises IdempotencyInProgress or IdempotencyKeyReused where another request has the key.
        """
        if not held.is_expired and held.request_hash != self.request_hash:
            raise IdempotencyKeyReused
        if held.response_json is None and held.is_locked:
            raise IdempotencyInProgress
        if held.response_json is None or held.is_expired:
            return None
        answer: dict[str, Any] = json.loads(held.response_json)
        return answer

    def is_held_by(self, request_id: str) -> bool:
        """Tell whether the key is that of the turn, with its answer or without one."""
        return self._rows().filter(request_id=request_id).exists()

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

    def _rows(self) -> IdempotencyKeyQuerySet:
        return IdempotencyKey.objects.filter(client_token=self.client, idempotency_key=self.key)


def hash_of(content: dict[str, Any], *, levels: int) -> str:
    """Return the SHA-256 of the JSON with sorted keys. The hash is the same whatever `levels` are cut into pieces."""
    digest = hashlib.sha256()
    feed(digest, content, levels)
    return digest.hexdigest()


def feed(digest: "hashlib._Hash", value: Any, levels: int) -> None:
    """Add a value's JSON to a hash, containers of the upper `levels` and long texts piece by piece."""
    worked(2)
    if isinstance(value, str) and len(value) > PIECE_BYTES:
        digest.update(b'"')
        for start in range(0, len(value), PIECE_BYTES):
            digest.update(canonical_json(value[start : start + PIECE_BYTES])[1:-1])
            worked(PIECE_VALUES)
        digest.update(b'"')
    elif levels and isinstance(value, dict):
        for index, name in enumerate(sorted(value)):
            digest.update((b"," if index else b"{") + canonical_json(name) + b":")
            feed(digest, value[name], levels - 1)
        digest.update(b"}" if value else b"{}")
    elif levels and isinstance(value, list):
        for index, item in enumerate(value):
            digest.update(b"," if index else b"[")
            feed(digest, item, levels - 1)
        digest.update(b"]" if value else b"[]")
    else:
        digest.update(canonical_json(value))


def canonical_json(value: Any) -> bytes:
    return ENCODER.encode(value).encode()
