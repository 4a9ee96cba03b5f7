"""Measure what partitions by month cost a turn and spare a purge: `manage.py partition_ledger` on many rows.

    python -m bench.partitions --rows 10000000

It fills usage_events of a PostgreSQL server of its own, and prints a table in Markdown.
"""

# ruff: noqa: S608 (the statements are put together of constants)

import argparse
import io
import secrets
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from django.core.management import call_command

from bench.calls import tree_seconds
from bench.history import configure
from bench.postgres import OwnPostgres, own_postgres

REPEATS = 1000
MONTH_ROWS = 820_000
# Rows of one batch of the purge.
BATCH = 1000
COLUMNS = """request_id, client_token_id, user_id, conversation_id, model, served_model, app_version, status,
    error_code, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, total_tokens, is_estimated,
    cost_nanos, latency_ms, is_stream, is_cancel_asked, locked_until, created_at, finished_at"""
COLUMNS_BUT_TIMES = COLUMNS.removeprefix("request_id,").removesuffix("locked_until, created_at, finished_at")
# A year of turns that ends a year ago, so that a year of months follows it.
FILL = f"""
    INSERT INTO usage_events ({COLUMNS})
    SELECT 'r_' || md5(n::text), n %% 5 + 1, 'user ' || n %% 50000, 'c_' || md5((n / 6)::text), 'gpt-4o-mini', '',
        '1.0', 'completed', '', 100, 0, 50, 0, 150, false, 45000, 900, false, false, at, at, at
    FROM generate_series(1, %(rows)s) AS n, LATERAL (
        SELECT date_trunc('month', now()) - interval '1 year' - (%(rows)s - n + 1) * interval '1 year' / %(rows)s
    ) AS times(at)
"""
OPEN = f"""
    INSERT INTO usage_events ({COLUMNS})
    VALUES (%(id)s, 1, 'ann', 'c_1', 'gpt-4o-mini', '', '', 'pending', '', 0, 0, 0, 0, 0, false, NULL, NULL, false,
        false, now(), now(), NULL)
"""
SETTLE = """
    UPDATE usage_events SET status = 'completed', total_tokens = 150, finished_at = now()
    WHERE request_id = %(id)s AND status = 'pending'
"""
FILL_MONTH = f"""
    INSERT INTO usage_events ({COLUMNS})
    SELECT 'm_' || id, {COLUMNS_BUT_TIMES} at, at, at
    FROM (SELECT * FROM usage_events ORDER BY created_at LIMIT {MONTH_ROWS}) AS turns, LATERAL (
        SELECT %(month)s::timestamptz + (id %% 2000000) * interval '1 second'
    ) AS times(at)
"""
RECENT = SETTLE + " AND created_at > now() - interval '55 min'"
PREPARED = "the same, as a prepared statement"
STATEMENTS = {
    "open a turn": OPEN,
    "settle it, as a turn does: by id, among rows of the last hour": SETTLE
    + " AND created_at > now() - interval '55 min'",
    PREPARED: RECENT,
    "settle by id alone": SETTLE,
    "the newest 50 turns of a user": """
        SELECT * FROM usage_events WHERE user_id = %(user)s ORDER BY created_at DESC, id DESC LIMIT 50""",
    "the turns of a conversation": """
        SELECT * FROM usage_events WHERE conversation_id = %(conversation)s ORDER BY id DESC LIMIT 50""",
}
Figures = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, own_postgres(Path(scratch)) as postgres:
        configure(postgres.url)
        took = fill(args.rows)
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            plain = {**statements(postgres, connection), "purge of a month": purge(postgres, connection)}
            longest = convert(postgres)
            month = let_a_year_pass(connection)
            months = connection.execute("SELECT count(*) FROM pg_inherits WHERE inhparent = 'usage_events'::regclass")
            (partitions,) = months.fetchone() or (0,)
            parted = {**statements(postgres, connection), "purge of a month": drop(postgres, connection, month)}
    print(f"{args.rows:,} rows, filled in {took:.0f} s.")
    print(f"The longest wait of a turn while the table was converted: {longest:.0f} ms.\n")
    print(f"| median ms, and CPU of PostgreSQL | one table | {partitions} partitions |\n|---|---|---|")
    for name, figure in plain.items():
        print(f"| {name} | {figure} | {parted[name]} |")


def fill(rows: int) -> float:
    from django.db import connection, transaction

    from bench.loading import enlarge_memory, without_indexes

    began = time.monotonic()
    with transaction.atomic(), connection.cursor() as cursor:
        enlarge_memory(cursor)
        with without_indexes(cursor, lambda what: None):
            cursor.execute(FILL, {"rows": rows})
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE usage_events")
    connection.close()
    return time.monotonic() - began


