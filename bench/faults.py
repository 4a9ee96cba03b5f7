"""Break everything that can break while clients talk, then compare the ledgers.

    python -m bench.faults                                          SQLite, one process
    python -m bench.faults --postgres --nodes 2 --workers 2         a PostgreSQL of its own
    python -m bench.faults --sabotage no-fencing                    with a guard of the code taken away: must exit 1

Clients send every message under an Idempotency-Key until they have its reply, as the SDKs do; others hammer a
token with a rate limit, and one with a budget. Meanwhile workers, masters and whole nodes are killed, the
database is cut, crashed, crowded (or its file locked, its disk filled), clocks step, and the upstream fails in
every way. A seed makes the choices of a run repeatable. Exits 1 where an invariant (bench/invariants.py) is broken.
"""

import argparse
import contextlib
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.nodes import Node, cluster
from bench.openai_double import Behaviour, OpenAIDouble
from bench.postgres import OwnPostgres, own_postgres
from bench.stack import TOKEN
from bench.talkers import Talk

RECOVERY_SECONDS = 120
RATE_LIMIT = 30  # requests a minute of the limited client
BUDGET = 1500  # tokens a day of the client with a budget


def faults_of(
    nodes: list[Node], dice: random.Random, file: str, postgres: OwnPostgres | None
) -> dict[str, tuple[int, Callable[[], None]]]:
    """Return what can be done to the servers, and how often each is chosen."""
    faults: dict[str, tuple[int, Callable[[], None]]] = {
        "worker killed": (6, lambda: dice.choice(nodes).kill_worker(dice)),
        "master killed": (1, lambda: dice.choice(nodes).kill_master()),
        "node killed": (1, lambda: dice.choice(nodes).kill_all()),
        "node restarted": (1, lambda: dice.choice(nodes).restart_gracefully()),
        "clock stepped": (2, lambda: dice.choice(nodes).step_clock(dice.choice([-3600, 3600]), lasting=2)),
    }
    if postgres:
        faults["connections cut"] = (3, postgres.cut_connections)
        faults["database crashed"] = (1, postgres.crash_and_restart)
        faults["database out of connections"] = (1, lambda: postgres.run_out_of_connections(3))
    else:
        faults["database locked"] = (3, lambda: lock(file, 2))
        faults["disk full"] = (3, lambda: nodes[0].fill_disk(2))
    return faults


