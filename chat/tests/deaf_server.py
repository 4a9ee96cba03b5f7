"""A server whose LISTEN is accepted and hears nothing, as behind PgBouncer in transaction mode."""

from runpy import run_path
from typing import Any

original = run_path("gunicorn.conf.py")
globals().update(original)


def post_worker_init(worker: Any) -> None:
    import psycopg

    from chat.turns import broadcast

    execute = psycopg.Connection.execute

    def execute_but_listen(self: psycopg.Connection, query: Any, *arguments: Any, **options: Any) -> Any:
        return execute(self, "SELECT 1" if query.startswith("LISTEN") else query, *arguments, **options)

    psycopg.Connection.execute = execute_but_listen  # type: ignore[assignment]
    broadcast.ECHO_SECONDS = 1
    original["post_worker_init"](worker)
