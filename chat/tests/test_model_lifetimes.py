"""Until when models are served: what the provider tells once a day, and what OpenAI has announced."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pytest_django import Settings

from chat.models import UpstreamModel
from chat.upstream import contact, lifetimes
from chat.upstream.lifetimes import announced_shutdown, ask_upstream, read_told, shutdowns

NOW = datetime(2026, 11, 26, tzinfo=UTC)


@dataclass
class Provider:
    """A provider that lists its models."""

    body: bytes = b""
    status: int = 200
    asked: list[str] = field(default_factory=list)
    gate: threading.Event | None = None

    def lists(self, **models: dict[str, Any]) -> None:
        self.body = json.dumps({"object": "list", "data": [{"id": name, **m} for name, m in models.items()]}).encode()


@pytest.fixture
def provider(db: None, settings: Settings) -> Iterator[Provider]:
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

        def do_GET(self) -> None:
            provider.asked.append(self.path)
            if provider.gate:
                provider.gate.wait(30)
            self.send_response(provider.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(provider.body)))
            self.end_headers()
            self.wfile.write(provider.body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        settings.OPENAI_BASE_URL = f"http://127.0.0.1:{server.server_address[1]}/v1"
        settings.OPENAI_MODELS = ["one", "two", "three", "alias"]
        settings.MODEL_ALIASES = {"alias": "four"}
        yield provider
        server.shutdown()


def test_the_models_in_use_are_kept_as_the_provider_lists_them(provider: Provider) -> None:
    provider.lists(
        one={"shutdown_date": "2027-01-14"},
        two={"shutdown_date": None},
        four={"expiration_date": "2026-12-01T00:00:00Z"},
        another={"shutdown_date": "2026-12-11"},
    )

    assert ask_upstream(NOW) == 3

    assert provider.asked == ["/v1/models"]
    assert read_told() == {"one": date(2027, 1, 14), "four": date(2026, 12, 1)}
    assert set(UpstreamModel.objects.values_list("name", "asked_at")) == {
        (name, NOW) for name in ("one", "two", "four")
    }


def test_a_newer_answer_replaces_the_older(provider: Provider) -> None:
    provider.lists(one={"shutdown_date": "2027-01-14"}, two={"shutdown_date": "2027-01-14"})
    ask_upstream(NOW)
    provider.lists(one={"shutdown_date": None}, three={"shutdown_date": "2027-04-01"})

    ask_upstream(NOW)

    assert read_told() == {"three": date(2027, 4, 1)}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"{}"),
        (401, b'{"error": {}}'),
        (200, b"not JSON"),
        (200, b"[]"),
        (200, b'{"data": 3}'),
        (200, b'{"data": [3, {}, {"id": []}]}'),
        (200, b'{"data": []}'),
    ],
)
def test_a_provider_that_has_no_list_changes_nothing(provider: Provider, status: int, body: bytes) -> None:
    provider.lists(one={"shutdown_date": "2027-01-14"})
    ask_upstream(NOW)
    provider.status, provider.body = status, body

    assert ask_upstream(NOW) == 0

    assert read_told() == {"one": date(2027, 1, 14)}


def test_a_provider_that_does_not_answer_is_left(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifetimes, "ASK_SECONDS", 0.1)
    provider.gate = threading.Event()

    assert ask_upstream(NOW) == 0

    provider.gate.set()
    assert not UpstreamModel.objects.exists()


@pytest.mark.parametrize("day", ["soon", "", 20270114, None, ["2027-01-14"], "2027-13-01"])
def test_a_day_that_cannot_be_read_is_none(provider: Provider, day: Any) -> None:
    provider.lists(one={"shutdown_date": day})

    assert ask_upstream(NOW) == 1

    assert read_told() == {}


def test_a_model_that_ends_soon_is_logged(provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    provider.lists(one={"shutdown_date": "2027-01-25"}, two={"shutdown_date": "2027-01-26"})

    ask_upstream(NOW)

    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["The provider shuts one down on 2027-01-25."]


@pytest.mark.parametrize(
    ("model", "day", "successor"),
    [
        ("gpt-4o-mini", "2027-01-14", "gpt-6-luna"),
        ("gpt-4o-mini-2024-07-18", "2027-01-14", "gpt-6-luna"),
        ("ft:gpt-4o-mini-2024-07-18:acme::A1b2", "2027-01-14", "gpt-6-luna"),
        ("gpt-5-mini", "2026-12-11", "gpt-6.1-terra"),
        # This snapshot has ended before its model.
        ("gpt-4o-2024-05-13", "2026-10-23", "gpt-5.6-sol"),
    ],
)
def test_what_openai_has_announced(settings: Settings, model: str, day: str, successor: str) -> None:
    settings.OPENAI_BASE_URL = "https://api.openai.com/v1"

    found = announced_shutdown(model)

    assert found
    assert (found.day.isoformat(), found.successor) == (day, successor)


@pytest.mark.parametrize("model", ["gpt-6-luna", "gpt-4o-audio-preview", "openai/gpt-4o-mini", "ft:", "local"])
def test_other_models_have_no_end(settings: Settings, model: str) -> None:
    settings.OPENAI_BASE_URL = "https://api.openai.com/v1"

    assert announced_shutdown(model) is None


@pytest.mark.parametrize(
    ("url", "is_openai"),
    [
        ("https://eu.api.openai.com/v1", True),
        ("https://team.openai.azure.com/openai/v1", False),
        ("https://not-api.openai.com/v1", False),
        ("http://127.0.0.1:8000/v1", False),
    ],
)
def test_what_openai_announces_is_of_its_own_servers(settings: Settings, url: str, is_openai: bool) -> None:
    settings.OPENAI_BASE_URL = url

    assert (announced_shutdown("gpt-4o") is not None) == is_openai


def test_what_the_provider_tells_goes_before_what_is_announced(settings: Settings) -> None:
    settings.OPENAI_BASE_URL = "https://api.openai.com/v1"
    settings.OPENAI_MODELS = ["gpt-4o", "gpt-4.1"]

    found = shutdowns({"gpt-4o": date(2027, 2, 1), "another": date(2027, 2, 1)})

    assert {name: end.day.isoformat() for name, end in found.items()} == {
        "gpt-4o": "2027-02-01",
        "gpt-4.1": "2027-01-14",
    }
    assert found["gpt-4o"].successor == "gpt-6-luna"


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b'{"data": []}', "answers in "),
        (200, b"<html>", "answers, but with no JSON"),
        (401, b"{}", "refuses OPENAI_API_KEY (status 401)"),
        (404, b"not here", "answers, and has no list of models (status 404)"),
        (500, b"", "answers with status 500"),
    ],
)
def test_whether_the_provider_can_be_reached_is_told(provider: Provider, status: int, body: bytes, words: str) -> None:
    provider.status, provider.body = status, body

    contact.ask()

    assert contact.words().startswith(words)


def test_a_provider_that_is_away_is_told(settings: Settings) -> None:
    settings.OPENAI_BASE_URL = "http://127.0.0.1:9/v1"

    contact.ask()

    assert contact.words() == "cannot be reached (NewConnectionError)"


def test_settings_that_allow_no_call_are_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    settings.OPENAI_BASE_URL = "https://127.0.0.1:9/v1"

    assert contact.ask() is False
    assert contact.words() == "cannot be called (FileNotFoundError)"
