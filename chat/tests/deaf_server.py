"""A server whose LISTEN is accepted and hears nothing, as behind PgBouncer in transaction mode."""

from runpy import run_path
from typing import Any

original = run_path("gunicorn.conf.py")
globals().update(original)


def post_worker_init(worker: Any) -> None:
    from chat.turns import broadcast

    broadcast.ECHO_SECONDS = 0
    broadcast.NOTIFY = "SELECT %s::text[], %s::text[]"
    original["post_worker_init"](worker)
