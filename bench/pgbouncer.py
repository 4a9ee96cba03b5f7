"""Try the service behind PgBouncer in transaction mode: turns, dashboards, rollups and an export, all at once.

    python -m bench.pgbouncer                 with PGBOUNCER=true, as the docs say
    python -m bench.pgbouncer --unprepared    with PGBOUNCER=false: what breaks then

It starts a PostgreSQL server and a PgBouncer of its own, and prints a table in Markdown. It exits with 1 where anything
failed.
"""

import argparse
import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg

from bench.calls import Answer, call, is_whole, tree_seconds, turns
from bench.postgres import OwnPostgres, own_postgres
from bench.stack import Stack, running
from llmapi.launch import ROOT, free_port

# Connections that PgBouncer may open to PostgreSQL.
SERVER_CONNECTIONS = 10
PROCESSES = 4
CONFIG = """\
[databases]
postgres = host=127.0.0.1 port={server_port} dbname=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 1000
{prepared}"""
FIGURES = ["/metrics", "/metrics?format=prometheus", "/metrics/retention", "/metrics/sessions.csv", "/v1/usage"]
Row = tuple[str, str]


class PgBouncer:
    def __init__(self, postgres: OwnPostgres, scratch: Path) -> None:
        self.program = find_program()
        self.port = free_port()
        self.url = f"postgres://llmapi@127.0.0.1:{self.port}/postgres"
        # PgBouncer refuses to run as root.
        self.user = "postgres" if os.getuid() == 0 else None
        self.config, users = scratch / "pgbouncer.ini", scratch / "users.txt"
        users.write_text('"llmapi" ""\n')
        # Older versions know no prepared statements in this mode, and refuse to start with the setting.
        prepared = "max_prepared_statements = 200\n" if version(self.program) >= (1, 21) else ""
        ports = {"server_port": postgres.port, "port": self.port}
        self.config.write_text(CONFIG.format(**ports, users=users, size=SERVER_CONNECTIONS, prepared=prepared))
        if self.user:
            for file in (self.config, users):
                os.chown(file, pwd.getpwnam(self.user).pw_uid, -1)
        self.start()

    def start(self) -> None:
        command = [self.program, "-q", str(self.config)]
        with open(os.devnull, "wb") as null:
            self.process = subprocess.Popen(command, user=self.user, cwd="/", stdout=null, stderr=null)
        deadline = time.monotonic() + 10
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def find_program() -> str:
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if not program:
        raise SystemExit("PgBouncer is missing; install it (Debian: apt-get install pgbouncer).")
    return program


def version(program: str) -> tuple[int, ...]:
    told = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    return tuple(int(part) for part in told.split()[1].split(".")[:2])


@contextlib.contextmanager
def own_pgbouncer(postgres: OwnPostgres, scratch: Path) -> Iterator[PgBouncer]:
    bouncer = PgBouncer(postgres, scratch)
    try:
        yield bouncer
    finally:
        bouncer.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--history", type=int, default=20_000, help="turns of made-up history")
    parser.add_argument("--unprepared", action="store_true", help="with PGBOUNCER=false")
    args = parser.parse_args()
    setting = "false" if args.unprepared else "true"
    with tempfile.TemporaryDirectory() as scratch, own_postgres(Path(scratch)) as postgres:
        with own_pgbouncer(postgres, Path(scratch)) as bouncer:
            rows = list(tried(postgres, bouncer, setting, args.turns, args.history))
        major, minor = version(bouncer.program)
    print(f"| PgBouncer {major}.{minor}, PGBOUNCER={setting} | |\n|---|---|")
    for name, figure in rows:
        print(f"| {name} | {figure} |")
    if any(figure.startswith("FAILED") for _, figure in rows):
        sys.exit(1)


