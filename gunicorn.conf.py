"""How the server runs: greenlets, because a turn is mostly waiting. GUNICORN_CMD_ARGS overrides any of it."""

import os
import sqlite3
import threading
from typing import Any

from django.core.exceptions import ImproperlyConfigured

try:
    from llmapi import settings
except ImproperlyConfigured as exc:
    raise SystemExit(f"llmapi: {exc}") from exc

IS_SQLITE = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")

wsgi_app = "llmapi.wsgi"
bind = f"127.0.0.1:{settings.number('PORT', 8080)}"
worker_class = "gevent"
worker_connections = 2000
# SQLite has one writer at a time, and waits for it badly: one process needs no waiting.
workers = settings.number("WEB_CONCURRENCY", 1 if IS_SQLITE else 2 * (os.cpu_count() or 1), least=1)
# Seconds. A stop waits for idle connections too, so they are not kept for long.
keepalive = 5
# Seconds. A stop lets turns end for this long, less what it takes to settle those that have not.
graceful_timeout = 30
loglevel = "warning"
control_socket_disable = True

# Held open so that SQLite keeps its write-ahead log between requests: when the last connection
# closes, it writes the log back and deletes it, which halves the speed.
_held: list[sqlite3.Connection] = []


def post_worker_init(worker: Any) -> None:
    from chat import background as chores
    from chat.turns import registry as running

    chores.start()
    threading.Thread(target=running.watch, args=(lambda: worker.alive, patience(worker)), daemon=True).start()
    if IS_SQLITE:
        held = sqlite3.connect(settings.DATABASES["default"]["NAME"], check_same_thread=False)
        held.execute("SELECT count(*) FROM sqlite_master").fetchone()
        _held.append(held)


def patience(worker: Any) -> float:
    """How long a stop waits for turns, in seconds."""
    from chat.turns import registry as running

    graceful: float = worker.cfg.graceful_timeout
    return max(graceful - running.SETTLE_SECONDS, graceful / 2)


def worker_exit(server: Any, worker: Any) -> None:
    """Replies whose clients have gone are settled too, and what was counted is written, before the process ends."""
    from analytics.ledger import refusals
    from chat.turns import registry as running

    running.wind_down(patience(worker))
    refusals.flush_at_exit()
