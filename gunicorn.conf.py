"""Settings of the server. It runs greenlets, because a turn mostly waits. GUNICORN_CMD_ARGS overrides any setting."""

from gevent import get_hub, monkey

# First, because the application is loaded before the workers are forked, and nothing of it may hold what blocks.
monkey.patch_all()

import gc

# Nothing is garbage while the application is loaded: the collector would only look at all of it, again and again.
gc.disable()

import os
import resource
import sqlite3
import ssl
import sys
import threading
from importlib import import_module
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from gunicorn.arbiter import Arbiter

from llmapi import counts

# Before anything imports prometheus_client.
counts.open_folder()

try:
    from llmapi import environment, memory, settings, tether

    port = environment.number("PORT", 8080, least=1, most=65535)
except ImproperlyConfigured as exc:
    raise SystemExit(f"llmapi: {exc}") from exc

memory.return_large_blocks()
workers = settings.WEB_CONCURRENCY
wsgi_app = "llmapi.wsgi"
bind = f"127.0.0.1:{port}"
worker_class = "llmapi.worker.Worker"
# Files of a process beside the connections of its clients: calls to the model, and what it reads and writes.
OTHER_FILES = 2500
# More than the requests that one process has under way (chat/api/sharing.py): the others wait to be told that it is
# busy. Each takes a file, of which the system may allow few, and 25 kB.
worker_connections = 5000
SOFT, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)
if HARD != resource.RLIM_INFINITY:
    worker_connections = min(worker_connections, max(HARD - OTHER_FILES, HARD // 2))
# Workers share the memory of what is loaded before they are forked, as long as they do not write to it.
preload_app = True
# What would be loaded at the first request, and then by each worker for itself.
LATE_IMPORTS = [settings.ROOT_URLCONF, *([] if settings.IS_SQLITE else ["psycopg_pool"])]
# Seconds. Each connection takes one of `worker_connections`.
keepalive = 5
# Seconds. A stop waits this long for turns to end, minus the time to settle the rest.
graceful_timeout = 30
loglevel = "warning"
logger_class = "llmapi.server_log.ServerLogger"
# llmapi.wsgi reads SCRIPT_NAME. gunicorn itself would answer 500 to each path that does not begin with it, and take it
# from a header as well, which strangers can send where the proxy lets it pass.
os.environ.pop("SCRIPT_NAME", None)
forwarder_headers = ""
control_socket_disable = True


def on_starting(server: Any) -> None:
    from llmapi import checks

    tether.follow(monkey.get_original("_thread", "start_new_thread"))
    checks.refuse_dangers(server.cfg.address)
    files = worker_connections + OTHER_FILES
    if SOFT != resource.RLIM_INFINITY and files > SOFT:
        # Many systems allow 1024 unless asked for more.
        allowed = files if HARD == resource.RLIM_INFINITY else min(files, HARD)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, HARD))


def when_ready(server: Any) -> None:
    """Load the rest before the first worker is forked, and keep the garbage collector from writing to any of it."""
    from genai_prices.data_snapshot import get_snapshot

    from analytics import instruments
    from chat import tracing

    instruments.prepare()
    for name in (*LATE_IMPORTS, *(tracing.MODULES if settings.OTEL_EXPORTER_OTLP_ENDPOINT else ())):
        import_module(name)
    get_snapshot()
    # OpenSSL loads its algorithms with the first context.
    ssl.create_default_context()
    gc.collect()
    gc.freeze()
    gc.enable()


def on_reload(server: Any) -> None:
    # This file has been read again.
    gc.enable()


def post_worker_init(worker: Any) -> None:
    # Threads and connections belong to one process, so they begin only here.
    from chat import background, tracing
    from chat.turns import broadcast, lanes, registry
    from chat.upstream import contact
    from llmapi import observe, version
    from llmapi.logging import log_crash, log_crashes

    log_crashes()
    hub: Any = get_hub()
    hub.print_exception = lambda context, *crash: log_crash(*crash)
    refuse_unmigrated()
    observe.start()
    tracing.start(version.VERSION)
    threading.Thread(target=contact.ask, name="contact", daemon=True).start()
    background.start()
    lanes.open_all()
    broadcast.start()
    for module in (registry, broadcast):
        threading.Thread(target=module.watch, args=(lambda: worker.alive, turn_seconds(worker)), daemon=True).start()
    if settings.IS_SQLITE:
        # An open connection, so that SQLite keeps its write-ahead log between requests. When the last connection
        # closes, SQLite writes the log back and deletes it, which halves the speed.
        worker.held = sqlite3.connect(settings.DATABASES["default"]["NAME"], check_same_thread=False)
        worker.held.execute("SELECT count(*) FROM sqlite_master").fetchone()


def refuse_unmigrated() -> None:
    """End the server where its database lacks migrations. A database that is away for now is no reason not to start."""
    from django.db import Error, connection

    from llmapi import health

    try:
        missing = health.missing_migrations()
    except Error:
        return
    finally:
        connection.close()
    if missing:
        lacks = f"llmapi: The database lacks migrations ({health.describe(missing)}); run manage.py migrate."
        print(lacks, file=sys.stderr, flush=True)
        # With this status, gunicorn does not start the process again.
        raise SystemExit(Arbiter.WORKER_BOOT_ERROR)


def turn_seconds(worker: Any) -> float:
    """Return how many seconds a stop waits for turns."""
    from chat.turns import registry

    graceful: float = worker.cfg.graceful_timeout
    return max(graceful - registry.SETTLE_SECONDS, graceful / 2)


def worker_exit(server: Any, worker: Any) -> None:
    """Before the process ends, settle the turns that still run and write the refusals that were only counted."""
    from analytics import ledger
    from chat import tracing
    from chat.turns import broadcast, registry

    registry.wind_down(turn_seconds(worker))
    broadcast.flush(1)
    ledger.flush_at_exit()
    tracing.stop()


def child_exit(server: Any, worker: Any) -> None:
    """Take what a dead process had in use out of the sums; what it has counted stays in them."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def pre_exec(server: Any) -> None:
    """Before an upgrade: gunicorn gives the new master the environment that this one began with."""
    server.cfg.env_orig[counts.NAME] = os.environ[counts.NAME]


def on_exit(server: Any) -> None:
    counts.close_folder()
