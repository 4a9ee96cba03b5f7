"""How many values a body has, counted before it is parsed: a parsed value takes a hundred times its bytes.

JSON is counted by its commas and brackets, Protobuf by its tags. Both counts cost a few milliseconds a megabyte, and
memory for one piece.
"""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from chat.exceptions import RequestTooLarge
from chat.pieces import MAX_VALUES, count_json, worked

# In a shorter text there cannot be more: each value takes two bytes or more, itself and what separates it.
ALWAYS_FEW = 2 * MAX_VALUES


class ValueCount:
    """Counts the values of one request, over all texts that it consists of."""

    def __init__(self) -> None:
        self._count = 0

    def add_json(self, text: bytes, param: str | None = None) -> None:
        """Count a JSON text. Raises RequestTooLarge, about `param`, where there are more than MAX_VALUES in all."""
        self._add(count_json(text, MAX_VALUES - self._count), param)

    def add_protobuf(self, body: bytes, kind: Any) -> None:
        """Count a message of a descriptor. Raises RequestTooLarge."""
        self._add(count_fields(body, kind, MAX_VALUES - self._count), None)

    def _add(self, count: int, param: str | None) -> None:
        self._count += count
        if self._count > MAX_VALUES:
            raise RequestTooLarge(f"The request has more than {MAX_VALUES:,} values; send less at once.", param=param)


def count_fields(body: bytes, kind: Any, most: int) -> int:
    """Count the fields of a Protobuf message and of all messages in it, and stop after `most`.

    `kind` is its descriptor, which tells messages from texts. Bytes that are no message end the message that they are
    in; the parser refuses them.
    """
    count, at = 0, 0
    within = [(len(body), kind)]
    while within and count <= most:
        end, kind = within[-1]
        if at >= end:
            at = end
            within.pop()
            continue
        count += 1
        worked(4)
        tag, at = read_varint(body, at, end)
        wire_type, field = tag & 7, kind.fields_by_number.get(tag >> 3)
        if wire_type == 2:
            size, at = read_varint(body, at, end)
            inner = field.message_type if field and field.type == FieldDescriptor.TYPE_MESSAGE else None
            if inner and at + size <= end:
                within.append((at + size, inner))
            else:
                at += size
        elif wire_type == 0:
            _, at = read_varint(body, at, end)
        else:
            at += {1: 8, 5: 4}.get(wire_type, 0)
    return count


def read_varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the number at `at`, and where it ends. One that is cut ends at `end`, one of more than ten bytes too."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            return value, end
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    return value, end
