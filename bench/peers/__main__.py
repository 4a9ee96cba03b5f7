"""Measure llmapi beside its peers, and print the ratios to LiteLLM, then the figures. docs/speed.md explains them.

    python -m bench.peers
    python -m bench.peers --rounds 1 --seconds 3 --peers sqlite,floor,litellm --cases one,many

On a machine that does other work the figures are worth little: look at its load first.
"""

import argparse
import contextlib
import functools
import http.client
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench.history import whole
from bench.peers import installs, upstream
from bench.peers.cases import CASES, Case
from bench.peers.databases import Databases
from bench.peers.load import Result, invalid, measure
from bench.peers.processes import NotStarted, Start, running
from bench.peers.report import Run, report
from bench.peers.services import Peer, make_peer
from bench.postgres import own_postgres

PEERS = ["sqlite", "postgres", "litellm", "portkey", "fastapi", "floor"]
OF_LLMAPI = ["sqlite", "postgres"]
# Load of the machine below which the figures are worth something.
QUIET = 0.5


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=names(PEERS), default=PEERS, help=f"some of {','.join(PEERS)}")
    cases = [case.name for case in CASES]
    parser.add_argument("--cases", type=names(cases), default=cases, help=f"some of {','.join(cases)}")
    parser.add_argument("--rounds", type=whole, default=3, help="each peer is measured once a round (3)")
    parser.add_argument("--seconds", type=whole, help="how long a case lasts, at least as long as its streams")
    parser.add_argument(
        "--base", metavar="COMMIT", help="measure llmapi at this commit too: sqlite-base, postgres-base"
    )
    parser.add_argument("--rows", type=int, default=0, help="turns in llmapi's ledger before the first request (0)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report to this file too, in Markdown")
    return parser.parse_args()


def names(known: list[str]) -> Callable[[str], list[str]]:
    """Return a parser of names that are separated by commas."""

    def read(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"does not know {unknown[0]!r}; it knows {', '.join(known)}.")
        return found

    return read


def main() -> None:
    args = arguments()
    for stopping in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stopping, interrupt)
    try:
        text = run(args)
    except KeyboardInterrupt:
        sys.exit("Interrupted; everything that the bench started has ended.")
    print(f"\n{text}")
    if args.output:
        args.output.write_text(text, encoding="utf-8")


def interrupt(*_: object) -> None:
    """End the run. From here on nothing may break off the clearing: a second Ctrl-C is ignored."""
    for stopping in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stopping, signal.SIG_IGN)
    raise KeyboardInterrupt


def run(args: argparse.Namespace) -> str:
    """Run the bench, and return its report."""
    names = peers_of(args)
    installs.check_tools(names)
    installs.WORK.mkdir(exist_ok=True)
    cases = [case for case in CASES if case.name in args.cases]
    facts = describe(args)
    print(facts, flush=True)
    done = Run(cases, names, {})
    with shared(args.rows, needs_postgres=any(name.startswith("postgres") for name in names)) as databases:
        peers = [make_peer(name, databases, args.base) for name in names]
        for number in range(1, args.rounds + 1):
            for peer in peers:
                measure_peer(peer, cases, args.seconds, functools.partial(done.record, number, peer.name))
    return report(done, facts)


def peers_of(args: argparse.Namespace) -> list[str]:
    """Return the peers in the order in which they are measured, each old commit right after the one of today."""
    with_base = OF_LLMAPI if args.base else []
    return [name for peer in args.peers for name in ([peer, f"{peer}-base"] if peer in with_base else [peer])]


@contextlib.contextmanager
def shared(rows: int, *, needs_postgres: bool) -> Iterator[Databases]:
    """Start what all peers share. At the end it is stopped and deleted."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=installs.WORK)))
        stack.enter_context(upstream.running(scratch))
        postgres = stack.enter_context(own_postgres(scratch)) if needs_postgres else None
        yield Databases(scratch, postgres, rows)


def measure_peer(peer: Peer, cases: list[Case], seconds: int | None, record: Callable[[Case, Result], None]) -> None:
    """Measure a peer once in each case that it takes. It is started anew for each port of the upstream."""
    taken = [case for case in cases if peer.takes(case)]
    for port in sorted({case.upstream for case in taken}):
        of_port = [case for case in taken if case.upstream == port]
        try:
            with peer.database() as database:
                start = peer.start(port, database)
                with running(start, installs.WORK / f"{peer.name}.log") as pid:
                    for case in of_port:
                        lasts = max(seconds, case.delay + 2) if seconds else case.seconds
                        record(case, measure_case(peer, start, pid, case, lasts, peer.postmaster(database)))
        except NotStarted as exc:
            for case in of_port:
                record(case, invalid(str(exc)))


def measure_case(peer: Peer, start: Start, pid: int, case: Case, seconds: int, postmaster: int | None) -> Result:
    try:
        return measure(pid, postmaster, start.port, peer.template(start, case), case, seconds)
    except (ValueError, OSError, http.client.HTTPException) as exc:
        return invalid(f"{type(exc).__name__}: {exc}")


def describe(args: argparse.Namespace) -> str:
    """Name what is measured and on which machine, so that a report can be compared with another."""
    began, total = time.process_time(), 0
    for number in range(5_000_000):
        total += number
    loop = time.process_time() - began
    warnings = ["Changes that are not committed were not measured.  "] if installs.is_dirty() else []
    if (busy := os.getloadavg()[0]) > QUIET:
        warnings.append(f"**The machine was not quiet: a load of {busy:.1f} at the start.**  ")
    base = f", base {installs.sha_of(args.base)}" if args.base else ""
    seconds = f"{args.seconds} s a case" if args.seconds else "full length"
    return "\n".join(
        [
            f"llmapi {installs.sha_of('HEAD')}{base}; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; "
            f"rounds: {args.rounds}, {seconds}; rows before: {args.rows:,}.  ",
            f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
            f"5 M additions in a loop take {loop:.2f} s.  ",
            *(f"{version}  " for version in installs.versions(args.peers)),
            *warnings,
        ]
    )


if __name__ == "__main__":
    main()
