"""Text as providers send it, made whole: every database stores it, and no character is cut."""

import codecs
import json
import math
import re
from itertools import accumulate
from typing import Any

from chat.exceptions import UpstreamError

# Made once: `json.loads` with an option makes one for each chunk. NaN and Infinity are no JSON, and become null.
DECODER = json.JSONDecoder(parse_constant=lambda _: None)
# Digits that `int` reads. A longer number becomes null.
MAX_DIGITS = 1000
LENIENT = json.JSONDecoder(
    parse_constant=lambda _: None,
    parse_int=lambda digits: int(digits) if len(digits) < MAX_DIGITS else None,
    strict=False,
)
# Levels of an answer. What lies deeper is left out: few readers of JSON take a thousand, and some only a hundred.
MAX_DEPTH = 60
# Values of one frame: a long reply with its probabilities has some hundred thousand.
MAX_PARTS = 4_000_000
OPENING = b"[{"
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
STEPS = [1 if byte in OPENING else -1 for byte in range(256)]
# What no database stores: NUL, and halves of surrogate pairs. Bytes that are not UTF-8 come as low halves, too.
ODD = re.compile("[\0\ud800-\udfff]")
BYTES = re.compile("[\udc80-\udcff]+")
TAIL = re.compile("[\udc80-\udcff]+\\Z")
HALF_PAIR = re.compile("[\ud800-\udbff]\\Z")


def loads(raw: bytes) -> Any:
    """Read JSON. Bytes that are not UTF-8 become low surrogates (PEP 383), for `TextJoiner` to join.

    Raises UpstreamError.
    """
    if len(raw) > MAX_PARTS and raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_PARTS:
        raise UpstreamError("The model's answer has too many parts.", is_billed=True)
    text = raw.decode("utf-8", "surrogateescape")
    try:
        try:
            value = DECODER.decode(text)
        except ValueError:
            value = LENIENT.decode(text)
    except (ValueError, RecursionError) as exc:
        raise UpstreamError("The model's answer is not JSON.", is_billed=True) from exc
    return pruned(value) if depth_of(raw) > MAX_DEPTH else value


def depth_of(raw: bytes) -> int:
    """Return how deep JSON may be: brackets in its texts count, too."""
    count = raw.count(b"[") + raw.count(b"{")
    return count if count <= MAX_DEPTH else max(accumulate(map(STEPS.__getitem__, raw.translate(None, NO_BRACKETS))))


def pruned(value: Any, levels: int = MAX_DEPTH) -> Any:
    """Copy a JSON value without what lies deeper than so many levels."""
    if isinstance(value, dict):
        return {key: pruned(item, levels - 1) for key, item in value.items()} if levels else None
    if isinstance(value, list):
        return [pruned(item, levels - 1) for item in value] if levels else None
    return value


class TextJoiner:
    """Joins pieces of one text. Providers that stream tokens cut characters: between the halves of a surrogate pair,
    and between the bytes of UTF-8. A piece's last half of a character is kept until the next piece."""

    def __init__(self) -> None:
        self._rest = ""

    def add(self, piece: str, *, is_last: bool = False) -> str:
        """Return what can be read so far of the text that has not been returned yet."""
        if not self._rest and not ODD.search(piece):
            return piece
        # UTF-16 joins a pair whose halves came apart.
        text = (self._rest + piece).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        self._rest = ""
        if not is_last and (kept := unfinished(text)):
            text, self._rest = text[:-kept], text[-kept:]
        return storable_text(text)

    def flush(self) -> str:
        """Return the rest of the text, where it ended inside a character."""
        return self.add("", is_last=True)


def unfinished(text: str) -> int:
    """Count the code units at the end of the text that may begin a character."""
    if HALF_PAIR.search(text):
        return 1
    if not (tail := TAIL.search(text)):
        return 0
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(tail[0].encode("utf-8", "surrogateescape"))
    pending, _ = decoder.getstate()
    return len(pending)


def storable_text(text: str) -> str:
    """Replace what no database stores by U+FFFD."""
    if not ODD.search(text):
        return text
    text = BYTES.sub(lambda found: found[0].encode("utf-8", "surrogateescape").decode("utf-8", "replace"), text)
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "\ufffd")


def storable(value: Any) -> Any:
    """Copy a JSON value, with text that every database can store, and numbers that are JSON."""
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [storable(item) for item in value]
    return value
