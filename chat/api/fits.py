"""What a field of Protobuf can hold of a JSON value: all of it, or nothing. Nothing here raises."""

import base64
import binascii
import json
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from chat.upstream.text import storable


def fit(field: Any, value: Any) -> Any:
    """Return what the field can hold of the value, or None."""
    return FITS[field.type](value)


def fit_integer(least: int, most: int) -> Callable[[Any], int | None]:
    def fit_this(value: Any) -> int | None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return int(value) if is_number and least <= value <= most else None

    return fit_this


def fit_double(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    except OverflowError:
        return None


def fit_string(value: Any) -> str | None:
    # Protobuf's strings are UTF-8, which has no halves of surrogate pairs.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def fit_json(value: Any) -> str:
    """Write a value as JSON text; what no reader would take, as an empty one."""
    try:
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except ValueError:
            text = json.dumps(storable(value), ensure_ascii=False)
    except RecursionError:
        return ""
    return text.encode("utf-8", "replace").decode()


def fit_bytes(value: Any) -> bytes | None:
    """Read bytes as JSON has them: in Base64, or as a list of numbers."""
    try:
        return base64.b64decode(value) if isinstance(value, str) else bytes(value) if isinstance(value, list) else None
    except (binascii.Error, ValueError, TypeError, OverflowError):
        return None


FITS: dict[int, Callable[[Any], Any]] = {
    FieldDescriptor.TYPE_UINT32: fit_integer(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: fit_integer(0, 2**64 - 1),
    FieldDescriptor.TYPE_INT32: fit_integer(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_DOUBLE: fit_double,
    FieldDescriptor.TYPE_STRING: fit_string,
    FieldDescriptor.TYPE_BYTES: fit_bytes,
    FieldDescriptor.TYPE_BOOL: lambda value: value if isinstance(value, bool) else None,
}
