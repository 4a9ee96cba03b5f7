"""Put a case's load on a service with wrk, and measure the service meanwhile."""

import http.client
import math
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.peers import upstream
from bench.peers.cases import Case
from bench.peers.processes import cpu_seconds, machine_cpu_seconds, pss_mb, roots_of
from bench.peers.request import USERS, Answer, Template, ask

SCRIPT = Path(__file__).parent / "chat.lua"
# A stream's first byte is timed every so many seconds, and the memory read.
SAMPLE_SECONDS = 0.5
MEMORY_SECONDS = 2
WARM_UP_SECONDS = 2
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}


@dataclass(frozen=True)
class WrkOutput:
    """What wrk reports. Latencies are in milliseconds; `failed` counts other statuses than 2xx and 3xx."""

    requests: int
    per_second: float
    p50: float
    p99: float
    failed: int
    socket_errors: int


@dataclass(frozen=True)
class Result:
    """The figures of one case, one peer and one round. Times are in milliseconds, memory in MB."""

    per_second: float
    p50: float
    p99: float
    first_byte: float | None
    cpu: float  # of the service's tree, a request that ended
    postgres_cpu: float | None  # of PostgreSQL's tree, the same
    cores: float  # that the service's tree kept busy
    others: float  # cores that programs kept busy which have nothing to do with the bench
    memory: float  # the most that was seen
    problem: str = ""  # why the figures are worth nothing

    def __str__(self) -> str:
        if self.problem:
            return f"invalid: {self.problem}"
        first = "" if self.first_byte is None else f", first byte {self.first_byte:.1f} ms"
        postgres = "" if self.postgres_cpu is None else f" + {self.postgres_cpu:.2f} of PostgreSQL"
        return (
            f"{self.per_second:.1f}/s, p50 {self.p50:.1f} ms, p99 {self.p99:.1f} ms{first}, "
            f"CPU {self.cpu:.2f}{postgres} ms, {self.cores:.2f} cores (others {self.others:.2f}), "
            f"{self.memory:.0f} MB"
        )


def parse_wrk(text: str) -> WrkOutput:
    """Read the output of `wrk --latency`. Raises ValueError for anything else."""
    summary = re.search(r"(\d+) requests in .*?Requests/sec:\s+([\d.]+)", text, re.DOTALL)
    if not summary:
        raise ValueError(f"wrk failed: {text[-300:]}")
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: (.*)", text)
    return WrkOutput(
        requests=int(summary[1]),
        per_second=float(summary[2]),
        p50=percentile(text, 50) if int(summary[1]) else math.nan,
        p99=percentile(text, 99) if int(summary[1]) else math.nan,
        failed=int(failed[1]) if failed else 0,
        socket_errors=sum(map(int, re.findall(r"\d+", errors[1]))) if errors else 0,
    )


def percentile(text: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)([a-z]+)", text, re.MULTILINE)
    return float(found[1]) * UNITS[found[2]] if found else float("nan")


def wrk(port: int, template: Template, *, clients: int, seconds: int) -> WrkOutput:
    env = {
        **os.environ,
        "TEMPLATE": template.body,
        "HEADERS": "\n".join(f"{name}: {value}" for name, value in template.headers.items()),
        "CONVERSATIONS": ",".join(template.conversations),
        "USERS": str(USERS),
        **({"KEY": f"k{time.time_ns()}-"} if template.has_key else {}),
    }
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "60s", "--latency", "-s", str(SCRIPT)]
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    done = subprocess.run([*command, url], env=env, capture_output=True, text=True, check=False)
    return parse_wrk(done.stdout + done.stderr)


