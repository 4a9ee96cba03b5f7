"""Settings, checks, the schema, and what is open to everybody."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine
import yaml
from django.core.checks import run_checks
from django.db import OperationalError
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from chat.models import UpstreamModel
from llmapi.checks import check_model_shutdowns
from llmapi.launch import ROOT, write_env

SAFE = {
    "ALLOWED_HOSTS": ["chat.example.com"],
    "LOOPBACK_ONLY": False,
    "SECRET_KEY": "s3cret-" * 10,
    "CLIENT_API_TOKEN": "0123456789-0123456789",
    "METRICS_PUBLIC": False,
    "DEBUG": False,
    "OPENAI_API_KEY": "sk-x",
    "OPENAI_BASE_URL": "https://api.openai.com/v1",
    "OPENAI_MODELS": ["gpt-6-luna"],
    "SESSION_COOKIE_SECURE": True,
    "CSRF_COOKIE_SECURE": True,
    "SECURE_HSTS_SECONDS": 3600,
}


def problems(settings: Settings, **values: Any) -> set[str]:
    for name, value in {**SAFE, **values}.items():
        setattr(settings, name, value)
    return {str(p.id) for p in run_checks(include_deployment_checks=True) if not p.is_silenced()}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, set()),
        ({"CLIENT_API_TOKEN": ""}, set()),
        ({"CLIENT_API_TOKEN": "dev-token"}, {"llmapi.E001"}),
        ({"CLIENT_API_TOKEN_FALLBACKS": ["long-enough-token-0123456789", "dev-token"]}, {"llmapi.E001"}),
        ({"SECRET_KEY": "short-but-0f-many-different-chars"}, {"llmapi.E002", "security.W009"}),
        ({"ALLOWED_HOSTS": ["*"]}, {"llmapi.E003"}),
        ({"METRICS_PUBLIC": True}, {"llmapi.E004"}),
        ({"DEBUG": True}, {"llmapi.E005", "security.W018"}),
        ({"OPENAI_API_KEY": ""}, {"llmapi.E006"}),
        ({"OPENAI_MODELS": ["gpt-6-luna", "gpt-4o"]}, {"llmapi.W001"}),
    ],
)
def test_unsafe_values_are_refused(settings: Settings, values: dict[str, Any], expected: set[str]) -> None:
    assert problems(settings, **values) == expected


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (datetime(2026, 11, 14, tzinfo=UTC), None),
        (datetime(2026, 11, 15, tzinfo=UTC), "The provider shuts gpt-4o down on 2027-01-14."),
        (datetime(2027, 1, 14, tzinfo=UTC), "The provider has shut gpt-4o down on 2027-01-14."),
    ],
)
def test_a_model_that_ends_is_told_two_months_before(settings: Settings, now: datetime, said: str | None) -> None:
    settings.OPENAI_BASE_URL, settings.OPENAI_MODELS = "https://api.openai.com/v1", ["gpt-4o"]

    with time_machine.travel(now):
        found = run_checks()

    assert [problem.msg for problem in found if problem.id == "llmapi.W001"] == ([said] if said else [])
    assert all("gpt-6-luna" in (problem.hint or "") for problem in found)


def test_what_the_provider_tells_is_checked_with_the_database(db: None, settings: Settings) -> None:
    UpstreamModel.objects.create(name="gpt-4o", shutdown_date=timezone.now().date(), asked_at=timezone.now())

    assert run_checks() == []
    (found,) = run_checks(databases=["default"])
    assert found.id == "llmapi.W001"


def test_checks_pass_before_the_database_is_migrated(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OperationalError("no such table: upstream_models")

    monkeypatch.setattr("chat.upstream.lifetimes.read_told", fail)

    assert check_model_shutdowns(None, databases=["default"]) == []


def test_unsafe_values_are_allowed_on_this_machine_only(settings: Settings) -> None:
    loopback = {"LOOPBACK_ONLY": True, "ALLOWED_HOSTS": ["localhost"]}
    found = problems(settings, **loopback, CLIENT_API_TOKEN="dev-token", METRICS_PUBLIC=True, DEBUG=True)
    assert not any(problem.startswith("llmapi") for problem in found)


@pytest.mark.parametrize("value", ["true", "false"])
def test_pgbouncer_takes_no_cursors_of_a_session(value: str) -> None:
    env = {**os.environ, "DATABASE_URL": "postgres://127.0.0.1/llmapi", "PGBOUNCER": value}
    code = "from llmapi import settings; print(settings.DATABASES['default']['DISABLE_SERVER_SIDE_CURSORS'])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)

    assert result.stdout == f"{value.title()}\n"


def test_the_schema_describes_routes_bodies_and_errors(client: Client) -> None:
    schema = yaml.safe_load(client.get("/schema").content)

    assert set(schema["paths"]) == {
        "/v1/conversations",
        "/v1/conversations/{conversation_id}",
        "/v1/conversations/{conversation_id}/items",
        "/v1/conversations/{conversation_id}/items/{item_id}",
        "/v1/models/{model}",
        "/v1/chat/completions",
        "/v1/chat/completions.pb",
        "/v1/chat/completions/{request_id}/cancel",
        "/v1/models",
        "/v1/events",
        "/v1/usage",
        "/v1/sessions",
        "/v1/sessions/refresh",
        "/v1/sessions/current",
        "/metrics",
        "/metrics/{name}",
        "/metrics/{name}.csv",
        "/health",
        "/ready",
    }
    completion = schema["paths"]["/v1/chat/completions"]["post"]
    assert set(completion["requestBody"]["content"]) == {
        "application/json",
        "application/x-protobuf",
        "application/protobuf",
    }
    expected = {"200", "400", "401", "404", "406", "409", "411", "413", "415", "429", "500", "502", "503", "504"}
    assert set(completion["responses"]) == expected
    assert completion["security"] == [{"clientToken": []}]
    assert {parameter["name"] for parameter in completion["parameters"]} == {"Idempotency-Key"}
    assert schema["components"]["securitySchemes"]["clientToken"]["scheme"] == "bearer"
    fields = schema["components"]["schemas"]["CompletionInRequest"]["properties"]
    assert {"conversation_id", "message", "messages"} <= set(fields)


def test_the_first_run_writes_new_secrets(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENV_FILE", str(tmp_path / ".env"))

    assert write_env()
    written = (tmp_path / ".env").read_text()
    values = dict(line.split("=", 1) for line in written.splitlines() if line and not line.startswith("#"))
    assert len(values["SECRET_KEY"]) >= 50
    assert values["CLIENT_API_TOKEN"].startswith("llm_")
    assert values["METRICS_PUBLIC"] == ""
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    assert not write_env()
    assert (tmp_path / ".env").read_text() == written


HEADERS = [
    *("authorization", "content-type", "idempotency-key", "user-agent", "http-referer", "x-title", "x-requested-with"),
    *("openai-organization", "openai-project", "openai-beta", "x-client-request-id", "cache-control", "baggage"),
    *("traceparent", "tracestate", "sentry-trace", "x-stainless-lang", "x-stainless-of-a-later-sdk", "x-my-app"),
]
ORIGIN = "chrome-extension://abcdefghijklmnop"


def preflight(client: Client, origin: str, *headers: str) -> Any:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": ",".join(headers)}
    return client.options("/v1/models", headers={"origin": origin, **asked})


@pytest.mark.django_db
def test_cors_allows_only_the_listed_origins(client: Client, settings: Settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = [ORIGIN]

    allowed, other = preflight(client, ORIGIN, *HEADERS), preflight(client, "https://evil.example", *HEADERS)

    assert allowed["Access-Control-Allow-Origin"] == ORIGIN
    assert set(HEADERS) <= set(allowed["Access-Control-Allow-Headers"].replace(" ", "").split(","))
    assert "Access-Control-Allow-Origin" not in other
    assert "Access-Control-Allow-Headers" not in other


@pytest.mark.parametrize("asked", ["", "a b", "é", "a:b", "a,,b"])
def test_cors_repeats_nothing_but_names(client: Client, settings: Settings, asked: str) -> None:
    settings.CORS_ALLOWED_ORIGINS = [ORIGIN]

    allowed = preflight(client, ORIGIN, asked)["Access-Control-Allow-Headers"]

    assert allowed == "accept, authorization, content-type, idempotency-key"
