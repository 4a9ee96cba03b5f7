"""Checks of what must be safe before others can reach the server. `make run` and `manage.py check --deploy` run them.

While ALLOWED_HOSTS holds only loopback hosts, nobody else can reach the server, and all of these checks pass.
"""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register

SAMPLE_TOKENS = {"change-me", "changeme", "dev-token", "secret", "test", "token", "your-token-here"}


def check_openai_key(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if settings.LOOPBACK_ONLY or settings.OPENAI_API_KEY or "://api.openai.com" not in settings.OPENAI_BASE_URL:
        return []
    hint = "Set OPENAI_API_KEY, or set OPENAI_BASE_URL to a server that needs no key."
    return [Error("OPENAI_API_KEY is not set, so no message can be answered.", hint=hint, id="llmapi.E006")]


def check_client_token(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    token = settings.CLIENT_API_TOKEN
    if settings.LOOPBACK_ONLY or not token or (token.lower() not in SAMPLE_TOKENS and len(token) >= 20):
        return []
    hint = "Set it to 20 or more random characters, or leave it empty and use manage.py create_client_token."
    return [Error("CLIENT_API_TOKEN is a sample value or too short.", hint=hint, id="llmapi.E001")]


def check_secret_key(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if settings.LOOPBACK_ONLY or len(settings.SECRET_KEY) >= 40:
        return []
    hint = "Set it to 50 random characters. It signs the sessions of the admin."
    return [Error("SECRET_KEY is shorter than 40 characters.", hint=hint, id="llmapi.E002")]


def check_hosts(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if "*" not in settings.ALLOWED_HOSTS:
        return []
    hint = "List the host names the server answers to, for example ALLOWED_HOSTS=chat.example.com."
    return [Error("ALLOWED_HOSTS allows every host.", hint=hint, id="llmapi.E003")]


def check_metrics(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if settings.LOOPBACK_ONLY or not settings.METRICS_PUBLIC:
        return []
    hint = "Set METRICS_PUBLIC=false. Staff and client tokens with the permission can still read metrics."
    return [Error("METRICS_PUBLIC=true shows everybody who uses the service.", hint=hint, id="llmapi.E004")]


def check_debug(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if settings.LOOPBACK_ONLY or not settings.DEBUG:
        return []
    return [Error("DEBUG=true shows everybody settings and code.", hint="Set DEBUG=false.", id="llmapi.E005")]


def register_all() -> None:
    for check in (check_client_token, check_secret_key, check_hosts, check_metrics, check_debug, check_openai_key):
        register(check, Tags.security, deploy=True)