def measure(root: int, postmaster: int | None, port: int, template: Template, case: Case, seconds: int) -> Result:
    """Measure a case on the service whose tree begins with process `root`."""
    try:
        proof = ask(port, template)
    except (OSError, http.client.HTTPException) as exc:
        return invalid(f"no answer: {type(exc).__name__}")
    if not proof.is_whole(is_stream=case.is_stream, reply=upstream.REPLY):
        return invalid(f"a wrong answer: {proof.status} {proof.body[:200].decode(errors='replace')}")
    # After a warm-up with streams over 30 s, its streams would still run.
    if case.delay <= WARM_UP_SECONDS:
        wrk(port, template, clients=min(case.clients, 16), seconds=WARM_UP_SECONDS)
    trees = [root] + ([postmaster] if postmaster else [])
    before, began = Reading.take(trees), time.monotonic()
    with sampling(root, port, template, case) as samples:
        said = wrk(port, template, clients=case.clients, seconds=seconds)
        answers = samples.answered()
        after, lasted = Reading.take(trees), time.monotonic() - began
    used = [now - then for now, then in zip(after.services, before.services, strict=True)]
    # What a stream costs is unknown where none has ended.
    count = said.requests + len(answers) or math.nan
    bad = [answer for answer in answers if not answer.is_whole(is_stream=True, reply=upstream.REPLY)]
    return Result(
        per_second=said.per_second,
        p50=said.p50,
        p99=said.p99,
        first_byte=median(samples.first_bytes) if samples.first_bytes else None,
        cpu=1000 * used[0] / count,
        postgres_cpu=1000 * used[1] / count if postmaster else None,
        cores=used[0] / lasted,
        others=max(0.0, after.others - before.others) / lasted,
        memory=max([*samples.memory, pss_mb(root)]),
        problem=problem_of(said, len(bad), len(answers), needs_end=not case.delay),
    )


@dataclass(frozen=True)
class Reading:
    """Processor time in seconds: of each service, and of what has nothing to do with the bench."""

    services: list[float]
    others: float

    @classmethod
    def take(cls, services: list[int]) -> "Reading":
        # wrk is a child of this process.
        bench = cpu_seconds(os.getpid(), *services, *roots_of("nginx"))
        return cls([cpu_seconds(root) for root in services], machine_cpu_seconds() - bench)


def problem_of(said: WrkOutput, bad: int, sampled: int, *, needs_end: bool = True) -> str:
    """Say why the figures are worth nothing; empty if they are worth something.

    Where a stream takes long, memory and first byte are worth something even if none has ended.
    """
    if said.failed or said.socket_errors:
        return f"{said.failed} of {said.requests} refused, {said.socket_errors} broken off"
    if bad:
        return f"{bad} of {sampled} streams not whole"
    return "" if said.requests or not needs_end else "no request ended"


def invalid(problem: str) -> Result:
    nan = math.nan
    return Result(nan, nan, nan, None, nan, None, nan, nan, nan, " ".join(problem.split()))


@dataclass
class Samples:
    """What was seen while a load ran: streams, when their answers began (ms), and the memory (MB)."""

    streams: list[Future[Answer]] = field(default_factory=list)
    first_bytes: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    def answered(self) -> list[Answer]:
        """Return the streams that have ended by now. One that got no answer counts as an empty one."""
        done = [stream for stream in self.streams if stream.done()]
        return [stream.result() if not stream.exception() else Answer(0, b"") for stream in done]


@contextmanager
def sampling(root: int, port: int, template: Template, case: Case) -> Iterator[Samples]:
    """While the block runs, read the memory, and in a case of streams time the first byte of one stream more.

    A stream begins every SAMPLE_SECONDS, whether the one before has ended or not: a slow service is not asked less.
    """
    samples, is_over = Samples(), threading.Event()

    def look() -> None:
        while not is_over.wait(MEMORY_SECONDS):
            samples.memory.append(pss_mb(root))

    def begin_streams() -> None:
        while not is_over.wait(SAMPLE_SECONDS):
            samples.streams.append(pool.submit(ask, port, template, samples.first_bytes.append))

    with ThreadPoolExecutor(200) as pool:
        threads = [threading.Thread(target=look)]
        threads += [threading.Thread(target=begin_streams)] if case.is_stream else []
        for thread in threads:
            thread.start()
        try:
            yield samples
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
