"""Measure what llmapi adds to a stream, to its first byte and to each chunk, and how many streams it carries.

    python -m bench.streams delay                 1 and 100 streams at once, against the upstream directly
    python -m bench.streams many --streams 500    so many at once in one worker, 30 seconds each
    python -m bench.streams join                  1, 20 and 100 streams of one node, read on another one, on PostgreSQL

Each chunk carries the time at which the upstream sent it (one clock for all processes of the machine).
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import http.client  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import psycopg  # noqa: E402

from bench.stack import TOKEN, Stack, ask, children_of, now_ms, processor_seconds, resident_bytes, running  # noqa: E402


@dataclass
class Reading:
    """Milliseconds from the request to the first chunk, and from the sending of each chunk to its arrival."""

    first: float = 0
    delays: list[float] = field(default_factory=list)
    arrivals: dict[str, float] = field(default_factory=dict)  # by the time of sending
    is_whole: bool = False


def read_stream(base: str, key: str = "", *, leave: bool = False) -> Reading:
    """Read a stream to its end, or `leave` after its first line."""
    reading = Reading()
    connection = http.client.HTTPConnection(base.removeprefix("http://"), timeout=120)
    began = now_ms()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    if key:
        headers["Idempotency-Key"] = key
    connection.request("POST", "/v1/chat/completions", ask("Hi"), headers)
    answer = connection.getresponse()
    while line := answer.readline():
        arrived = now_ms()
        reading.first = reading.first or arrived - began
        if leave:
            break
        if line == b"data: [DONE]\n":
            reading.is_whole = True
        elif line.startswith(b"data: "):
            choices = json.loads(line[6:])["choices"]
            if choices and (stamp := choices[0]["delta"].get("content")):
                reading.arrivals[stamp] = arrived
                if int(stamp) / 1e6 > began:  # An earlier chunk has waited for the reader.
                    reading.delays.append(arrived - int(stamp) / 1e6)
    connection.close()
    return reading


def read_many(base: str, streams: int) -> list[Reading]:
    jobs = [gevent.spawn(read_stream, base) for _ in range(streams)]
    gevent.joinall(jobs, raise_error=True)
    return [job.get() for job in jobs]


def percentiles(values: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[98]


def delay() -> None:
    print(
        "| streams | what | direct p50 | p99 | llmapi p50 | p99 | added p50 | p99 |\n|---|---|---|---|---|---|---|---|"
    )
    with running(chunks=20, pause=0.05, WEB_CONCURRENCY="1") as stack:
        for streams, rounds in ((1, 40), (100, 3)):
            for base in (stack.upstream, stack.server):  # warm
                read_many(base, streams)
            direct, through = ([r for _ in range(rounds) for r in read_many(base, streams)] for base in bases(stack))
            row(streams, "first byte (ms)", [r.first for r in direct], [r.first for r in through])
            chunks = [[d for r in readings for d in r.delays] for readings in (direct, through)]
            row(streams, "each chunk (ms)", *chunks)


def bases(stack: Stack) -> tuple[str, str]:
    return stack.upstream, stack.server


def row(streams: int, what: str, direct: list[float], through: list[float]) -> None:
    d50, d99 = percentiles(direct)
    t50, t99 = percentiles(through)
    figures = " | ".join(f"{value:.1f}" for value in (d50, d99, t50, t99, t50 - d50, t99 - d99))
    print(f"| {streams} | {what} | {figures} |", flush=True)


def many(streams: int, seconds: int, database_url: str) -> None:
    settings: dict[str, Any] = {"WEB_CONCURRENCY": "1", "PGAPPNAME": "llmapi-bench"}
    if database_url:
        settings["DATABASE_URL"] = database_url
    with running(chunks=seconds, pause=1, **settings) as stack:
        read_stream(stack.upstream)
        (worker,) = stack.workers
        before = resident_bytes(worker)
        job = gevent.spawn(read_many, stack.server, streams)
        peak, held = before, []
        while not job.ready():
            gevent.sleep(1)
            peak = max(peak, resident_bytes(worker))
            if database_url:
                held.append(connections(database_url))
        readings = job.get()
    whole = sum(reading.is_whole and len(reading.delays) >= seconds for reading in readings)
    p50, p99 = percentiles([d for reading in readings for d in reading.delays])
    print(f"{streams} streams of {seconds} s at once in one worker process: {whole} whole")
    print(f"delay of a chunk: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    each = (peak - before) / streams / 1024
    print(f"memory: {before / 2**20:.0f} MiB before, {peak / 2**20:.0f} MiB at most: {each:.0f} KiB a stream")
    if held:
        print(f"pg_stat_activity each second, (open, not idle): {held}")


def join(database_url: str) -> None:
    """Read streams of 60 chunks a second on another node than the one that runs them, a second after their begin."""
    if not database_url:
        raise SystemExit("Streams are joined on PostgreSQL; name an empty database with --database-url.")
    print(
        "| streams | first chunk of a join (ms): p50, p99 | each later chunk, after it came where the stream runs: "
        "p50, p99 | CPU of PostgreSQL (%), without joins | with | the node that runs them | the node that joins |\n"
        "|---|---|---|---|---|---|---|"
    )
    with running(chunks=360, pause=1 / 60, nodes=2, WEB_CONCURRENCY="1", DATABASE_URL=database_url) as stack:
        for base, _ in stack.nodes:
            read_stream(base)
        for streams in (1, 20, 100):
            alone = read_twice(stack, database_url, streams, is_joined=False)
            joined = read_twice(stack, database_url, streams, is_joined=True)
            pairs = (percentiles(joined.firsts * 2), percentiles(joined.later))
            figures = " | ".join(f"{p50:.0f}, {p99:.0f}" for p50, p99 in pairs)
            load = " | ".join(f"{percent:.1f}" for percent in (alone.load[0], *joined.load))
            print(f"| {streams} | {figures} | {load} |", flush=True)


@dataclass
class Joined:
    """Milliseconds to the first chunk of a join, and by which later ones came later than where the stream runs."""

    firsts: list[float]
    later: list[float]
    load: list[float]  # of PostgreSQL and of both nodes, in percent of a processor


def read_twice(stack: Stack, database_url: str, streams: int, *, is_joined: bool) -> Joined:
    """Start so many streams on one node, and join them on the other. A few are read to the end on the first, too."""
    (here, first_master), (there, second_master) = stack.nodes
    keys = [f"{now_ms()}-{number}" for number in range(streams)]
    local = [gevent.spawn(read_stream, here, key, leave=number >= 5) for number, key in enumerate(keys)]
    gevent.sleep(1)
    gevent.joinall(local[5:], raise_error=True)
    groups = [backends(database_url), children_of(first_master), children_of(second_master)]
    before, began = [processor_seconds(*group) for group in groups], now_ms()
    remote = [gevent.spawn(read_stream, there, key) for key in keys] if is_joined else []
    gevent.joinall(local + remote, raise_error=True)
    seconds = (now_ms() - began) / 1000
    load = [100 * (processor_seconds(*group) - used) / seconds for group, used in zip(groups, before, strict=True)]
    pairs = [(one.get(), other.get()) for one, other in zip(local, remote, strict=False)][:5]
    assert all(reading.get().is_whole for reading in remote), "a joined stream is not whole"
    assert all(one.arrivals.keys() == other.arrivals.keys() for one, other in pairs), "a joined stream is another one"
    later = [other.arrivals[sent] - one.arrivals[sent] for one, other in pairs for sent in list(one.arrivals)[120:]]
    return Joined([reading.get().first for reading in remote], later, load)


def backends(database_url: str) -> list[int]:
    with psycopg.connect(database_url) as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return [pid for (pid,) in connection.execute(query)]


def connections(database_url: str) -> tuple[int, int]:
    query = """
        SELECT count(*), count(*) FILTER (WHERE state <> 'idle')
        FROM pg_stat_activity WHERE application_name = 'llmapi-bench'
    """
    with psycopg.connect(database_url) as connection:
        row = connection.execute(query).fetchone()
    assert row
    return row[0], row[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["delay", "many", "join"])
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--database-url", default="", help="of an empty PostgreSQL database; a SQLite file without it")
    args = parser.parse_args()
    if args.what == "delay":
        delay()
    elif args.what == "join":
        join(args.database_url)
    else:
        many(args.streams, args.seconds, args.database_url)


if __name__ == "__main__":
    main()
