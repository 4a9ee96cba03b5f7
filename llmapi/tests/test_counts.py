"""What several processes count is one sum, whichever of them is asked, and whatever becomes of them."""

import fcntl
import os
import signal
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

from prometheus_client import parser

from bench.stack import children_of
from conftest import Server, wait_until
from llmapi import counts

HI = {"messages": [{"role": "user", "content": "Hi"}]}
TURNS = "llmapi_turn_seconds_count", ("model", "gpt-4o-mini"), ("status", "completed")


def scrape(server: Server) -> dict[tuple[object, ...], float]:
    with urllib.request.urlopen(f"{server.url}/metrics?format=prometheus", timeout=10) as answer:
        families = parser.text_string_to_metric_families(answer.read().decode())
        return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def folder_of(server: Server) -> Path:
    """The folder that the master holds open."""
    files = [Path(os.readlink(file)) for file in Path(f"/proc/{server.process.pid}/fd").iterdir()]
    (folder,) = [file for file in files if file.name.startswith(counts.PREFIX)]
    return folder


def test_processes_are_one_sum(serve: Callable[..., Server]) -> None:
    server = serve(WEB_CONCURRENCY="2", METRICS_PUBLIC="true")
    folder = folder_of(server)
    assert folder.parent == Path(tempfile.gettempdir())

    def has_two_processes(*, other_than: list[int]) -> bool:
        workers = children_of(server.process.pid)
        is_counted = scrape(server)["llmapi_processes",] == 2
        return len(workers) == 2 and not set(workers) & set(other_than) and is_counted

    for _ in range(8):
        assert server.post("/v1/chat/completions", HI)[0] == 200
    # Each scrape has a connection of its own, so that both answer.
    assert {scrape(server)[TURNS] for _ in range(8)} == {8}
    assert len(list(folder.glob("histogram_*.db"))) == 3  # with the master's, which prepares the series

    ended = children_of(server.process.pid)
    for worker, sent in zip(ended, (signal.SIGKILL, signal.SIGTERM), strict=True):
        os.kill(worker, sent)
    wait_until(lambda: has_two_processes(other_than=ended))
    assert server.post("/v1/chat/completions", HI)[0] == 200
    assert {scrape(server)[TURNS] for _ in range(4)} == {9}

    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(children_of(server.process.pid)) == 4)
    assert scrape(server)[TURNS] == 9
    assert folder_of(server) == folder


def test_the_next_server_removes_what_a_killed_one_has_left(tmp_path: Path) -> None:
    left, used = tmp_path / f"{counts.PREFIX}left", tmp_path / f"{counts.PREFIX}used"
    for folder in (left, used):
        folder.mkdir()
        (folder / "counter_1.db").touch()
    holder = os.open(used, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_SH)

    counts.remove_left(tmp_path)

    os.close(holder)
    assert (left.exists(), used.exists()) == (False, True)
