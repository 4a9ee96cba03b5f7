"""Sixty honest clients, and hostile ones beside them: what does a client lose by what another does?

    python -m bench.hostile                                       all kinds, on SQLite: one process
    python -m bench.hostile --postgres                            on a PostgreSQL of its own: two processes
    python -m bench.hostile --kinds half-bodies,burst --seconds 3 --rounds 1

Each kind meets a server of its own, which is measured without it and with it, in turn, and last all kinds at once.
Prints a table in Markdown, and exits 1 where a bound does not hold (bench/hostile/figures.py).
"""

import argparse
import contextlib
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench.hostile import attack, figures, kinds
from bench.hostile.figures import Outcome, broken
from bench.hostile.report import kinds_table, report, row
from bench.hostile.service import Child, Service, as_argument, make_world, serving
from bench.hostile.world import World
from bench.peers import installs, upstream
from bench.peers.databases import Databases
from bench.postgres import own_postgres
from llmapi.launch import ROOT, free_port

CONFIG = Path(__file__).parent / "upstream.conf"
# The name of all kinds at once, and how many connections they have together, for each server process.
ALL, ALL_CONNECTIONS = "all", 1500
# From the start of the hostile clients to the first honest request.
RAMP_SECONDS = 1.5
# The cores that each process of the service may take for the honest clients alone, and what of the machine all of them
# may take, beside their clients and the database. Where it takes more, the honest ask less often: with a process that
# is busy already, anything at all would double what they wait for.
HONEST_CORES = 0.4
HONEST_SHARE = 0.2
PACE_SECONDS = 5


@dataclass(frozen=True)
class Run:
    databases: Databases
    world: World
    upstream: int  # the port of the double
    seconds: float
    rounds: int
    pace: float = 1.0  # seconds between two turns of one honest client

    @property
    def is_postgres(self) -> bool:
        return self.databases.postgres is not None

    def measure(self, title: str, names: list[str]) -> Outcome:
        """Measure a new server without these kinds and with them, so many rounds."""
        with contextlib.ExitStack() as stack:
            service, world, honest = self.start(stack)
            wanted = sum(attack.connections_of(kind) for kind in attack.make(world, names))
            share = min(1.0, ALL_CONNECTIONS * world.workers / wanted) if len(names) > 1 else 1.0
            hostile = stack.enter_context(
                Child("bench.hostile.attack", as_argument(world), ",".join(names), str(share))
            )
            hostile.ask("prepare")
            outcome = Outcome(title, round(wanted * share), [], [], world.workers)
            for _ in range(self.rounds):
                outcome.recovery = max(outcome.recovery, service.recover())
                outcome.quiet.append(service.measure(honest, self.seconds, self.pace))
                hostile.ask("start")
                time.sleep(RAMP_SECONDS)
                outcome.hostile.append(service.measure(honest, self.seconds, self.pace))
                outcome.answers = dict(Counter(outcome.answers) + Counter(hostile.ask("stop")))
            # What it leaves behind: the service must be as it was.
            outcome.recovery = max(outcome.recovery, service.recover())
            outcome.quiet.append(service.measure(honest, self.seconds, self.pace))
            outcome.deaths = service.deaths()
        return outcome

    def start(self, stack: contextlib.ExitStack) -> tuple[Service, World, Child]:
        """Start a new server and the honest clients, and let these ask for a moment."""
        postmaster = self.databases.postgres.pid if self.databases.postgres else None
        url = stack.enter_context(self.databases.fresh(ROOT, is_postgres=self.is_postgres))
        log = self.databases.scratch / "gunicorn.log"
        service = stack.enter_context(serving(url, self.upstream, self.world.workers, log, postmaster))
        world = replace(self.world, port=service.port)
        honest = stack.enter_context(Child("bench.hostile.honest", as_argument(world)))
        service.measure(honest, 1, self.pace)
        return service, world, honest

    def paced(self) -> "Run":
        """Return this run with a pace at which the honest alone leave most of the processor to others."""
        with contextlib.ExitStack() as stack:
            service, _, honest = self.start(stack)
            cores = service.measure(honest, PACE_SECONDS, self.pace).cores
        most = min(HONEST_CORES * self.world.workers, HONEST_SHARE * (os.cpu_count() or 1))
        return replace(self, pace=round(max(1.0, cores / most), 1))


@contextlib.contextmanager
def prepared(args: argparse.Namespace) -> Iterator[Run]:
    """Start what all kinds share: the double, PostgreSQL, a database to copy. At the end it is stopped and deleted."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hostile-")))
        port = free_port()
        config = scratch / "nginx.conf"
        config.write_text(CONFIG.read_text().replace("PORT", str(port)))
        stack.enter_context(upstream.serving(scratch / "nginx", config, port))
        postgres = stack.enter_context(own_postgres(scratch)) if args.postgres else None
        databases = Databases(scratch, postgres, args.rows)
        world = make_world(databases.original(ROOT, is_postgres=args.postgres))
        world = replace(world, workers=2 if args.postgres else 1)
        yield Run(databases, world, port, args.seconds, args.rounds).paced()


def chosen(text: str) -> list[str]:
    """Return the names `kind/source` that are meant by words: a kind alone means all its sources."""
    every = kinds.names()
    found = [name for word in text.split(",") for name in every if word in (name, name.partition("/")[0])]
    unknown = [word for word in text.split(",") if word != ALL and word not in {*every, *kinds.KINDS}]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is no kind; there are {', '.join([*every, ALL])}.")
    return found + [ALL] * (ALL in text.split(","))


def describe(args: argparse.Namespace) -> str:
    database = "PostgreSQL, 2 processes" if args.postgres else "SQLite, 1 process"
    changed = ", with changes that are not committed" if installs.is_dirty() else ""
    return (
        f"llmapi {installs.sha_of('HEAD')}{changed}; {database}; {os.cpu_count()} cores, Python "
        f"{platform.python_version()}; {args.rounds} rounds of {args.seconds:g} s; "
        f"load of the machine at the start: {os.getloadavg()[0]:.1f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL of its own; else on a SQLite file")
    parser.add_argument("--seconds", type=float, default=10, help="of each of the windows of a round")
    parser.add_argument("--rounds", type=int, default=2, help="without and with, so often")
    parser.add_argument("--kinds", type=chosen, default=[*kinds.names(), ALL], help="some of them, by commas; all")
    parser.add_argument("--rows", type=int, default=20_000, help="turns in the ledger before")
    parser.add_argument("--memory", type=float, default=figures.MEMORY_MB, help="MB that a process may grow by")
    parser.add_argument("--output", type=Path, help="write the report there too")
    parser.add_argument("--list", action="store_true", help="list the kinds, and measure nothing")
    args = parser.parse_args()
    if args.list:
        print(kinds_table())
        return
    facts, outcomes = describe(args), []
    with prepared(args) as run:
        facts += f" Each honest client asks for a turn every {run.pace:g} s."
        for title in args.kinds:
            outcomes.append(run.measure(title, kinds.names() if title == ALL else [title]))
            print(" | ".join(row(outcomes[-1], args.memory)), flush=True)
    text = report(outcomes, facts, args.memory)
    print(f"\n{text}")
    if args.output:
        args.output.write_text(text)
    sys.exit(any(broken(outcome, memory_mb=args.memory) for outcome in outcomes))


if __name__ == "__main__":
    main()
