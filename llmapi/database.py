"""Django's settings of the databases; and failing at once while PostgreSQL cannot be reached.

The settings import this module, and gunicorn reads them before gevent patches the threads. So nothing of the pool or of
Django's database may be imported here until a pool calls.
"""

import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import environ
from django.core.exceptions import ImproperlyConfigured

from llmapi.env_file import ROOT
from llmapi.environment import choice, flag, number, refuse, text

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

# Seconds that a request waits for a connection of the pool.
POOL_SECONDS = 2


def databases() -> dict[str, dict[str, Any]]:
    """Return Django's DATABASES. Raises ImproperlyConfigured."""
    found = {"default": database("DATABASE_URL", "sqlite:///db.sqlite3")}
    if text("REPLICA_DATABASE_URL"):
        found["replica"] = database("REPLICA_DATABASE_URL", "")
        if found["replica"]["ENGINE"] != found["default"]["ENGINE"]:
            refuse("REPLICA_DATABASE_URL must name a replica of the database that DATABASE_URL names.")
    return found


def database(setting: str, default: str) -> dict[str, Any]:
    """Return Django's settings for SQLite or PostgreSQL, tuned for short transactions in many greenlets.

    `setting` names the setting that holds the URL.
    """
    url = text(setting, default)
    hint = "use sqlite:///db.sqlite3 or postgres://user:password@host:5432/name"
    if not url.startswith(("sqlite:///", "postgres://", "postgresql://")):
        refuse(f"{setting} must name a SQLite or PostgreSQL database; {hint}.")
    try:
        config: dict[str, Any] = dict(environ.Env.db_url_config(url))
    except ValueError as exc:  # What looks like the port is no number: a password may have ended early.
        hint += "; in a password, write / as %2F, ? as %3F, # as %23 and @ as %40"
        raise ImproperlyConfigured(f"{setting} cannot be read; {hint}.") from exc
    if config["NAME"] in {"", ":memory:"}:
        refuse(f"{setting} names no database; {hint}.")
    # Ours let nothing wait for long.
    config["ENGINE"] = config["ENGINE"].replace("django.db.backends", "llmapi.backends")
    return config | (sqlite(config) if config["ENGINE"].endswith("sqlite3") else postgresql(config))


def sqlite(config: dict[str, Any]) -> dict[str, Any]:
    # WAL lets others read while one writes. IMMEDIATE takes the write lock when a transaction begins, so no transaction
    # fails halfway because another holds the lock.
    synchronous = choice("SQLITE_SYNCHRONOUS", "NORMAL", "FULL")
    options = {
        "transaction_mode": "IMMEDIATE",
        # No wait that stops the process: chat.database.wait_for_lock waits.
        "timeout": 0,
        "init_command": f"PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous};",
    }
    # A file, because tests also run real server processes, which must see the same database.
    return {"NAME": str(ROOT / config["NAME"]), "OPTIONS": options, "TEST": {"NAME": str(ROOT / "test.sqlite3")}}


def postgresql(config: dict[str, Any]) -> dict[str, Any]:
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
    # DATABASE_URL may be that of a PgBouncer in transaction mode. A cursor of the server lives in one session, and each
    # transaction gets another one there.
    # In a URL, the folder of a socket has %2F for its slashes. Connections are kept by the pool, not by Django.
    host = unquote(config["HOST"])
    return {"HOST": host, "OPTIONS": options, "CONN_MAX_AGE": 0, "DISABLE_SERVER_SIDE_CURSORS": flag("PGBOUNCER")}


def fail_waiting(pool: "ConnectionPool[Any]") -> None:
    """Fail the requests that wait for a pool which could not connect, unless it has connections that may serve them.

    A closed pool fails its waiters. Django makes a new pool for the next request, and that one tries to connect again:
    so the service resumes as soon as the database does.
    """
    if not pool.get_stats().get("pool_size"):
        # In another thread: close() waits for this one.
        threading.Thread(target=replace_pool, args=(pool,), name="pool-closer", daemon=True).start()


def replace_pool(pool: "ConnectionPool[Any]") -> None:
    """Forget a pool, then close it. Django's own close_pool() closes it first, while requests still come to it."""
    from django.db import connections

    for connection in connections.all():
        pools = getattr(connection, "_connection_pools", {})
        if pools.get(connection.alias) is pool:
            pools.pop(connection.alias, None)
            pool.close()
