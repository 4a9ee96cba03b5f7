import json
import math
from collections.abc import Mapping
from functools import partial
from typing import IO, Any

from django.conf import settings
from google.protobuf.message import DecodeError
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from analytics import fairness
from chat.api.protobuf import fields_of, messages_of
from chat.api.scalars import is_storable
from chat.api.values import ALWAYS_FEW, ValueCount
from chat.exceptions import ApiError, RequestTooLarge
from chat.pieces import PIECE_BYTES, PIECE_VALUES

MAX_DEPTH = 100
# To read a number of n digits takes n² steps: one of 4,000 as long as 60 of these.
MAX_DIGITS = 500
TOO_LARGE = "A number is too large; send one that fits 64 bits."
TOO_DEEP = f"The JSON is nested deeper than {MAX_DEPTH} levels."


class BoundedParser(BaseParser):
    """Parses a body within limits: DRF's own parser takes any length, and crashes on deep nesting."""

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Refuse a body that is longer than MAX_REQUEST_BYTES before reading it."""
        context = parser_context or {}
        length = context["request"].META.get("CONTENT_LENGTH")
        if int(length or 0) > settings.MAX_REQUEST_BYTES:
            raise RequestTooLarge.of(settings.MAX_REQUEST_BYTES)
        body = stream.read()
        data = self.load(body, context["view"])
        if len(body) > PIECE_BYTES:
            fairness.breathe()
        refuse_unstorable(data)
        return data

    def load(self, body: bytes, view: Any) -> Any:
        raise NotImplementedError


class JSONParser(BoundedParser):
    media_type = "application/json"

    def load(self, body: bytes, view: Any) -> Any:
        if len(body) > ALWAYS_FEW:
            ValueCount().add_json(body)
        if len(body) > PIECE_BYTES:
            fairness.breathe()
        try:
            # Some programs begin UTF-8 with a byte order mark, which RFC 8259 lets a parser ignore.
            return load_json(body.decode("utf-8-sig"))
        except ValueError as exc:
            raise ParseError(f"The body is not JSON in UTF-8: {exc}") from exc


def load_json(text: str) -> Any:
    """Read JSON within limits. Raises ParseError, or ValueError where it is none."""
    try:
        return json.loads(text, parse_constant=refuse_constant, parse_int=parse_int)
    except RecursionError as exc:
        raise ParseError(TOO_DEEP) from exc


def parse_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ParseError(TOO_LARGE)
    return int(digits)


def refuse_constant(name: str) -> None:
    raise ParseError(f"{name} is not JSON; send a number or null.")


def refuse_unstorable(data: Any) -> None:
    """Refuse text that no database stores (NUL, half a surrogate pair), and nesting that only an attacker sends."""
    level = [data]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for start in range(0, len(level), PIECE_VALUES):
            if start:
                fairness.breathe()
            for value in level[start : start + PIECE_VALUES]:
                if isinstance(value, str):
                    if not is_storable(value):
                        raise ParseError("Text must contain neither U+0000 nor half of a surrogate pair.")
                elif isinstance(value, dict):
                    below += value
                    below += value.values()
                elif isinstance(value, list):
                    below += value
                elif isinstance(value, float) and not math.isfinite(value):
                    raise ParseError(TOO_LARGE)
        if not below:
            return
        level = below
    raise ParseError(TOO_DEEP)


class ProtobufParser(BoundedParser):
    """Parses the message that the route takes into the fields of the same request in JSON."""

    media_type = "application/x-protobuf"

    def load(self, body: bytes, view: Any) -> Any:
        kind = messages_of(view).request
        if kind is None:
            return {}
        values = ValueCount()
        if len(body) > ALWAYS_FEW:
            values.add_protobuf(body, kind.DESCRIPTOR)
        try:
            return fields_of(kind.FromString(body), partial(load_field, values))
        except DecodeError as exc:
            raise ParseError(f"The body is not a {kind.DESCRIPTOR.name}; see protos/chat.proto.") from exc


def load_field(values: ValueCount, text: str, path: str, kind: type) -> Any:
    """Read the JSON in a field of a Protobuf message: its values are of the request, as all others."""
    values.add_json(text.encode(), path)
    try:
        value = load_json(text)
    except ValueError as exc:
        raise ApiError(f"{path} is not JSON: {exc}", param=path) from exc
    except ParseError as exc:
        raise ApiError(f"{path}: {exc}", param=path) from exc
    if not isinstance(value, kind):
        raise ApiError(f"{path} must be a JSON {'list' if kind is list else 'object'}.", param=path)
    return value


class RegisteredProtobufParser(ProtobufParser):
    """Parses the media type that RFC 9996 registers."""

    media_type = "application/protobuf"


PARSERS = [JSONParser, ProtobufParser, RegisteredProtobufParser]
