import json
import math
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from google.protobuf.message import DecodeError
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from chat.api.protobuf import fields_of, messages_of
from chat.exceptions import ApiError, RequestTooLarge

MAX_DEPTH = 100
# Python itself refuses more than 4300, with a message for programmers.
MAX_DIGITS = 4000
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
        data = self.load(stream.read(), context["view"])
        refuse_unstorable(data)
        return data

    def load(self, body: bytes, view: Any) -> Any:
        raise NotImplementedError


class JSONParser(BoundedParser):
    media_type = "application/json"

    def load(self, body: bytes, view: Any) -> Any:
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


def refuse_unstorable(data: Any, depth: int = 0) -> None:
    """Refuse text that no database stores (NUL, half a surrogate pair), and nesting that only an attacker sends."""
    if depth > MAX_DEPTH:
        raise ParseError(TOO_DEEP)
    if isinstance(data, str):
        if not is_storable(data):
            raise ParseError("Text must contain neither U+0000 nor half of a surrogate pair.")
    elif isinstance(data, float) and not math.isfinite(data):
        raise ParseError(TOO_LARGE)
    elif isinstance(data, dict | list):
        for value in (*data, *data.values()) if isinstance(data, dict) else data:
            refuse_unstorable(value, depth + 1)


def is_storable(text: str) -> bool:
    """Tell whether a database stores the text. A pattern takes 0.3 s for a picture of 16 MiB, this 1 ms."""
    try:
        return "\0" not in text and (text.isascii() or bool(text.encode()))
    except UnicodeEncodeError:
        return False


class ProtobufParser(BoundedParser):
    """Parses the message that the route takes into the fields of the same request in JSON."""

    media_type = "application/x-protobuf"

    def load(self, body: bytes, view: Any) -> Any:
        kind = messages_of(view).request
        if kind is None:
            return {}
        try:
            return fields_of(kind.FromString(body), load_field)
        except DecodeError as exc:
            raise ParseError(f"The body is not a {kind.DESCRIPTOR.name}; see protos/chat.proto.") from exc


def load_field(text: str, path: str, kind: type) -> Any:
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
