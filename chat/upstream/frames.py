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
    for data in event_data(head, pieces):
        yield from values(data)


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


def event_data(rest: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the data of each event of an event stream (WHATWG HTML, section 9.2.6). Pieces may end anywhere.

    `rest` is what has been read of it. An event that the end of the stream cuts is yielded, too.
    """
    data: list[bytes] = []
    for piece in itertools.chain([b""], pieces, [b"\n\n"]):
        *lines, rest = LINE_END.split(rest + piece)
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                yield b"\n".join(data)
                data.clear()
