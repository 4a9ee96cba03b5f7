"""Measure where throughput stops growing: 1, 2 and 4 processes, 1 and 2 nodes, on one machine and one PostgreSQL.

    python -m bench.scale --upstream http://127.0.0.1:9000/v1

Needs wrk, and a model's double that answers at once. Prints a table in Markdown, with bench/capacity.py's prediction
beside each figure. The prediction takes what a turn costs from the first row, and the cores that others left to us.
"""

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from bench.calls import call, tree_seconds
from bench.capacity import Turn, on_one_machine
from bench.peers.load import WrkOutput, parse_wrk
from bench.postgres import OwnPostgres, own_postgres
from bench.stack import TOKEN, Stack, running
from llmapi.launch import ROOT

# Nodes, and processes of each.
CASES = [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2)]
CLIENTS = 64
CONVERSATIONS = 200
WARM_UP_SECONDS = 4


@dataclass(frozen=True)
class Point:
    """One case as measured."""

    nodes: int
    processes: int
    requests_per_second: float
    p50: float
    p99: float
    turn: Turn
    cores: float  # that others left to us
    failed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", default="http://127.0.0.1:9000/v1", help="base URL of the model's double")
    parser.add_argument("--seconds", type=int, default=15)
    args = parser.parse_args()
    points = []
    for nodes, processes in CASES:
        with tempfile.TemporaryDirectory() as scratch, own_postgres(Path(scratch)) as postgres:
            points.append(measure(postgres, nodes, processes, args.upstream, args.seconds))
    print("\n".join(table(points)))


def measure(postgres: OwnPostgres, nodes: int, processes: int, upstream: str, seconds: int) -> Point:
    settings = {"OPENAI_BASE_URL": upstream, "WEB_CONCURRENCY": str(processes), "DATABASE_URL": postgres.url}
    with running(chunks=1, pause=0, nodes=nodes, **settings) as stack:
        conversations = [call(stack.server, "/v1/conversations", {}).json["id"] for _ in range(CONVERSATIONS)]
        drive(stack, conversations, WARM_UP_SECONDS)
        pids = {"python": [master for _, master in stack.nodes], "postgres": [postgres.pid]}
        before = {name: sum(map(tree_seconds, found)) for name, found in pids.items()}
        idle, began, own = idle_seconds(), time.monotonic(), os.times()
        loads = drive(stack, conversations, seconds)
        spent = {name: sum(map(tree_seconds, found)) - before[name] for name, found in pids.items()}
        took, ended = time.monotonic() - began, os.times()
        # wrk has ended, and is counted among our children.
        spent["others"] = ended.children_user + ended.children_system - own.children_user - own.children_system
        cores = (idle_seconds() - idle + sum(spent.values())) / took
    requests = sum(load.requests for load in loads)
    turn = Turn(**{name: value / requests * 1000 for name, value in spent.items()})
    p50, p99 = mean(load.p50 for load in loads), max(load.p99 for load in loads)
    failed = sum(load.failed for load in loads)
    return Point(nodes, processes, requests / took, p50, p99, turn, cores, failed)


def drive(stack: Stack, conversations: Sequence[str], seconds: int) -> list[WrkOutput]:
    """Send turns to all nodes at once, and return what each wrk tells."""
    env = {**os.environ, "TOKEN": TOKEN, "CONVERSATIONS": ",".join(conversations)}
    clients = str(CLIENTS // len(stack.nodes))
    with ExitStack() as stacked:
        started = []
        for server, _ in stack.nodes:
            command = ["wrk", "-t", "1", "-c", clients, "-d", f"{seconds}s", "--latency", "--timeout", "30s"]
            command += ["-s", "bench/scale.lua", f"{server}/v1/chat/completions"]
            process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
            started.append(stacked.enter_context(process))
        return [parse_wrk(process.communicate()[0]) for process in started]


def idle_seconds() -> float:
    """Return the time that the cores of the machine were idle, since it started (Linux)."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")


def table(points: list[Point]) -> list[str]:
    turn = points[0].turn
    titles = ["nodes × processes", "requests/s", "predicted", "limited by", "p50, p99 (ms)"]
    titles += ["Python (ms a turn)", "PostgreSQL (ms)", "wrk (ms)", "cores left to us", "failed"]
    rows = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for point in points:
        predicted = on_one_machine(turn, processes=point.nodes * point.processes, cores=point.cores)
        off = predicted.requests_per_second / point.requests_per_second - 1
        cells = [
            f"{point.nodes} × {point.processes}",
            f"{point.requests_per_second:.0f}",
            f"{predicted.requests_per_second:.0f} ({off:+.0%})",
            predicted.limited_by,
            f"{point.p50:.0f}, {point.p99:.0f}",
            f"{point.turn.python:.1f}",
            f"{point.turn.postgres:.1f}",
            f"{point.turn.others:.2f}",
            f"{point.cores:.2f}",
            str(point.failed),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


if __name__ == "__main__":
    main()
