"""Every setting of `.env.example` with wrong values, and what is said: its name, what to change, and no secret."""

import os
import re
import runpy
import subprocess
import sys
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from llmapi import environment
from llmapi.database import database
from llmapi.launch import ROOT

SECRET = "s3cret-word"

# Of a setting: a wrong value, and a part of the sentence that is said.
WRONG = [
    ("OPENAI_API_KEY", f"“{SECRET}”", "at position 1; copy it again"),
    ("OPENAI_API_KEY", f"{SECRET} {SECRET}", f"has a space at position {len(SECRET) + 1}"),
    ("OPENAI_BASE_URL", "127.0.0.1:8000/v1", "does not begin with http"),
    ("OPENAI_BASE_URL", f"localhost:8000/{SECRET}", "does not begin with http"),
    ("OPENAI_BASE_URL", f"http://u:{SECRET}@:8000", "does not begin with http"),
    ("OPENAI_BASE_URL", f"http://u:{SECRET}@host:port/v1", "cannot be read"),
    ("OPENAI_BASE_URL", f"http://u:{SECRET}@[::1/v1", "cannot be read"),
    ("OPENAI_BASE_URL", f"http://host/v1?key={SECRET}", "has a ? or #"),
    ("OPENAI_BASE_URL", f"http://host/{SECRET} v1", "holds a space"),
    ("OPENAI_MODEL", "gpt 4", "holds 'gpt 4'"),
    ("OPENAI_MODELS", "gpt-6-sol,gpt-4o=", "write a model, or name=model"),
    ("OPENAI_MODELS", "=gpt-6-luna", "write a model, or name=model"),
    ("OPENAI_MODELS", "gpt-6-sol,*", "write a model, or name=model"),
    ("OPENAI_CONTEXT_TOKENS", "many", "whole number of at least 256"),
    ("OPENAI_CONTEXT_TOKENS", "255", "whole number of at least 256"),
    ("SYSTEM_PROMPT_FILE", "/nowhere/at/all", "cannot be read (No such file or directory)"),
    ("UPSTREAM_FIELDS", "top_k,messages", "names messages, which is llmapi's own"),
    ("UPSTREAM_MESSAGE_FIELDS", "reasoning,thoughts", "holds 'thoughts'; it may hold extra_content, "),
    ("OPENAI_REASONING_EFFORT", "very", "set it to none or minimal or low"),
    ("HISTORY_TOKENS", "-1", "whole number"),
    ("UPSTREAM_TIMEOUT_SECONDS", "0", "whole number of at least 1"),
    ("UPSTREAM_TIMEOUT_SECONDS", "5m", "whole number of at least 1"),
    ("CLIENT_API_TOKEN", f"{SECRET}…", f"at position {len(SECRET) + 1}"),
    ("CLIENT_API_TOKEN_FALLBACKS", f"{SECRET}, {SECRET}", f"a space at position {len(SECRET) + 2}"),
    ("RATE_LIMIT_PER_MIN", "many", "whole number"),
    ("RATE_LIMIT_PER_MIN", "٣", "whole number"),
    ("MAX_RUNNING_TURNS", "0", "whole number of at least 1"),
    ("MAX_REQUEST_BYTES", "20MB", "whole number of at least 1024"),
    ("IDEMPOTENCY_WAIT_SECONDS", "1.5", "whole number"),
    ("CORS_ALLOWED_ORIGINS", "*", "allows every page"),
    ("CORS_ALLOWED_ORIGINS", "chat.example.com", "write scheme and host alone"),
    ("CORS_ALLOWED_ORIGINS", "https://chat.example.com/", "write scheme and host alone"),
    ("SECRET_KEY", "", "put a long random value"),
    ("SECRET_KEY_FALLBACKS", f"“{SECRET}”", "at position 1"),
    ("DATABASE_URL", "mysql://localhost/x", "must name a SQLite or PostgreSQL database"),
    ("DATABASE_URL", "nonsense", "must name a SQLite or PostgreSQL database"),
    ("DATABASE_URL", "sqlite://db.sqlite3", "use sqlite:///db.sqlite3"),
    ("DATABASE_URL", "sqlite:///", "names no database"),
    ("DATABASE_URL", f"postgres://u:{SECRET}@host", "names no database"),
    ("DATABASE_URL", f"postgres://u:a/{SECRET}@host/name", "write / as %2F"),
    ("DATABASE_URL", f"postgres://u:a?{SECRET}@host/name", "? as %3F"),
    ("DATABASE_URL", f"postgres://u:{SECRET}@host:99999/name", "cannot be read"),
    ("SQLITE_SYNCHRONOUS", "OFF", "set it to NORMAL or FULL"),
    ("REPLICA_DATABASE_URL", "mysql://localhost/x", "must name a SQLite or PostgreSQL database"),
    ("PGBOUNCER", "transaction", "set it to true or false"),
    ("ALLOWED_HOSTS", "https://chat.example.com", "without scheme, port and path"),
    ("ALLOWED_HOSTS", "chat.example.com:443", "without scheme, port and path"),
    ("ALLOWED_HOSTS", "chat.example.com/bot", "without scheme, port and path"),
    ("TRUSTED_PROXIES", "10.0.0.1", "whole number"),
    ("SCRIPT_NAME", "bot", "set it to a path like /bot"),
    ("SCRIPT_NAME", "/bot/", "set it to a path like /bot"),
    ("SCRIPT_NAME", "https://chat.example.com/bot", "set it to a path like /bot"),
    ("SCRIPT_NAME", "/../bot", "set it to a path like /bot"),
    ("SCRIPT_NAME", "/v1/bot", "begins like a path of llmapi's own"),
    ("METRICS_PUBLIC", "maybe", "set it to true or false"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318", "set it to an address like http://127.0.0.1:4318"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://u:{SECRET}@:4318", "does not begin with http"),
    ("RAW_RETENTION_DAYS", "1", "2 to 36500 days"),
    ("LOG_FORMAT", "xml", "set it to logfmt or json or console"),
    ("DEBUG", "perhaps", "set it to true or false"),
    ("WEB_CONCURRENCY", "two", "whole number of at least 1"),
    ("WEB_CONCURRENCY", "0", "whole number of at least 1"),
    ("ALL_PROXY", f"socks5://u:{SECRET}@127.0.0.1:1080", "speaks 'socks5'; name one that speaks http, or put"),
    ("HTTPS_PROXY", f"socks5h://u:{SECRET}@127.0.0.1:1080", "speaks 'socks5h'; name one that speaks http, or put"),
    ("HTTPS_PROXY", f"http://u:{SECRET}@127.0.0.1:port", "cannot be read; set it to an address like http"),
    ("HTTPS_PROXY", f"u:{SECRET}@:3128", "does not begin with http:// or https:// and a host"),
    ("ALL_PROXY", f"http://“{SECRET}”:3128", "holds a space, or a letter that no address has"),
    ("SSL_CERT_FILE", f"/nowhere/{SECRET}", "cannot be read (No such file or directory)"),
    ("SSL_CERT_FILE", str(ROOT / "README.md"), "cannot be read (it holds no certificate)"),
    ("SSL_CERT_DIR", f"/nowhere/{SECRET}", "names no folder"),
]
# What gunicorn.conf.py reads, and manage.py does not.
WRONG_FOR_SERVERS = [
    ("PORT", "http", "whole number from 1 to 65535"),
    ("PORT", "70000", "whole number from 1 to 65535"),
    ("PORT", "0", "whole number from 1 to 65535"),
    ("DATABASE_POOL_SIZE", "none", "whole number of at least 1"),
]
# What is not documented there, because it is not llmapi's own.
OF_OTHERS = {"ALL_PROXY", "HTTPS_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"}
# It is read where there is such a database.
ON_POSTGRESQL = {"DATABASE_POOL_SIZE": "postgres://127.0.0.1:1/name"}


def load_settings(module: str, name: str, value: str) -> Any:
    """Load the settings in a process of their own, where `name` alone is wrong."""
    env = {key: word for key, word in os.environ.items() if not key.lower().endswith("_proxy")}
    env["DATABASE_URL"] = ON_POSTGRESQL.get(name, "sqlite:///db.sqlite3")
    return subprocess.run(
        [sys.executable, *module.split()],
        cwd=ROOT,
        env={
            **env,
            "OPENAI_BASE_URL": "https://api.openai.com/v1",
            name: value,
            "DJANGO_SETTINGS_MODULE": "llmapi.settings",
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("name", "value", "said"), WRONG)
def test_a_wrong_value_is_said_by_its_name(name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in [key for key in os.environ if key.lower().endswith("_proxy")]:
        monkeypatch.delenv(proxy)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.openai.com/v1")
    monkeypatch.setenv("DATABASE_URL", "sqlite:///db.sqlite3")
    monkeypatch.setenv(name, value)

    with pytest.raises(ImproperlyConfigured) as raised:
        # Again, in a namespace of its own.
        runpy.run_path(str(ROOT / "llmapi" / "settings.py"))

    sentence = str(raised.value)
    assert name.removesuffix("_FILE") in sentence
    assert said in sentence
    assert SECRET not in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(("name", "value", "said"), WRONG_FOR_SERVERS)
def test_a_server_says_what_it_alone_reads(name: str, value: str, said: str) -> None:
    done = load_settings("-m gunicorn -c gunicorn.conf.py --check-config", name, value)

    assert done.returncode == 1
    assert done.stderr.startswith(f"llmapi: {name} is {value!r}; ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "module", ["manage.py check", "-m gunicorn -c gunicorn.conf.py --check-config", "-m llmapi.prepare"]
)
def test_each_command_says_it_in_one_sentence(module: str) -> None:
    done = load_settings(module, "ALLOWED_HOSTS", "https://chat.example.com")

    assert done.returncode == 1
    assert re.fullmatch(r"llmapi: ALLOWED_HOSTS holds .*\n", done.stderr)


def test_every_setting_has_a_wrong_value() -> None:
    documented = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))

    tried = {name for name, _, _ in WRONG + WRONG_FOR_SERVERS} - OF_OTHERS
    assert {name.removesuffix("_FILE") for name in tried} == documented


@pytest.mark.parametrize(
    ("url", "host", "password"),
    [
        ("postgres://%2Fvar%2Frun%2Fpostgresql/name", "/var/run/postgresql", ""),
        ("postgres://u:a%2Fb%3Fc%23d%40e@host/name", "host", "a/b?c#d@e"),
        ("postgresql://u:$w0rd@[::1]:5433/name?sslmode=require", "::1", "$w0rd"),
        ("postgres:///name", "", ""),
        ("postgres://host/name?conn_max_age=600", "host", ""),
    ],
)
def test_addresses_of_postgresql(url: str, host: str, password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    found = database("DATABASE_URL", "")

    assert (found["HOST"], found["PASSWORD"], found["NAME"]) == (host, password, "name")
    # A pool refuses connections that Django keeps.
    assert found["CONN_MAX_AGE"] == 0


def test_a_setting_is_read_from_a_file(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbfsk-of-a-file\r\n")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(tmp_path / "key"))
    assert environment.secret("OPENAI_API_KEY") == "sk-of-a-file"

    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    with pytest.raises(ImproperlyConfigured, match="OPENAI_API_KEY and OPENAI_API_KEY_FILE are both set"):
        environment.secret("OPENAI_API_KEY")


def test_a_value_of_the_environment_means_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSTEM_PROMPT", "$5 coupons # and more")

    assert environment.text("SYSTEM_PROMPT") == "$5 coupons # and more"


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:3128", "127.0.0.1:3128", "https://proxy"])
def test_a_proxy_that_can_be_used(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", proxy)

    environment.check_proxy("https://api.openai.com/v1")


def test_a_proxy_that_is_not_asked_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1080")
    monkeypatch.setenv("no_proxy", "models.example")

    environment.check_proxy("https://models.example/v1")
