"""The parts of the bench that can be wrong without being seen: what is read, what is counted, what is left behind."""

import json
import math
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from django.test import Client
from pytest_django import Settings

from bench.openai_double import OpenAIDouble
from bench.peers import installs, processes
from bench.peers.cases import CASES
from bench.peers.load import Result, WrkOutput, parse_wrk, problem_of, wrk
from bench.peers.processes import Start, cpu_seconds, running, stat, tree_of
from bench.peers.report import Run, format_figure, report
from bench.peers.request import Template, ask, of_conversation, of_openai
from bench.peers.upstream import CHUNKS, CONFIG, REPLY
from llmapi.launch import free_port

# Of wrk 4.1.0.
WRK_OUTPUT = """Running 2s test @ http://127.0.0.1:9000/v1/chat/completions
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   612.35ms  181.07us   1.57s    78.80%
    Req/Sec    61.51     11.59     0.13k    76.19%
  Latency Distribution
     50%  897.70ms
     75%    1.03s
     90%    1.20s
     99%    1.57s
  1287 requests in 2.10s, 39.11MB read
  Socket errors: connect 0, read 3, write 0, timeout 2
  Non-2xx or 3xx responses: 17
Requests/sec:    611.47
Transfer/sec:     18.63MB
"""


def test_reads_what_wrk_reports() -> None:
    assert parse_wrk(WRK_OUTPUT) == WrkOutput(1287, 611.47, p50=897.7, p99=1570.0, failed=17, socket_errors=5)


def test_reads_latencies_in_microseconds() -> None:
    assert parse_wrk(WRK_OUTPUT.replace("897.70ms", "49.43us")).p50 == pytest.approx(0.04943)


def test_knows_no_latency_where_nothing_ended() -> None:
    assert math.isnan(parse_wrk(WRK_OUTPUT.replace("1287 requests", "0 requests")).p50)


def test_refuses_what_wrk_says_when_it_fails() -> None:
    with pytest.raises(ValueError, match="unable to connect"):
        parse_wrk("unable to connect to 127.0.0.1:1 Connection refused")


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (WrkOutput(100, 10, 1, 1, failed=0, socket_errors=0), ""),
        (WrkOutput(100, 10, 1, 1, failed=7, socket_errors=0), "7 of 100 refused"),
        (WrkOutput(100, 10, 1, 1, failed=0, socket_errors=2), "2 broken off"),
        (WrkOutput(0, 0, 1, 1, failed=0, socket_errors=0), "no request ended"),
    ],
)
def test_a_failed_answer_makes_a_row_invalid(said: WrkOutput, problem: str) -> None:
    assert problem in problem_of(said, bad=0, sampled=0)
    assert bool(problem) == bool(problem_of(said, bad=0, sampled=0))


def figures(per_second: float, cpu: float = 1.0, problem: str = "") -> Result:
    return Result(per_second, 5.0, 9.0, None, cpu, None, 1.0, 0.1, 100.0, problem)


def test_divides_by_litellm_in_the_same_round() -> None:
    results = {
        ("many", "sqlite"): [figures(100), figures(300), figures(80)],
        ("many", "litellm"): [figures(50), figures(100), figures(20)],
    }
    run = Run([case for case in CASES if case.name == "many"], ["sqlite", "litellm"], results)

    assert run.ratios("many", "sqlite", lambda r: r.per_second) == [2, 3, 4]
    text = report(run, "facts")
    assert text.index("3.00 (2.00..4.00)") < text.index("100 (80.0..300)")


def test_shows_why_a_row_is_invalid_and_not_its_figures() -> None:
    results = {("many", "portkey"): [figures(123456), figures(123457, problem="99 of 100 refused")]}
    text = report(Run([case for case in CASES if case.name == "many"], ["portkey"], results), "facts")

    assert "99 of 100 refused" in text
    assert "123" not in text


def test_a_chunk_costs_what_a_stream_costs_beyond_a_turn() -> None:
    results = {("turns", "sqlite"): [figures(1, cpu=2.0)], ("stream", "sqlite"): [figures(1, cpu=5.0)]}
    run = Run(CASES, ["sqlite"], results)

    assert "| 50.0 " in report(run, "facts")


def test_formats_a_median_with_its_range() -> None:
    assert format_figure([3.0, 1.0, 2.0]) == "2.00 (1.00..3.00)"
    assert format_figure([1234.5]) == "1,234"
    assert format_figure([float("nan")]) == "–"


BURN = "import time\nwhile time.process_time() < 0.3: pass\n"


