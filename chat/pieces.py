"""Work on large requests, cut into pieces: between two of them other requests of the process run.

Requests share one thread of Python. Whoever loops over what a client sends counts it here, or is bound to less than a
piece.
"""

from analytics import fairness

# Values that Python handles between two breaths: some milliseconds of work.
PIECE_VALUES = 2_000
# To read a message, to group it or to estimate it takes as long as so many values.
A_MESSAGE = 4
# Bytes that code in C handles between two breaths, where it can be cut.
PIECE_BYTES = 64 * 1024

# Values of JSON that one request may have. 2,048 messages with a tool call each have 25,000.
MAX_VALUES = 50_000

_done = 0


def worked(values: int) -> None:
    """Count values that were handled just now, and breathe once they are a piece.

    All requests of the process share the count, so many small ones are cut like one large one. Not for code that
    holds a lock or a transaction.
    """
    global _done
    _done += values
    if _done >= PIECE_VALUES:
        _done = 0
        fairness.breathe()


def count_json(text: bytes, most: int) -> int:
    """Count the values of a JSON text, containers included, and stop soon after `most`.

    What is no JSON is counted up to its first mistake, where a parser ends as well.
    """
    count, start, is_inside = 1, 0, False
    while start < len(text) and count <= most:
        piece = text[start : start + PIECE_BYTES]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # what its last backslash escapes belongs to it
            piece = text[start : start + PIECE_BYTES + 1]
        start += len(piece)
        # Without escapes every quote begins or ends a string, and every second part is outside of strings.
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        outside = b"".join(parts[is_inside::2])
        is_inside ^= len(parts) % 2 == 0
        count += sum(map(outside.count, (b",", b"[", b"{")))
        if start < len(text):
            fairness.breathe()
    return count