def tried(postgres: OwnPostgres, bouncer: PgBouncer, setting: str, count: int, history: int) -> Iterator[Row]:
    run("-m", "bench.history", "--database-url", postgres.url, "--turns", str(history), url=postgres.url)
    settings = {"PGBOUNCER": setting, "METRICS_PUBLIC": "true", "WEB_CONCURRENCY": str(PROCESSES)}
    with running(chunks=20, pause=0.02, DATABASE_URL=bouncer.url, **settings) as stack:  # type: ignore[arg-type]
        before = tree_seconds(bouncer.process.pid)
        yield judged_turns(f"{count} turns with keys, half of them streams", turns(stack.server, count))
        spent = (tree_seconds(bouncer.process.pid) - before) / count * 1000
        yield "CPU of PgBouncer a turn, with its conversation", f"{spent:.1f} ms"
        yield from together(postgres, bouncer, stack, setting, count)
        yield from restarted(bouncer, stack, count)


def together(postgres: OwnPostgres, bouncer: PgBouncer, stack: Stack, setting: str, count: int) -> Iterator[Row]:
    """Do at once what a service does at once, so that sessions change hands between any two transactions."""
    pages = ["-m", "bench.pages", "--read", bouncer.url]
    commands = {
        "`manage.py rollup --rebuild`": ["manage.py", "rollup", "--rebuild"],
        "`manage.py export analytics_events`": ["manage.py", "export", "analytics_events", "--output", os.devnull],
        "`manage.py purge_expired`": ["manage.py", "purge_expired"],
        "every page of the staff (`bench.pages`)": pages,
    }
    with ThreadPoolExecutor(len(commands) + 3) as pool:
        talk = pool.submit(turns, stack.server, 3 * count, at_once=100)
        figures = pool.submit(lambda: Counter(call(stack.server, path).status for path in FIGURES * 10))
        done = {
            name: pool.submit(run, *command, url=bouncer.url, PGBOUNCER=setting) for name, command in commands.items()
        }
        most = most_connections(postgres, [talk, figures, *done.values()])
    for name, work in done.items():
        yield f"at the same time: {name}", work.result()
    is_right = figures.result().total() == figures.result()[200]
    yield "at the same time: 50 reads of `/metrics` and `/v1/usage`", judged(is_right, figures.result())
    yield judged_turns(f"at the same time: {3 * count} turns, 100 at once", talk.result())
    yield f"connections of PostgreSQL at most, by {PROCESSES} processes and {len(commands)} commands", str(most)


def run(*command: str, url: str, **settings: str) -> str:
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "llmapi.settings",
        "ENV_FILE": os.devnull,
        "SECRET_KEY": "x" * 50,
        "DATABASE_URL": url,
        **settings,
    }
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    reason = done.stderr.strip().rpartition("\n")[2]
    return "yes" if done.returncode == 0 else f"FAILED: {reason}"


def most_connections(postgres: OwnPostgres, works: list[Future[Any]]) -> int:
    """Watch the connections of PostgreSQL until the works are done."""
    most = 0
    query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        while not all(work.done() for work in works):
            (count,) = connection.execute(query).fetchone() or (0,)
            most = max(most, count)
            time.sleep(0.05)
    return most


def restarted(bouncer: PgBouncer, stack: Stack, count: int) -> Iterator[Row]:
    bouncer.stop()
    status = call(stack.server, "/v1/usage").status
    yield "PgBouncer stopped: `GET /v1/usage`", judged(status == 503, status)
    bouncer.start()
    began = time.monotonic()
    while call(stack.server, "/v1/usage").status != 200 and time.monotonic() < began + 60:
        time.sleep(0.05)
    yield "PgBouncer started again: back after", f"{(time.monotonic() - began) * 1000:.0f} ms"
    yield judged_turns(f"after that: {count} turns", turns(stack.server, count))


def judged_turns(what: str, answers: list[Answer]) -> Row:
    return what, judged(all(map(is_whole, answers)), Counter(answer.status for answer in answers))


def judged(is_right: bool, found: object) -> str:
    return "yes" if is_right else f"FAILED: {found}"


if __name__ == "__main__":
    main()
