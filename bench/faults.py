"""Break everything that can break while clients talk, then compare the ledgers.

    python -m bench.faults                                    SQLite, one process
    python -m bench.faults --database-url postgres://127.0.0.1:5432/llmapi_faults --nodes 2 --workers 2
    python -m bench.faults --sabotage no-fencing              with a guard of the code taken away: must exit 1

Clients send every message under an Idempotency-Key until they have its reply, as the SDKs do. Meanwhile
workers and whole nodes are killed, connections to the database are cut (or its file is locked), and the
upstream fails in every way. A seed makes the choices of a run repeatable. Exits 1 where an invariant
(bench/invariants.py) is broken.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg

from bench.openai_double import Behaviour, OpenAIDouble
from bench.stack import TOKEN, children_of
from llmapi.launch import ROOT, free_port, wait_for

TRIES = 60
RECOVERY_SECONDS = 120


class Node:
    """One gunicorn with its workers, which can be killed and started again on its port."""

    def __init__(self, env: dict[str, str]) -> None:
        self.port = free_port()
        self.env = {**env, "PORT": str(self.port)}
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "bench.sabotage:application"]
        self.process = subprocess.Popen(command, cwd=ROOT, env=self.env, stderr=subprocess.DEVNULL)
        wait_for(f"http://127.0.0.1:{self.port}/health", self.process, "A node did not start.")

    def workers(self) -> list[int]:
        return children_of(self.process.pid)

    def kill_worker(self, dice: random.Random) -> None:
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(dice.choice(self.workers()), signal.SIGKILL)

    def kill_all(self) -> None:
        for pid in [self.process.pid, *self.workers()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        time.sleep(0.5)
        self.start()

    def restart_gracefully(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.start()


class Run:
    def __init__(self, args: argparse.Namespace, upstream: OpenAIDouble, nodes: list[Node]) -> None:
        self.args = args
        self.upstream = upstream
        self.nodes = nodes
        self.count: Counter[str] = Counter()
        self.received: list[Any] = []
        self.stopped = threading.Event()

    def client(self, number: int) -> None:
        dice = random.Random(self.args.seed * 1000 + number)  # noqa: S311
        conversation_id = self.persist(lambda: self.new_conversation(dice))
        for turn in range(self.args.turns):
            key = f"client {number} turn {turn}"
            is_stream, repeats = dice.random() < 0.5, 1 + (dice.random() < 0.2)
            for _ in range(repeats):  # a client that lost the answer asks again
                self.received.append(self.persist(lambda k=key, s=is_stream: self.say(dice, conversation_id, k, s)))  # type: ignore[misc]
            self.count["turns"] += 1

    def persist(self, attempt: Callable[[], Any]) -> Any:
        for tried in range(TRIES):
            try:
                if (result := attempt()) is not None:
                    return result
            except (OSError, http.client.HTTPException, ValueError):
                self.count["connections lost"] += 1
            time.sleep(min(2.0, 0.1 * 2 ** min(tried, 5)))
        raise SystemExit("A client had no reply after many tries; the service did not resume.")

    def post(
        self, dice: random.Random, path: str, body: dict[str, Any], key: str | None = None
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", dice.choice(self.nodes).port, timeout=60)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        if key:
            headers["Idempotency-Key"] = key
        connection.request("POST", path, json.dumps(body), headers)
        return connection.getresponse()

    def new_conversation(self, dice: random.Random) -> str | None:
        with self.post(dice, "/v1/conversations", {}) as answer:
            body = json.loads(answer.read())
        return body.get("id") if answer.status == 201 else None

    def say(self, dice: random.Random, conversation_id: str, key: str, is_stream: bool) -> Any:
        from bench.invariants import Received

        body = {"conversation_id": conversation_id, "message": key, "stream": is_stream}
        with self.post(dice, "/v1/chat/completions", body, key) as answer:
            self.count[f"status {answer.status}"] += 1
            if answer.status != 200:
                answer.read()
                return None
            self.count["replays"] += answer.getheader("Idempotent-Replayed") == "true"
            if not is_stream:
                whole = json.loads(answer.read())
                return Received(conversation_id, key, whole["id"], whole["reply"])
            if dice.random() < 0.1:
                self.count["clients gone in mid-stream"] += 1
                answer.readline()
                return None
            return self.read_stream(answer, conversation_id, key)

    def read_stream(self, answer: http.client.HTTPResponse, conversation_id: str, key: str) -> Any:
        from bench.invariants import Received

        text, request_id = "", ""
        for line in answer:
            if line == b"data: [DONE]\n":
                return Received(conversation_id, key, request_id, text)
            if line.startswith(b"data: {"):
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    self.count["errors in mid-stream"] += 1
                    return None
                request_id = chunk["id"]
                text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
        raise ValueError("the stream ended without [DONE]")

    def break_things(self) -> None:
        dice = random.Random(self.args.seed)  # noqa: S311
        faults: dict[str, Callable[[], None]] = {
            "worker killed": lambda: dice.choice(self.nodes).kill_worker(dice),
            "node killed": lambda: dice.choice(self.nodes).kill_all(),
            "node restarted": lambda: dice.choice(self.nodes).restart_gracefully(),
            "database cut or locked": self.cut_database,
        }
        while not self.stopped.wait(dice.uniform(1, 3)):
            (name,) = dice.choices(list(faults), weights=[4, 1, 1, 3])
            faults[name]()
            self.count[name] += 1

    def cut_database(self) -> None:
        if self.args.database_url:
            with psycopg.connect(self.args.database_url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'llmapi-faults'"
                )
        else:
            with contextlib.closing(sqlite3.connect(self.args.file, timeout=10, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                time.sleep(2)
                connection.execute("ROLLBACK")


def misbehave(upstream: OpenAIDouble, seed: int, count: Counter[str]) -> None:
    """One call in five of the upstream fails, in one of many ways."""
    dice = random.Random(seed + 1)  # noqa: S311
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
        count[name] += 1
        return ways[name]

    upstream.choose = choose


@contextlib.contextmanager
def cluster(args: argparse.Namespace, upstream: OpenAIDouble) -> Iterator[list[Node]]:
    env = {
        **os.environ,
        "OPENAI_BASE_URL": upstream.url,
        "WEB_CONCURRENCY": str(args.workers),
        "UPSTREAM_TIMEOUT_SECONDS": "3",
        "PGAPPNAME": "llmapi-faults",
        "SABOTAGE": args.sabotage,
    }
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=env, check=True)
    nodes = [Node(env) for _ in range(args.nodes)]
    try:
        yield nodes
    finally:
        for node in nodes:
            node.process.terminate()
            node.process.wait(60)


def configure(args: argparse.Namespace, scratch: str) -> None:
    args.file = str(Path(scratch) / "faults.sqlite3")
    os.environ.update(
        ENV_FILE=os.devnull,
        DJANGO_SETTINGS_MODULE="llmapi.settings",
        SECRET_KEY="of-a-fault-run-and-of-nothing-else-0123456789",  # noqa: S106
        DATABASE_URL=args.database_url or f"sqlite:///{args.file}",
        OPENAI_API_KEY="none",
        CLIENT_API_TOKEN=TOKEN,
        RATE_LIMIT_PER_MIN="0",
        IDEMPOTENCY_WAIT_SECONDS="5",
    )
    import django

    django.setup()


def recovered() -> dict[str, float]:
    """Wait until running processes have closed what dead ones left; the seconds it took."""
    from bench.invariants import left_open

    began = time.monotonic()
    while left_open() and time.monotonic() - began < RECOVERY_SECONDS:
        time.sleep(1)
    return {"seconds to recover": round(time.monotonic() - began)}


def report(count: Counter[str], broken: dict[str, list[str]]) -> int:
    print("| what | how often |\n|---|---|")
    for name, times in sorted(count.items()):
        print(f"| {name} | {times} |")
    print("\n| invariant | violations |\n|---|---|")
    for name, wrong in broken.items():
        print(f"| {name} | {len(wrong)}{': ' + '; '.join(wrong[:3]) if wrong else ''} |")
    return 1 if any(broken.values()) else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", default="", help="of an empty PostgreSQL database; a SQLite file without it")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--turns", type=int, default=50, help="of each client")
    parser.add_argument("--sabotage", default="", help="one of bench/sabotage.py: the run must then fail")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, OpenAIDouble() as upstream:
        configure(args, scratch)
        with cluster(args, upstream) as nodes:
            run = Run(args, upstream, nodes)
            # Slow enough that whatever is killed is killed in the middle of turns.
            upstream.default = Behaviour(delay=0.3, pause=0.1)
            misbehave(upstream, args.seed, run.count)
            breaker = threading.Thread(target=run.break_things)
            breaker.start()
            with ThreadPoolExecutor(args.clients) as pool:
                try:
                    list(pool.map(run.client, range(args.clients)))
                finally:
                    run.stopped.set()
                    breaker.join()
            run.count.update({k: int(v) for k, v in recovered().items()})
            from bench.invariants import violations

            sys.exit(report(run.count, violations(upstream, run.received)))


if __name__ == "__main__":
    main()
