import json
import logging
import sys

import pytest
from django.db import IntegrityError
from django.test import Client
from pytest_django import Settings

from conftest import ApiClient
from llmapi.log_formats import FORMATTERS, current_request_id
from llmapi.logging import FewRefusals, ServerRefusals, quote_path


def raised_record() -> logging.LogRecord:
    """Make the record of an error of the database, in a context of others; what they say is not in this source."""
    prompt = " ".join(["my", "prompt"])
    try:
        try:
            try:
                raise KeyError(prompt)
            except KeyError as exc:
                exc.add_note(prompt)
                raise IntegrityError(f"violates a constraint\nDETAIL: Failing row contains ({prompt})") from exc
        except IntegrityError as exc:
            raise ExceptionGroup(prompt, [ValueError(prompt), exc]) from exc
    except ExceptionGroup:
        return logging.LogRecord("x", logging.ERROR, "x", 1, "failed", None, sys.exc_info())


@pytest.mark.parametrize("name", FORMATTERS)
def test_a_traceback_tells_only_words_without_values(name: str) -> None:
    """PostgreSQL puts the values of the row into the second line, and a prompt may be among them."""
    text = FORMATTERS[name]().format(raised_record())

    for told in ("violates a constraint", "KeyError", "ValueError", "raised_record"):
        assert told in text
    assert "my prompt" not in text
    assert ("\n" in text) == (name == "console")


FORGED = 'a\nb\r\x1b[31m\x85\u2028\u202e "c" d=e time=0'


@pytest.mark.parametrize("name", FORMATTERS)
def test_no_value_forges_a_line(name: str) -> None:
    record = record_of("turn %s", FORGED, fields={"client": FORGED, "model": FORGED, "request_id": "r_1"})

    line = FORMATTERS[name]().format(record)

    assert line.isprintable()
    assert len(line.splitlines()) == 1
    if name == "json":
        assert json.loads(line)["client"] == FORGED
    if name == "logfmt":
        assert line.endswith(f" client={json.dumps(FORGED)} model={json.dumps(FORGED)}")


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
    assert record.__dict__["fields"]["unlogged"] == 200 - FewRefusals.LINES_A_SECOND


def test_refused_tokens_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("llmapi.logging.time.monotonic", lambda: clock[0])
    few = FewRefusals()
    refused = [few.filter(record_of("request", is_refusal=True, fields={"status": 401})) for _ in range(3000)]
    soon, later = (record_of("request", is_refusal=False, fields={"status": 200}) for _ in range(2))

    few.filter(soon)
    clock[0] += 61
    few.filter(later)

    assert sum(refused) == FewRefusals.UNAUTHORIZED_A_MINUTE
    assert "unlogged_401" not in soon.__dict__["fields"]
    assert later.__dict__["fields"]["unlogged_401"] == 3000 - FewRefusals.UNAUTHORIZED_A_MINUTE


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Invalid request: \x1b[31m\n" + "x" * 5000, "Invalid request:  [31m " + "x" * 177),
        ('Invalid HTTP request line: \'{"message": "my prompt"}\'', "Invalid HTTP request line"),
        ("Invalid HTTP Header: b'Authorization Bearer x'", "Invalid HTTP Header"),
        ("Error handling request /x?token=secret", "Error handling request /x"),
    ],
)
def test_the_server_quotes_nobody(said: str, kept: str) -> None:
    record = record_of("%s", said)

    assert ServerRefusals().filter(record)
    assert record.getMessage() == kept


def test_refused_requests_are_marked(client: Client, caplog: pytest.LogCaptureFixture, db: None) -> None:
    caplog.set_level(logging.INFO, "llmapi.logging")
    for path in ("/health", "/nowhere"):
        client.get(path)

    marks = [record.__dict__["is_refusal"] for record in caplog.records if record.name == "llmapi.logging"]
    assert marks == [False, True]


def test_a_request_tells_who_asked_from_where(
    alice: ApiClient, caplog: pytest.LogCaptureFixture, settings: Settings
) -> None:
    caplog.set_level(logging.INFO, "llmapi.logging")
    settings.TRUSTED_PROXIES = 1

    alice.get("/v1/conversations/c_none?token=x", headers={"x-forwarded-for": "10.0.0.1, 192.0.2.7"})

    (fields,) = (record.__dict__["fields"] for record in caplog.records)
    assert fields.pop("ms") >= 0
    assert {name: value for name, value in fields.items() if value is not None} == {
        "method": "GET",
        "path": "/v1/conversations/c_none",
        "status": 404,
        "code": "conversation_not_found",
        "address": "192.0.2.7",
        "client": "alice",
        "client_id": alice.token_row.pk,
    }


def test_an_id_ends_with_its_answer(client: Client) -> None:
    current_request_id.set("-")
    answer = client.get("/health")
    assert current_request_id.get() == "-"  # the test's client closes an answer that is no stream

    streamed = client.get("/static/web/chat.css")
    assert current_request_id.get() == streamed["x-request-id"] != answer["x-request-id"]
    b"".join(streamed)
    streamed.close()
    assert current_request_id.get() == "-"
