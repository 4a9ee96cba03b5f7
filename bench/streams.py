"""Measure what llmapi adds to a stream, to its first byte and to each chunk, and how many streams it carries.

    python -m bench.streams delay                 1 and 100 streams at once, against the upstream directly
    python -m bench.streams many --streams 500    so many at once in one worker, 30 seconds each

Each chunk carries the time at which the upstream sent it (one clock for all processes of the machine).
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import http.client  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402

import gevent  # noqa: E402
import psycopg  # noqa: E402

from bench.stack import TOKEN, Stack, ask, now_ms, resident_bytes, running  # noqa: E402


@dataclass
class Reading:
    """Milliseconds from the request to the first chunk, and from the sending of each chunk to its arrival."""

    first: float = 0
    delays: list[float] = field(default_factory=list)
    is_whole: bool = False


def read_stream(base: str) -> Reading:
    reading = Reading()
    connection = http.client.HTTPConnection(base.removeprefix("http://"), timeout=120)
    began = now_ms()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", ask("Hi"), headers)
    answer = connection.getresponse()
    while line := answer.readline():
        arrived = now_ms()
        reading.first = reading.first or arrived - began
        if line == b"data: [DONE]\n":
            reading.is_whole = True
        elif line.startswith(b"data: "):
            choices = json.loads(line[6:])["choices"]
            if choices and (stamp := choices[0]["delta"].get("content")):
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
    settings = {"WEB_CONCURRENCY": "1", "PGAPPNAME": "llmapi-bench"}
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
    parser.add_argument("what", choices=["delay", "many"])
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--database-url", default="", help="of an empty PostgreSQL database; a SQLite file without it")
    args = parser.parse_args()
    if args.what == "delay":
        delay()
    else:
        many(args.streams, args.seconds, args.database_url)


if __name__ == "__main__":
    main()
