import logging
import sys

import pytest
from django.test import Client

from llmapi.logging import FewRefusals, LogfmtFormatter, ServerRefusals, quote_path


def test_logs_only_the_first_line_of_an_exception() -> None:
    """PostgreSQL puts the values of the row into the second line, and a prompt may be among them."""
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
    assert quote_path("/a b\nlevel=INFO\r\u2028é") == "/a%20b%0Alevel%3DINFO%0D%E2%80%A8%C3%A9"
    assert quote_path("/\0\x1b[31m\t%") == "/%00%1B%5B31m%09%25"
    assert quote_path("/v1/chat/completions.pb") == "/v1/chat/completions.pb"


def test_logs_why_a_page_of_the_admin_failed(
    client: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, db: None
) -> None:
    """An intended error, such as a 401, is not logged as a failure."""
    client.raise_request_exception = False
    monkeypatch.setattr("llmapi.staff.site.DashboardSite.each_context", lambda *args: 1 / 0)

    assert client.get("/admin/login/?\x1b").status_code == 500

    assert client.get("/metrics").status_code == 401
    (record,) = (record for record in caplog.records if record.name == "django.request")
    assert record.getMessage() == "request failed"
    assert record.exc_info is not None


def record_of(message: str, *args: object, level: int = logging.WARNING, **extra: object) -> logging.LogRecord:
    record = logging.LogRecord("x", level, "x", 1, message, args, None)
    record.__dict__.update(extra)
    return record


def test_a_flood_of_refusals_is_a_few_lines_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("llmapi.logging.time.monotonic", lambda: clock[0])
    few = FewRefusals()

    kept = [few.filter(record_of("status=%d", 401, is_refusal=True)) for _ in range(200)]
    others = [few.filter(record_of("status=%d", 200, is_refusal=False)) for _ in range(200)]
    clock[0] += 1
    record = record_of("status=%d", 401, is_refusal=True)

    assert (sum(kept), sum(others)) == (FewRefusals.LINES_A_SECOND, 200)
    assert few.filter(record)
    assert record.getMessage() == f"status=401 unlogged={200 - FewRefusals.LINES_A_SECOND}"


def test_what_is_no_request_is_one_short_line() -> None:
    record = record_of("Invalid request: %s", "\x1b[31m\n%d" + "x" * 5000)

    assert ServerRefusals().filter(record)
    beginning = "Invalid request:  [31m %d"
    assert record.getMessage() == beginning + "x" * (200 - len(beginning))


def test_refused_requests_are_marked(client: Client, caplog: pytest.LogCaptureFixture, db: None) -> None:
    caplog.set_level(logging.INFO, "llmapi.logging")
    for path in ("/health", "/nowhere"):
        client.get(path)

    marks = [record.__dict__["is_refusal"] for record in caplog.records if record.name == "llmapi.logging"]
    assert marks == [False, True]