def test_counts_the_processor_time_of_children_alive_and_ended() -> None:
    program = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\n"
        f"subprocess.Popen([sys.executable, '-c', {BURN + 'print(flush=True); time.sleep(60)'!r}]).wait()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            pids = tree_of(process.pid)
            assert len(pids) == 2
            assert cpu_seconds(process.pid) >= 0.55
            assert cpu_seconds(process.pid, *pids) < 2 * cpu_seconds(process.pid)
            assert processes.pss_mb(process.pid) > processes.pss_mb(pids[1])
        finally:
            for pid in reversed(tree_of(process.pid)):
                os.kill(pid, 9)


def test_leaves_no_process_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.2)
    monkeypatch.setattr(processes, "SETTLE_SECONDS", 0)
    port = free_port()
    serve = f"{sys.executable} -m http.server --bind 127.0.0.1 {port}"
    # Neither the shell nor the server ends when it is asked to.
    start = Start(["sh", "-c", f"trap '' TERM; {serve} & wait"], tmp_path, port, "/", {})

    with running(start, tmp_path / "log") as pid:
        pids = tree_of(pid)

    assert len(pids) == 2
    assert all(stat(pid)[:1] in ([], ["Z"]) for pid in pids)


def test_says_what_a_service_wrote_that_does_not_start(tmp_path: Path) -> None:
    start = Start(["sh", "-c", "echo no licence; exit 1"], tmp_path, free_port(), "/", {})

    with pytest.raises(processes.NotStarted, match="no licence"), running(start, tmp_path / "log"):
        pass


def test_names_a_missing_tool_and_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(SystemExit, match="needs nginx, which is missing; install it"):
        installs.check_tools(["sqlite"])


@pytest.fixture
def nginx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The double on a port of the test's own."""
    if not shutil.which("nginx") or not all(module.exists() for module in installs.LUA):
        pytest.skip("nginx with Lua is not installed")
    monkeypatch.setattr(processes, "SETTLE_SECONDS", 0)
    text, port = CONFIG.read_text(), free_port()
    for number in (9000, 9200, 9300, 9500):
        text = text.replace(f"127.0.0.1:{number}", f"127.0.0.1:{port if number == 9000 else free_port()}")
    (tmp_path / "nginx.conf").write_text(text)
    (tmp_path / "logs").mkdir()
    command = ["nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-g", "daemon off;"]
    with running(Start(command, tmp_path, port, "/hits", {}), tmp_path / "log"):
        yield port


def test_the_double_answers_whole(nginx: int) -> None:
    began: list[float] = []
    turn = ask(nginx, Template(of_openai(200, is_stream=False), {}), began.append)
    stream = ask(nginx, Template(of_openai(200, is_stream=True), {}), began.append)

    assert turn.is_whole(is_stream=False, reply=REPLY)
    assert stream.is_whole(is_stream=True, reply=REPLY)
    assert stream.body.count(b'"content":"word "') == CHUNKS
    assert len(began) == 2


def test_a_stream_without_its_end_is_not_whole(nginx: int) -> None:
    stream = ask(nginx, Template(of_openai(0, is_stream=True), {}))
    cut = type(stream)(200, stream.body.replace(b"data: [DONE]", b""))

    assert not cut.is_whole(is_stream=True, reply=REPLY)


class Recorder(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), RecordingHandler)
        self.seen: list[tuple[dict[str, str], str | None, str | None]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: wrk hangs up at its end."""


class RecordingHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Recorder

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((body, self.headers["Idempotency-Key"], self.headers["X-Target"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_wrk_goes_round_conversations_and_users_with_new_keys() -> None:
    template = Template(
        of_conversation(is_stream=True, has_user=True), {"X-Target": "http://a/v1"}, ["c_1", "c_2", "c_3"], has_key=True
    )
    with Recorder() as server:
        threading.Thread(target=server.serve_forever).start()
        said = wrk(server.server_port, template, clients=2, seconds=1)
        server.shutdown()

    assert said.failed == said.socket_errors == 0
    bodies, keys, targets = zip(*server.seen, strict=True)
    assert {body["conversation_id"] for body in bodies} == {"c_1", "c_2", "c_3"}
    assert len({body["user"] for body in bodies}) > 3
    assert all(body["stream"] for body in bodies)
    assert len(set(keys)) == len(keys) > 3
    assert set(targets) == {"http://a/v1"}


@pytest.mark.urls("bench.peers.floor")
def test_the_floor_passes_on_what_the_provider_says(upstream: OpenAIDouble, settings: Settings) -> None:
    settings.MIDDLEWARE = []
    turn = Client().post("/v1/chat/completions", {"message": "Hi"}, content_type="application/json")
    stream = Client().post("/v1/chat/completions", {"message": "Hi", "stream": True}, content_type="application/json")

    assert turn.json()["choices"][0]["message"]["role"] == "assistant"
    assert stream.getvalue().rstrip().endswith(b"data: [DONE]")
