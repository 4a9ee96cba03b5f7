"""Checks before the server starts, however it is started, and in `manage.py check --deploy`."""

import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any

from django.conf import settings
from django.core.checks import ERROR, CheckMessage, Error, Warning, run_checks  # noqa: A004
from django.db import Error as DatabaseError
from django.utils import timezone

from chat import tracing
from chat.upstream import lifetimes

SAMPLE_TOKENS = {"change-me", "changeme", "dev-token", "secret", "test", "token", "your-token-here"}


def refuse_dangers(addresses: Sequence[object]) -> None:
    """Say on standard error what is wrong with the settings. Raises SystemExit where it is not safe to serve.

    `addresses`: where gunicorn listens.
    """
    found = run_checks(include_deployment_checks=not settings.LOOPBACK_ONLY)
    if settings.LOOPBACK_ONLY and not all(is_loopback(address) for address in addresses):
        # The names alone keep nobody out: a stranger can send any host.
        found += find_dangers()
    for problem in found:
        if not problem.is_silenced():
            print(f"{problem.msg} {problem.hint or ''}".strip(), file=sys.stderr)
    if any(problem.is_serious(ERROR) and not problem.is_silenced() for problem in found):
        sys.exit("llmapi: These settings are not safe for a server; correct them in .env or the environment.")


def is_loopback(address: object) -> bool:
    """Tell whether only this machine reaches where gunicorn listens: the path of a socket, or host and port."""
    if not isinstance(address, tuple):
        return True
    host = str(address[0])
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"


def check_exposed_server(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Check what must be safe before others can reach the server, which they can by a host that is not loopback."""
    return [] if settings.LOOPBACK_ONLY else list(find_dangers())


def find_dangers() -> Iterator[CheckMessage]:
    for name, tokens in (
        ("CLIENT_API_TOKEN", [settings.CLIENT_API_TOKEN]),
        ("CLIENT_API_TOKEN_FALLBACKS", settings.CLIENT_API_TOKEN_FALLBACKS),
    ):
        if any(token and (token.lower() in SAMPLE_TOKENS or len(token) < 20) for token in tokens):
            hint = "Set it to 20 or more random characters, or leave it empty and use manage.py create_client_token."
            yield Error(f"{name} is a sample value or too short.", hint=hint, id="llmapi.E001")
    if len(settings.SECRET_KEY) < 40:
        hint = "Set it to 50 random characters. It signs the sessions of the admin."
        yield Error("SECRET_KEY is shorter than 40 characters.", hint=hint, id="llmapi.E002")
    if "*" in settings.ALLOWED_HOSTS:
        hint = "List the host names the server answers to, for example ALLOWED_HOSTS=chat.example.com."
        yield Error("ALLOWED_HOSTS allows every host.", hint=hint, id="llmapi.E003")
    if settings.METRICS_PUBLIC:
        hint = "Set METRICS_PUBLIC=false. Staff and client tokens with the permission can still read metrics."
        yield Error("METRICS_PUBLIC=true shows everybody who uses the service.", hint=hint, id="llmapi.E004")
    if settings.DEBUG:
        yield Error("DEBUG=true shows everybody settings and code.", hint="Set DEBUG=false.", id="llmapi.E005")
    if not settings.OPENAI_API_KEY and "://api.openai.com" in settings.OPENAI_BASE_URL:
        hint = "Set OPENAI_API_KEY, or set OPENAI_BASE_URL to a server that needs no key."
        yield Error("OPENAI_API_KEY is not set, so no message can be answered.", hint=hint, id="llmapi.E006")


def check_traces(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Refuse to send traces without what sends them."""
    if not settings.OTEL_EXPORTER_OTLP_ENDPOINT or all(map(is_installed, tracing.MODULES)):
        return []
    hint = "Run pip install --require-hashes -r requirements-otel.lock, or leave the setting empty."
    return [Error("OTEL_EXPORTER_OTLP_ENDPOINT is set, and OpenTelemetry is missing.", hint=hint, id="llmapi.E007")]


def is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it
        return False


def check_model_shutdowns(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Warn of models that end soon, or have ended. What the provider has told is in the database."""
    try:
        told = lifetimes.read_told() if databases else {}
    except DatabaseError:  # it is not migrated yet
        told = {}
    today = timezone.now().date()
    return [
        Warning(lifetimes.describe(model, shutdown, today), hint=lifetimes.advise(model, shutdown), id="llmapi.W001")
        for model, shutdown in lifetimes.shutdowns(told).items()
        if shutdown.is_near(today)
    ]
