"""What an upstream's answer is made of: JSON values, from one JSON body or from server-sent events."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

from chat.exceptions import UpstreamError
from chat.upstream.text import loads

# Ends a stream, and a whole body.
DONE = object()
LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
BOM = b"\xef\xbb\xbf"


def frames(pieces: Iterator[bytes]) -> Iterator[Any]:
    """Yield the JSON values of an answer as they come, and DONE where it says that it ends.

    Whether it is one body or an event stream is told by its first character: some providers answer a request for a
    stream with one body, and the other way round. Raises UpstreamError for JSON that cannot be read.
    """
    head = b""
    for piece in pieces:
        head = (head + piece).removeprefix(BOM).lstrip()
        if head and not BOM.startswith(head):
            break
    if head[:1] in {b"{", b"["}:
        yield loads(head + b"".join(pieces))
        yield DONE
        return
    for name, data in events(head, pieces):
        yield from errors_of(data) if name == "error" else values(data)


def values(data: bytes) -> Iterator[Any]:
    """Yield the JSON values of one event's data. What is no object, such as a word, is a sign of life."""
    text = data.strip()
    if text.strip(b'"') == b"[DONE]":
        yield DONE
    elif text[:1] == b"{" or text[:2] == b"[{":
        try:
            yield loads(text)
        except UpstreamError:
            # Some servers end events with one line end, so that one event seems to have many.
            lines = text.split(b"\n")
            if len(lines) == 1:
                raise
            for line in lines:
                yield from values(line)


def errors_of(data: bytes) -> Iterator[Any]:
    """Yield the data of an event that is called an error as one, whatever its shape."""
    try:
        value = loads(data)
    except UpstreamError:
        value = data.decode(errors="replace")
    yield value if isinstance(value, dict) and value.get("error") else {"error": value or "error"}


def events(head: bytes, pieces: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield name and data of each event of an event stream (WHATWG HTML, section 9.2.6).

    `head` is what has been read of it. An event that the end of the stream cuts is yielded, too, and llama.cpp's field
    `error` is an event of that name.
    """
    name, data = "", list[bytes]()
    for line in lines_of(itertools.chain([head], pieces, [b"\n\n"])):
        if line.startswith((b"data:", b"error:")):
            field, _, value = line.partition(b":")
            name = "error" if field == b"error" else name
            data.append(value.removeprefix(b" "))
        elif line.startswith(b"event:"):
            name = line[6:].strip().decode(errors="replace")
        elif not line:
            if data:
                yield name, b"\n".join(data)
            name, data = "", []


def lines_of(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield each line. Pieces may end anywhere; a long line that comes in many is joined once."""
    parts: list[bytes] = []
    rest = b""  # A CR at the end of a piece may be half of a line end.
    for piece in pieces:
        *lines, last = LINE_END.split(rest + piece)
        rest = b"\r" if last.endswith(b"\r") else b""
        for line in lines:
            yield b"".join([*parts, line])
            parts.clear()
        parts.append(last.removesuffix(b"\r") if rest else last)
