"""Django's settings. Operators set theirs in the environment or in `.env`; the environment wins over the file.

`.env.example` documents each of them.
"""

import os
import sys
from contextlib import suppress
from importlib.util import find_spec

from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from chat.api import fields
from chat.upstream.message_fields import RETURNABLE
from llmapi import defaults, env_file
from llmapi.database import databases
from llmapi.env_file import ROOT
from llmapi.environment import (
    check_proxy,
    check_trust,
    choice,
    flag,
    hosts,
    models,
    number,
    origins,
    prefix,
    refuse,
    secret,
    secrets,
    some_of,
    text,
    url,
    words,
)
from llmapi.files import make_private
from llmapi.version import VERSION

with suppress(OSError):  # It is somebody else's file, and theirs to protect.
    make_private(env_file.path_of())
try:
    env_file.load()
except env_file.UnreadableFile as exc:
    raise ImproperlyConfigured(str(exc)) from exc


# --- settings of operators ---

SECRET_KEY = text("SECRET_KEY")
if not SECRET_KEY:
    refuse("SECRET_KEY is not set; put a long random value in .env (`make run` writes one).")
# Sessions that an earlier or a coming key has signed stay valid.
SECRET_KEY_FALLBACKS = secrets("SECRET_KEY_FALLBACKS")
DEBUG = flag("DEBUG")
ALLOWED_HOSTS = hosts("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
LOOPBACK_ONLY = set(ALLOWED_HOSTS) <= {"localhost", ".localhost", "127.0.0.1", "[::1]"}

OPENAI_API_KEY = secret("OPENAI_API_KEY")
OPENAI_BASE_URL = url("OPENAI_BASE_URL", "https://api.openai.com/v1")
check_proxy(OPENAI_BASE_URL)
check_trust()
OPENAI_MODEL = text("OPENAI_MODEL", defaults.OPENAI_MODEL)
# The names by which clients may ask for a model, and the models that stand behind those that are only names.
OPENAI_MODELS, MODEL_ALIASES = models([OPENAI_MODEL, *words("OPENAI_MODELS")])
# Context size of a model that genai-prices does not know.
OPENAI_CONTEXT_TOKENS = number("OPENAI_CONTEXT_TOKENS", 8192, least=256)
# Tokens of history that one turn may send, as estimated; 0: what fits the model.
HISTORY_TOKENS = number("HISTORY_TOKENS", 16_000)
SYSTEM_PROMPT = text("SYSTEM_PROMPT")
# How hard OpenAI's reasoning models think where the client does not say: none, minimal, low, medium, high, xhigh.
OPENAI_REASONING_EFFORT = choice("OPENAI_REASONING_EFFORT", "none", "minimal", "low", "medium", "high", "xhigh")
# Fields of a reply that this upstream wants back with the history, beside OpenAI's own.
UPSTREAM_MESSAGE_FIELDS = some_of("UPSTREAM_MESSAGE_FIELDS", RETURNABLE)
# Fields of a completion that OpenAI does not know and the upstream does. They are passed on as they are.
UPSTREAM_FIELDS = words("UPSTREAM_FIELDS")
if own := [name for name in UPSTREAM_FIELDS if name in fields.OWN]:
    refuse(f"UPSTREAM_FIELDS names {own[0]}, which is llmapi's own; name fields of the upstream.")

CLIENT_API_TOKEN = secret("CLIENT_API_TOKEN")
# Other values that stand for the same client while the token is changed.
CLIENT_API_TOKEN_FALLBACKS = secrets("CLIENT_API_TOKEN_FALLBACKS")
RATE_LIMIT_PER_MIN = number("RATE_LIMIT_PER_MIN", 30)
# Turns that one process runs at once. Further requests get a 503.
MAX_RUNNING_TURNS = number("MAX_RUNNING_TURNS", 1000, least=1)
MAX_REQUEST_BYTES = number("MAX_REQUEST_BYTES", 20 * 1024 * 1024, least=1024)
METRICS_PUBLIC = flag("METRICS_PUBLIC", default=LOOPBACK_ONLY)
# The collector that traces are sent to; empty: none are made.
OTEL_EXPORTER_OTLP_ENDPOINT = text("OTEL_EXPORTER_OTLP_ENDPOINT") and url(
    "OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"
)
# Proxies in front that add an address to X-Forwarded-For.
TRUSTED_PROXIES = number("TRUSTED_PROXIES", 0)
# The path below which a proxy offers this server; None: at the root of its host.
FORCE_SCRIPT_NAME = prefix("SCRIPT_NAME") or None
# Whole days for which usage and analytics events are kept; 0 means for ever. At least 2, because events of yesterday
# may still arrive today.
RAW_RETENTION_DAYS = number("RAW_RETENTION_DAYS", 0)
if RAW_RETENTION_DAYS == 1 or RAW_RETENTION_DAYS > 36_500:
    hint = "set it to 2 to 36500 days, or to 0 to keep all rows"
    refuse(f"RAW_RETENTION_DAYS is {RAW_RETENTION_DAYS}; {hint}.")

# Seconds that the upstream may be silent in a stream, or take for a whole answer; and seconds that a request waits
# for a duplicate that still runs.
UPSTREAM_TIMEOUT_SECONDS = number("UPSTREAM_TIMEOUT_SECONDS", 300, least=1)
IDEMPOTENCY_WAIT_SECONDS = number("IDEMPOTENCY_WAIT_SECONDS", 25)

PGBOUNCER = flag("PGBOUNCER")
DATABASES = databases()
# One process on SQLite, because only PostgreSQL lets a process join the streams of others.
IS_SQLITE = DATABASES["default"]["ENGINE"].endswith("sqlite3")
WEB_CONCURRENCY = number("WEB_CONCURRENCY", 1 if IS_SQLITE else 2 * (os.cpu_count() or 1), least=1)
DATABASE_ROUTERS = ["llmapi.routers.ReplicaRouter"]
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
    "llmapi.observe.ObserveMiddleware",
    "llmapi.middleware.PrivateAnswersMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "llmapi.middleware.ContentSecurityPolicyMiddleware",
    "llmapi.cors.AnyHeaderCorsMiddleware",
    "chat.api.sharing.SharingMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "llmapi.middleware.FormSizeMiddleware",
    "llmapi.middleware.SessionMiddleware",
    "llmapi.middleware.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "llmapi.middleware.AuthenticationMiddleware",
    "llmapi.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "chat.api.limits.LimitsMiddleware",
]

