"""Settings of the tests. They ignore the `.env` of the developer and use no real key."""

import os

os.environ.update(
    ENV_FILE=os.devnull,
    SECRET_KEY="a-secret-key-for-tests-that-is-long-enough-for-check",
    DATABASE_URL=os.environ.get("TEST_DATABASE_URL", "sqlite:///test.sqlite3"),
    OPENAI_API_KEY="sk-test-0123456789",
    OPENAI_BASE_URL="http://127.0.0.1:9/v1",
    OPENAI_MODEL="gpt-4o-mini",
    OPENAI_MODELS="gpt-4o,smollm2-135m",
    CLIENT_API_TOKEN="token-of-the-setting-0123456789",
    IDEMPOTENCY_WAIT_SECONDS="0",
    UPSTREAM_TIMEOUT_SECONDS="5",
    RATE_LIMIT_PER_MIN="1000",
    METRICS_PUBLIC="false",
    LOG_FORMAT="logfmt",
    # Thousands of tests commit, and none pulls the plug of the database: bench.faults does, with a server of its own.
    PGOPTIONS="-c synchronous_commit=off",
)
for name in (
    *("ALLOWED_HOSTS", "CORS_ALLOWED_ORIGINS", "DEBUG", "SYSTEM_PROMPT", "MAX_REQUEST_BYTES"),
    *("OTEL_EXPORTER_OTLP_ENDPOINT", "PGBOUNCER", "REPLICA_DATABASE_URL", "SCRIPT_NAME"),
    *("CLIENT_API_TOKEN_FALLBACKS", "SECRET_KEY_FALLBACKS", "TRUSTED_PROXIES", "UPSTREAM_FIELDS"),
):
    os.environ.pop(name, None)


from llmapi.settings import *  # noqa: E402, F403

# Hundreds of tests create a staff user. A slow hash would only slow them down.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