def statements(postgres: OwnPostgres, connection: psycopg.Connection) -> Figures:
    return dict(timed_statements(postgres, connection))


def timed_statements(postgres: OwnPostgres, connection: psycopg.Connection) -> Iterator[tuple[str, str]]:
    for name, statement in STATEMENTS.items():
        ids = [f"r_{secrets.token_hex(8)}" for _ in range(REPEATS)]
        if "UPDATE" in statement:
            for request_id in ids:
                connection.execute(OPEN, {"id": request_id})
        before, spent = tree_seconds(postgres.pid), []
        for number, request_id in enumerate(ids):
            values = {"id": request_id, "user": f"user {number}", "conversation": f"c_{number}"}
            began = time.perf_counter()
            connection.execute(statement, values, prepare=name == PREPARED)
            spent.append((time.perf_counter() - began) * 1000)
        cpu = (tree_seconds(postgres.pid) - before) / REPEATS * 1000
        yield name, f"{statistics.median(spent):.2f}, {cpu:.2f}"


def purge(postgres: OwnPostgres, connection: psycopg.Connection) -> str:
    """Delete the oldest rows as `analytics.ledger.retention` does, without its pauses."""
    found = connection.execute(
        "SELECT created_at FROM usage_events ORDER BY created_at OFFSET %s LIMIT 1", [MONTH_ROWS]
    )
    (end,) = found.fetchone() or (None,)

    def delete() -> None:
        while True:
            rows = connection.execute(
                "SELECT id FROM usage_events WHERE created_at < %s LIMIT %s", [end, BATCH]
            ).fetchall()
            if not rows:
                return
            connection.execute("DELETE FROM usage_events WHERE id = ANY(%s)", [[row[0] for row in rows]])

    return cost(postgres, connection, delete)


def drop(postgres: OwnPostgres, connection: psycopg.Connection, month: str) -> str:
    return cost(postgres, connection, lambda: connection.execute(f"DROP TABLE {month}"))


def cost(postgres: OwnPostgres, connection: psycopg.Connection, work: Callable[[], Any]) -> str:
    def written() -> int:
        row = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").fetchone()
        return int(row[0]) if row else 0

    connection.execute("CHECKPOINT")
    cpu, wal, began = tree_seconds(postgres.pid), written(), time.monotonic()
    work()
    took = time.monotonic() - began
    return f"{took:.2f} s, {tree_seconds(postgres.pid) - cpu:.2f} s of CPU, {(written() - wal) / 2**20:.1f} MiB of log"


def convert(postgres: OwnPostgres) -> float:
    """Run the conversion while turns are opened. Returns the longest wait of one, in milliseconds."""
    spent: list[float] = []
    is_over = threading.Event()

    def open_turns() -> None:
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            while not is_over.wait(0.002):
                began = time.monotonic()
                connection.execute(OPEN, {"id": f"r_{secrets.token_hex(8)}"})
                spent.append((time.monotonic() - began) * 1000)

    turns = threading.Thread(target=open_turns)
    turns.start()
    call_command("partition_ledger", stdout=io.StringIO())
    is_over.set()
    turns.join()
    return max(spent)


def let_a_year_pass(connection: psycopg.Connection[Any]) -> str:
    """Move the bound of the first partition a year back, and add the months since. Returns a month, filled."""
    from analytics.ledger import partitions

    now = datetime.now(UTC)
    bound = partitions.first_of_month(now.date(), -12)
    (before, *_), name = partitions.partitions("usage_events"), f"usage_events_before_{bound:%Y_%m}"
    month = partitions.first_of_month(now.date(), -6)
    for statement in (
        "DELETE FROM usage_events WHERE created_at > now() - interval '1 day'",
        f"ALTER TABLE usage_events DETACH PARTITION {before}",
        f"ALTER TABLE {before} DROP CONSTRAINT usage_events_is_before",
        f"ALTER TABLE {before} RENAME TO {name}",
        f"ALTER TABLE usage_events ATTACH PARTITION {name} FOR VALUES FROM (MINVALUE) TO ('{bound} 00:00:00+00')",
    ):
        connection.execute(statement)
    partitions.add_months(now, since=bound)
    connection.execute(FILL_MONTH, {"month": month})
    connection.execute("VACUUM ANALYZE usage_events")
    return f"usage_events_{month:%Y_%m}"


if __name__ == "__main__":
    main()