def lock(file: str, seconds: float) -> None:
    with contextlib.closing(sqlite3.connect(file, timeout=10, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        connection.execute("ROLLBACK")


def break_things(talk: Talk, faults: dict[str, tuple[int, Callable[[], None]]], dice: random.Random) -> None:
    while not talk.stopped.wait(dice.uniform(1, 3)):
        (name,) = dice.choices(list(faults), weights=[weight for weight, _ in faults.values()])
        faults[name][1]()
        talk.count[f"fault: {name}"] += 1


def misbehave(upstream: OpenAIDouble, seed: int, count: Counter[str]) -> None:
    """Let one call in five of the upstream fail, in one of many ways."""
    dice = random.Random(seed + 1)  # noqa: S311
    # Slow enough that a process is killed in the middle of turns.
    upstream.default = Behaviour(delay=0.3, pause=0.1)
    ways = {
        "upstream 500": Behaviour(status=500),
        "upstream 429": Behaviour(status=429),
        "upstream garbage": Behaviour(raw=b"<html>"),
        "upstream hang-up": Behaviour(refuse=True),
        "upstream cut": Behaviour(cut=True, stop_after=2),
        "upstream error in mid-stream": Behaviour(stop_after=2, ending="error"),
        "upstream hang": Behaviour(delay=4, stop_after=1, ending="hang"),
        "upstream slow": Behaviour(delay=1, pause=0.1),
    }

    def choose(_: dict[str, Any]) -> Behaviour | None:
        if dice.random() > 0.2:
            return None
        name = dice.choice(list(ways))
        count[f"fault: {name}"] += 1
        return ways[name]

    upstream.choose = choose


def configure(args: argparse.Namespace, upstream: OpenAIDouble, scratch: str, database_url: str) -> None:
    """Set the environment of the servers. This process has it too, because it reads the ledger with the same models."""
    clocks = Path(scratch) / "clocks"
    clocks.mkdir()
    os.environ.update(
        ENV_FILE=os.devnull,
        DJANGO_SETTINGS_MODULE="llmapi.settings",
        SECRET_KEY="of-a-fault-run-and-of-nothing-else-0123456789",  # noqa: S106
        DATABASE_URL=database_url,
        OPENAI_API_KEY="none",
        OPENAI_BASE_URL=upstream.url,
        CLIENT_API_TOKEN=TOKEN,
        RATE_LIMIT_PER_MIN="0",
        IDEMPOTENCY_WAIT_SECONDS="5",
        UPSTREAM_TIMEOUT_SECONDS="3",
        WEB_CONCURRENCY=str(args.workers),
        PGAPPNAME="llmapi-faults",
        SABOTAGE=args.sabotage,
        CLOCKS=str(clocks),
        # Shorter than in production: a run has more takeovers, and waits less for them.
        LEASE_SECONDS="9",
    )
    import django

    django.setup()


def new_token(**limits: int) -> str:
    from django.db import connection

    from chat.models import ClientToken

    client = ClientToken(name="limited", **limits)
    token = client.renew()
    client.save()
    connection.close()  # it would be cut with the others
    return token


def talk_under_fire(args: argparse.Namespace, talk: Talk, breaker: Callable[[], None]) -> None:
    limited, spender = new_token(rate_limit_per_min=RATE_LIMIT), new_token(day_tokens=BUDGET, concurrent_turns=3)
    with ThreadPoolExecutor(args.clients + 11) as pool:
        until_the_end = [pool.submit(breaker)]
        until_the_end += [pool.submit(talk.hammer, number, limited) for number in range(4)]
        until_the_end += [pool.submit(talk.spend, number, spender) for number in range(6)]
        try:
            for client in [pool.submit(talk.client, number, args.turns) for number in range(args.clients)]:
                client.result()
        finally:
            talk.stopped.set()
        for other in until_the_end:
            other.result()


def recovered() -> float:
    """Wait until running processes have closed what dead ones left. Returns how many seconds that took."""
    from bench.invariants import left_open

    began = time.monotonic()
    while left_open() and time.monotonic() - began < RECOVERY_SECONDS:
        time.sleep(1)
    return time.monotonic() - began


def report(count: Counter[str], broken: dict[str, list[str]]) -> int:
    print("| what | how often |\n|---|---|")
    for name, times in sorted(count.items()):
        print(f"| {name} | {times:,} |")
    print("\n| invariant | violations |\n|---|---|")
    for name, wrong in broken.items():
        print(f"| {name} | {len(wrong)}{': ' + '; '.join(wrong[:3]) if wrong else ''} |")
    return 1 if any(broken.values()) else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL of its own; else on a SQLite file")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--turns", type=int, default=50, help="of each client")
    parser.add_argument("--sabotage", default="", help="one of bench/sabotage.py: the run must then fail")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, OpenAIDouble() as upstream, contextlib.ExitStack() as stack:
        postgres = stack.enter_context(own_postgres(Path(scratch))) if args.postgres else None
        file = f"{scratch}/faults.sqlite3"
        configure(args, upstream, scratch, postgres.url if postgres else f"sqlite:///{file}")
        nodes = stack.enter_context(cluster(args.nodes, dict(os.environ)))
        talk = Talk(nodes, args.seed)
        misbehave(upstream, args.seed, talk.count)
        dice = random.Random(args.seed)  # noqa: S311
        faults = faults_of(nodes, dice, file, postgres)
        began = time.monotonic()
        talk_under_fire(args, talk, lambda: break_things(talk, faults, dice))
        talk.count["seconds"] = round(time.monotonic() - began)
        talk.count["seconds to recover"] = round(recovered())
        from bench.invariants import violations

        sys.exit(report(talk.count, violations(upstream, talk, RATE_LIMIT)))


if __name__ == "__main__":
    main()