if OTEL_EXPORTER_OTLP_ENDPOINT and find_spec("opentelemetry"):  # A check tells that it is missing.
    MIDDLEWARE.insert(MIDDLEWARE.index("llmapi.observe.ObserveMiddleware"), "llmapi.traces.TraceMiddleware")

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "DIRS": [ROOT / "clients" / "web" / "templates"],
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
STATIC_URL = f"{FORCE_SCRIPT_NAME or ''}/static/"
STATICFILES_DIRS = [ROOT / "clients" / "web" / "static"]
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
# Below a path, other applications of the same host do not see them.
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = f"{FORCE_SCRIPT_NAME or ''}/"
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

CORS_ALLOWED_ORIGINS = origins("CORS_ALLOWED_ORIGINS")
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
    "VERSION": VERSION,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "COMPONENT_SPLIT_REQUEST": True,
    "OAS_VERSION": "3.1.1",
    "CONTACT": {"name": "The operator of this server"},
    "TAGS": [
        {"name": "Chat", "description": "Messages and replies."},
        {"name": "Sessions", "description": "People of an app that cannot keep a secret."},
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

LOG_FORMATS = ("logfmt", "json", "console")
LOG_FORMAT = choice("LOG_FORMAT", *LOG_FORMATS) if text("LOG_FORMAT") else ""
if not LOG_FORMAT:
    LOG_FORMAT = "console" if sys.stderr and sys.stderr.isatty() else "logfmt"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {name: {"()": f"llmapi.log_formats.{name.capitalize()}Formatter"} for name in LOG_FORMATS},
    "filters": {
        "has_traceback": {"()": "llmapi.logging.HasTraceback"},
        "few_refusals": {"()": "llmapi.logging.FewRefusals"},
        "quiet": {"()": "llmapi.logging.Quiet"},
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": LOG_FORMAT,
            "filters": ["quiet"] if LOG_FORMAT == "console" else [],
        }
    },
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
        # It says of each batch what is tried again.
        "opentelemetry": {"level": "ERROR"},
        "httpx2": {"level": "WARNING"},
        "httpcore2": {"level": "WARNING"},
    },
}
