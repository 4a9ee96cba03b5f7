"""Django's settings. Operators set theirs in the environment or in `.env`; the environment wins over the file.

`.env.example` documents each of them.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from chat.api import fields
from llmapi import defaults
from llmapi.database import POOL_SECONDS, fail_waiting
from llmapi.files import make_private

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
ENV_FILE = os.environ.get("ENV_FILE") or BASE_DIR / ".env"
with suppress(OSError):  # It is somebody else's file, and theirs to protect.
    make_private(ENV_FILE)
env.read_env(ENV_FILE)


def text(name: str, default: str = "") -> str:
    """Return a setting. An empty value means unset, because `.env.example` lists settings as `NAME=`."""
    return env.str(name, default="").strip() or default


def words(name: str) -> list[str]:
    return [word.strip() for word in text(name).split(",") if word.strip()]


def model_names(entries: list[str]) -> tuple[list[str], dict[str, str]]:
    """Read entries of the form `model` or `name=model`. Return all names, and the model behind each alias."""
    names: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for entry in entries:
        name, equals, model = (part.strip() for part in entry.partition("="))
        if not name or (equals and not model):
            raise ImproperlyConfigured(
                f"OPENAI_MODELS holds {entry!r}; write a model, or name=model for an alias of it."
            )
        names[name] = name
        if equals:
            aliases[name] = model
    return list(names), aliases


def number(name: str, default: int, *, least: int = 0) -> int:
    value = text(name, str(default))
    if not value.isdecimal() or int(value) < least:
        raise ImproperlyConfigured(f"{name} is {value!r}; set it to a whole number of at least {least}.")
    return int(value)


def flag(name: str) -> bool:
    value = text(name, "false").lower()
    if value not in {"true", "false", "1", "0", "yes", "no", "on", "off"}:
        raise ImproperlyConfigured(f"{name} is {value!r}; set it to true or false.")
    return value in {"true", "1", "yes", "on"}


def choice(name: str, *choices: str) -> str:
    """Return one of the choices; the first by default."""
    value = text(name, choices[0]).upper()
    if value not in choices:
        raise ImproperlyConfigured(f"{name} is {value!r}; set it to {' or '.join(choices)}.")
    return value


def database(setting: str, default: str) -> dict[str, Any]:
    """Return Django's settings for SQLite or PostgreSQL, tuned for short transactions in many greenlets.

    `setting` names the setting that holds the URL.
    """
    url = text(setting, default)
    hint = "use sqlite:///db.sqlite3 or postgres://user:password@host:5432/name."
    if not url.startswith(("sqlite://", "postgres://", "postgresql://")):
        raise ImproperlyConfigured(f"{setting} must name a SQLite or PostgreSQL database; {hint}")
    try:
        config: dict[str, Any] = dict(env.db_url_config(url))
    except ValueError as exc:  # for example a port that is no number
        raise ImproperlyConfigured(f"{setting} cannot be read; {hint}") from exc
    # Ours let nothing wait for long.
    config["ENGINE"] = config["ENGINE"].replace("django.db.backends", "llmapi.backends")
    if config["ENGINE"] == "llmapi.backends.sqlite3":
        name = config["NAME"] if config["NAME"] == ":memory:" else str(BASE_DIR / config["NAME"])
        # WAL lets others read while one writes. IMMEDIATE takes the write lock when a transaction begins, so no
        # transaction fails halfway because another holds the lock.
        synchronous = choice("SQLITE_SYNCHRONOUS", "NORMAL", "FULL")
        options = {
            "transaction_mode": "IMMEDIATE",
            # No wait that stops the process: chat.database.wait_for_lock waits.
            "timeout": 0,
            "init_command": f"PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous};",
        }
        # A file, because tests also run real server processes, which must see the same database.
        return {**config, "NAME": name, "OPTIONS": options, "TEST": {"NAME": str(BASE_DIR / "test.sqlite3")}}
    size = number("DATABASE_POOL_SIZE", 8, least=1)
    pool = {
        "min_size": 0,
        # One more for the background jobs, which may keep theirs for seconds.
        "max_size": size + 1,
        # Some hundred requests may wait for a connection. Further ones get a 503 at once.
        "timeout": POOL_SECONDS,
        "max_waiting": 64 * size,
        "reconnect_timeout": 0,
        "reconnect_failed": fail_waiting,
    }
    # Seconds to connect, and milliseconds that the server may leave a packet without an acknowledgement.
    options = {**config.get("OPTIONS", {}), "pool": pool, "connect_timeout": 2, "tcp_user_timeout": 3000}
    return {
        **config,
        "OPTIONS": options,
        # A cursor of the server lives in one session, and each transaction gets another one.
        "DISABLE_SERVER_SIDE_CURSORS": PGBOUNCER,
    }


# --- settings of operators ---

SECRET_KEY = text("SECRET_KEY")
if not SECRET_KEY:
    raise ImproperlyConfigured("SECRET_KEY is not set; put a long random value in .env (`make run` writes one).")
DEBUG = flag("DEBUG")
ALLOWED_HOSTS = words("ALLOWED_HOSTS") or ["localhost", "127.0.0.1", "[::1]"]
LOOPBACK_ONLY = set(ALLOWED_HOSTS) <= {"localhost", ".localhost", "127.0.0.1", "[::1]"}

OPENAI_API_KEY = text("OPENAI_API_KEY")
OPENAI_BASE_URL = text("OPENAI_BASE_URL", "https://api.openai.com/v1")
OPENAI_MODEL = text("OPENAI_MODEL", defaults.OPENAI_MODEL)
# The names by which clients may ask for a model, and the models that stand behind those that are only names.
OPENAI_MODELS, MODEL_ALIASES = model_names([OPENAI_MODEL, *words("OPENAI_MODELS")])
# Context size of a model that genai-prices does not know.
OPENAI_CONTEXT_TOKENS = number("OPENAI_CONTEXT_TOKENS", 8192, least=256)
# Tokens of history that one turn may send, as estimated; 0: what fits the model.
HISTORY_TOKENS = number("HISTORY_TOKENS", 16_000)
SYSTEM_PROMPT = text("SYSTEM_PROMPT")
# How hard OpenAI's reasoning models think where the client does not say: none, minimal, low, medium, high, xhigh.
OPENAI_REASONING_EFFORT = text("OPENAI_REASONING_EFFORT", "none")
# Fields of a reply that this upstream wants back with the history, beside OpenAI's own.
UPSTREAM_MESSAGE_FIELDS = words("UPSTREAM_MESSAGE_FIELDS")
# Fields of a completion that OpenAI does not know and the upstream does. They are passed on as they are.
UPSTREAM_FIELDS = words("UPSTREAM_FIELDS")
if own := [name for name in UPSTREAM_FIELDS if name in fields.OWN]:
    raise ImproperlyConfigured(f"UPSTREAM_FIELDS names {own[0]}, which is llmapi's own; name fields of the upstream.")

CLIENT_API_TOKEN = text("CLIENT_API_TOKEN")
RATE_LIMIT_PER_MIN = number("RATE_LIMIT_PER_MIN", 30)
# Turns that one process runs at once. Further requests get a 503.
MAX_RUNNING_TURNS = number("MAX_RUNNING_TURNS", 1000, least=1)
MAX_REQUEST_BYTES = number("MAX_REQUEST_BYTES", 20 * 1024 * 1024, least=1024)
METRICS_PUBLIC = flag("METRICS_PUBLIC")
# Proxies in front that add an address to X-Forwarded-For.
TRUSTED_PROXIES = number("TRUSTED_PROXIES", 0)
# Whole days for which usage and analytics events are kept; 0 means for ever. At least 2, because events of yesterday
# may still arrive today.
RAW_RETENTION_DAYS = number("RAW_RETENTION_DAYS", 0)
if RAW_RETENTION_DAYS == 1 or RAW_RETENTION_DAYS > 36_500:
    hint = "set it to 2 to 36500 days, or to 0 to keep all rows"
    raise ImproperlyConfigured(f"RAW_RETENTION_DAYS is {RAW_RETENTION_DAYS}; {hint}.")

# Seconds that the upstream may be silent in a stream, or take for a whole answer; and seconds that a request waits
# for a duplicate that still runs.
UPSTREAM_TIMEOUT_SECONDS = number("UPSTREAM_TIMEOUT_SECONDS", 300, least=1)
IDEMPOTENCY_WAIT_SECONDS = number("IDEMPOTENCY_WAIT_SECONDS", 25)

# DATABASE_URL is that of a PgBouncer in transaction mode.
PGBOUNCER = flag("PGBOUNCER")
DATABASES = {"default": database("DATABASE_URL", "sqlite:///db.sqlite3")}
DATABASE_ROUTERS = ["llmapi.routers.ReplicaRouter"]
if text("REPLICA_DATABASE_URL"):
    DATABASES["replica"] = database("REPLICA_DATABASE_URL", "")
    if DATABASES["replica"]["ENGINE"] != DATABASES["default"]["ENGINE"]:
        raise ImproperlyConfigured("REPLICA_DATABASE_URL must name a replica of the database that DATABASE_URL names.")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Django ---

INSTALLED_APPS = [
    "llmapi.apps.ProjectConfig",
    "chat",
    "analytics",
    "corsheaders",
    "csp",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "llmapi.apps.DashboardConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "llmapi.connections.ConnectionMiddleware",
    "llmapi.logging.RequestLogMiddleware",
    "llmapi.middleware.PrivateAnswersMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "llmapi.middleware.ContentSecurityPolicyMiddleware",
    "llmapi.cors.AnyHeaderCorsMiddleware",
    "chat.api.sharing.SharingMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "llmapi.middleware.FormSizeMiddleware",
    "llmapi.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "llmapi.middleware.AuthenticationMiddleware",
    "llmapi.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "chat.api.limits.LimitsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "DIRS": [BASE_DIR / "clients" / "web" / "templates"],
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

ROOT_URLCONF = "llmapi.urls"
WSGI_APPLICATION = "llmapi.wsgi.application"
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
FORMAT_MODULE_PATH = "llmapi.formats"
USE_TZ = True
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "clients" / "web" / "static"]
# Static files are served from where the packages keep them, so there is no collectstatic step.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

PASSWORD_HASHERS = ["llmapi.login.hashing.BesideHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "llmapi.login.passwords.MaximumLengthValidator"},
]

# --- security ---

SILENCED_SYSTEM_CHECKS = [
    # HSTS for subdomains and the browsers' preload list bind a whole domain. The owner of the domain decides that.
    "security.W005",
    "security.W021",
    # TLS ends at the proxy in front, which must also redirect to HTTPS. A redirect from here would come too late: the
    # client would have sent its token unencrypted.
    "security.W008",
]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not LOOPBACK_ONLY
SECURE_HSTS_SECONDS = 0 if LOOPBACK_ONLY else 31_536_000
SECURE_REFERRER_POLICY = "same-origin"
CSRF_TRUSTED_ORIGINS = [f"https://{'*' if host.startswith('.') else ''}{host}" for host in ALLOWED_HOSTS if host != "*"]
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],
        "object-src": [NONE],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_REQUEST_BYTES
# Outside of the API there are only forms of the admin. The longest has some hundred permissions.
MAX_FORM_BYTES = 64 * 1024

CORS_ALLOWED_ORIGINS = words("CORS_ALLOWED_ORIGINS")
CORS_URLS_REGEX = r"^/v1/"
CORS_ALLOW_METHODS = ["GET", "POST", "DELETE", "OPTIONS"]
# Those that are asked for are allowed as well.
CORS_ALLOW_HEADERS = ["accept", "authorization", "content-type", "idempotency-key"]
CORS_EXPOSE_HEADERS = ["idempotent-replayed", "ratelimit", "ratelimit-policy", "retry-after"]
CORS_EXPOSE_HEADERS += [
    f"x-ratelimit-{part}-{unit}" for part in ("limit", "remaining", "reset") for unit in ("requests", "tokens")
]
CORS_EXPOSE_HEADERS += ["x-request-id", "x-should-retry"]

# --- DRF ---

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["chat.api.authentication.ClientTokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["chat.api.authentication.IsClient"],
    "DEFAULT_THROTTLE_CLASSES": ["chat.api.limits.ClientThrottle"],
    "DEFAULT_PARSER_CLASSES": ["chat.api.parsers.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_METADATA_CLASS": "chat.api.options.NoMetadata",
    "EXCEPTION_HANDLER": "chat.exceptions.answer_error",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "llmapi",
    "DESCRIPTION": "A chat backend: conversations, idempotent turns, limits, usage and metrics over one OpenAI key.",
    "VERSION": "1.0.0",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "COMPONENT_SPLIT_REQUEST": True,
    "OAS_VERSION": "3.1.1",
    "CONTACT": {"name": "The operator of this server"},
    "TAGS": [
        {"name": "Chat", "description": "Messages and replies."},
        {"name": "Conversations", "description": "What the server remembers."},
        {"name": "Models", "description": "The models that a client may name."},
        {"name": "Events", "description": "What only the client sees."},
        {"name": "Usage", "description": "What a client has used, and what is left of its limits."},
        {"name": "Metrics", "description": "Who uses the service, how well it works, and what it costs."},
        {"name": "Operation", "description": "Probes of the server."},
    ],
    "POSTPROCESSING_HOOKS": ["llmapi.openapi.complete"],
    "SWAGGER_UI_SETTINGS": {"persistAuthorization": False, "displayRequestDuration": True},
}

# --- logs ---

LOG_FORMAT = "time=%(asctime)s level=%(levelname)s logger=%(name)s request_id=%(request_id)s %(message)s"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"logfmt": {"()": "llmapi.logging.LogfmtFormatter", "format": LOG_FORMAT}},
    "filters": {
        "has_traceback": {"()": "llmapi.logging.HasTraceback"},
        "few_refusals": {"()": "llmapi.logging.FewRefusals"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "logfmt"}},
    "root": {"handlers": ["stderr"], "level": "DEBUG" if DEBUG else "INFO"},
    "loggers": {
        "llmapi.logging": {"filters": ["few_refusals"]},
        "django": {"level": "INFO"},
        "django.request": {"level": "ERROR", "filters": ["has_traceback"]},
        # A stranger can send any host, and our own line tells that it was refused.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        # So can a form without a token. Its path may be long.
        "django.security.csrf": {"level": "CRITICAL"},
        "django.server": {"level": "CRITICAL"},
        "django.db.backends": {"level": "WARNING"},
        # It repeats on every retry what the failed request tells once.
        "psycopg.pool": {"level": "ERROR"},
        # At level DEBUG these log prompts, replies and keys.
        "openai": {"level": "WARNING"},
        "httpx2": {"level": "WARNING"},
        "httpcore2": {"level": "WARNING"},
    },
}
