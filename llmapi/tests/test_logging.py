import logging
import sys

from django.test import Client

from llmapi.logging import LogfmtFormatter, quoted


def test_of_an_exception_only_the_first_line_is_logged() -> None:
    """PostgreSQL puts the values of the row, and with them a prompt, into the second."""
    prompt = " ".join(["my", "prompt"])  # not as one word in this source, whose lines the traceback shows
    try:
        try:
            raise ValueError(f"violates a constraint\nDETAIL: Failing row contains ({prompt})")
        except ValueError as exc:
            raise RuntimeError(f"settling failed\n{prompt}") from exc
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "failed", None, sys.exc_info())

    text = LogfmtFormatter().format(record)

    assert "violates a constraint" in text
    assert "settling failed" in text
    assert prompt not in text


def test_a_path_cannot_forge_a_line(client: Client) -> None:
    assert quoted("/a b\nlevel=INFO\r\u2028é") == "/a%20b%0Alevel=INFO%0D\\u2028\\xe9"
