"""Try REPLICA_DATABASE_URL with a real streaming replica: a PostgreSQL server of the run's own, and its standby.

    python -m bench.replica --turns 200 --history 100000

Prints a table in Markdown: what the primary is spared, how far the standby lags, and what fails while it is away.
It exits with 1 where a turn failed, or where an answer was not what the docs promise.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from bench.calls import call, is_whole, tree_seconds, turns
from bench.postgres import OwnPostgres, own_postgres
from bench.stack import Stack, running
from bench.standby import Standby, own_standby
from llmapi.launch import ROOT

READS = 40
FIGURES = ["/metrics", "/metrics?format=prometheus", "/metrics/retention", "/metrics/token_burn_by_user"]
Row = tuple[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--history", type=int, default=100_000, help="turns of made-up history")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, own_postgres(Path(scratch)) as primary:
        fill(primary, args.history)
        with own_standby(primary, Path(scratch)) as standby:
            rows = [*spared(primary, standby), *of_service(primary, standby, args.turns)]
    print("| | |\n|---|---|")
    for name, figure in rows:
        print(f"| {name} | {figure} |")
    if any(figure.startswith("FAILED") for _, figure in rows):
        sys.exit(1)


def fill(primary: OwnPostgres, turns: int) -> None:
    history = ["-m", "bench.history", "--database-url", primary.url, "--turns", str(turns)]
    env = {**os.environ, "ENV_FILE": os.devnull, "SECRET_KEY": "x" * 50, "DATABASE_URL": primary.url}
    for command in (history, ["manage.py", "rollup"]):
        subprocess.run([sys.executable, *command], cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def served(primary: OwnPostgres, replica_url: str) -> Iterator[Stack]:
    with running(
        chunks=20,
        pause=0.01,
        DATABASE_URL=primary.url,
        METRICS_PUBLIC="true",
        WEB_CONCURRENCY="2",
        REPLICA_DATABASE_URL=replica_url,
    ) as stack:
        # Where a replica is read, the job of the server builds today, and only that.
        wait_for(lambda: not has_missing_days(stack))
        yield stack


def has_missing_days(stack: Stack) -> bool:
    computed_at = datetime.fromisoformat(call(stack.server, "/metrics").json["computed_at"])
    return (datetime.now(UTC) - computed_at).total_seconds() > 120


def spared(primary: OwnPostgres, standby: Standby) -> Iterator[Row]:
    """Compare what reading figures costs the primary, without and with the replica."""
    for name, replica_url in (("without", ""), ("with", standby.url)):
        with served(primary, replica_url) as stack:
            read_figures(stack.server)
            before = [tree_seconds(server.pid) for server in (primary, standby)]
            scans = rollup_scans(primary)
            read_figures(stack.server)
            spent = [
                (tree_seconds(server.pid) - start) / READS * 1000
                for server, start in zip((primary, standby), before, strict=True)
            ]
            scans = rollup_scans(primary) - scans
        yield f"CPU of PostgreSQL a read of figures, {name} replica: primary", f"{spent[0]:.1f} ms"
        yield "the same: standby", f"{spent[1]:.1f} ms"
        yield f"scans of rollup tables in the primary, {READS} reads", str(scans)


def read_figures(server: str) -> None:
    for number in range(READS):
        assert call(server, FIGURES[number % len(FIGURES)]).status == 200


def rollup_scans(server: OwnPostgres) -> int:
    """Count reads of usage rollups, which a builder reads for days that changed, and nothing else but figures."""
    time.sleep(1.5)  # a backend reports its counts at most once a second
    scans = "SELECT sum(seq_scan + coalesce(idx_scan, 0)) FROM pg_stat_user_tables WHERE relname = 'activity_rollups'"
    return int(fetch(server, scans))


def fetch(server: OwnPostgres, query: str, *values: Any) -> Any:
    with psycopg.connect(server.url, autocommit=True) as connection:
        found = connection.execute(query, values).fetchone()
    return found and found[0]


def of_service(primary: OwnPostgres, standby: Standby, count: int) -> Iterator[Row]:
    with served(primary, standby.url) as stack:
        answers = turns(stack.server, count)
        yield judged(f"{count} turns under keys, half of them streams", all(map(is_whole, answers)))
        lags = sorted(lag_ms(primary, standby, stack) for _ in range(20))
        yield (
            "from the answer of a turn to its row in the standby",
            f"{statistics.median(lags):.0f} ms, {lags[-1]:.0f} at most",
        )
        yield from while_paused(standby, stack)
        yield from while_away(standby, stack, count)


def lag_ms(primary: OwnPostgres, standby: Standby, stack: Stack) -> float:
    body = {"messages": [{"role": "user", "content": "lag"}]}
    request_id = call(stack.server, "/v1/chat/completions", body).json["id"]
    answered = time.monotonic()
    query = "SELECT 1 FROM usage_events WHERE request_id = %s AND status = 'completed'"
    with psycopg.connect(standby.url, autocommit=True) as connection:
        while connection.execute(query, [request_id]).fetchone() is None:
            time.sleep(0.001)
    return (time.monotonic() - answered) * 1000


def while_paused(standby: Standby, stack: Stack) -> Iterator[Row]:
    """Let the standby fall behind: figures say how old they are."""
    standby.pause()
    paused = datetime.now(UTC)
    turns(stack.server, 20)
    time.sleep(5)
    computed_at = datetime.fromisoformat(call(stack.server, "/metrics").json["computed_at"])
    standby.resume()
    yield judged("a standby that stands still: `computed_at` is from before it stopped", computed_at <= paused)


def while_away(standby: Standby, stack: Stack, count: int) -> Iterator[Row]:
    standby.stop("immediate")
    took, refused = timed(lambda: call(stack.server, "/metrics"))
    is_named = refused.status == 503 and "REPLICA_DATABASE_URL" in refused.json["error"]["message"]
    yield judged(f"standby away: `/metrics` says so in a 503 ({took * 1000:.0f} ms)", is_named)
    took, answers = timed(lambda: turns(stack.server, count))
    yield judged(f"standby away: {count} turns", all(map(is_whole, answers)))
    yield judged("standby away: `GET /v1/usage`", call(stack.server, "/v1/usage").status == 200)
    standby.start()
    took, _ = timed(lambda: wait_for(lambda: call(stack.server, "/metrics").status == 200))
    yield "standby started again: figures are back after", f"{took * 1000:.0f} ms"


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.monotonic()
    result = work()
    return time.monotonic() - began, result


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("The service did not come to what the bench waits for.")
        time.sleep(0.05)


def judged(what: str, is_right: bool) -> Row:
    return what, "yes" if is_right else "FAILED"


if __name__ == "__main__":
    main()
