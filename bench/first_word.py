"""Measure how long a new machine takes from `git clone` to the first streamed word, step by step.

    python -m bench.first_word

It clones this repository into a folder of its own, runs `make run` there, twice: in front of a double of OpenAI, which
answers at once, and as a newcomer does, with the trial model. Packages come from the index that pip is set up for.
"""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench.openai_double import OpenAIDouble
from llmapi.launch import ROOT, free_port, wait_for

# What would make the clone's server another one than a newcomer's.
UNSET = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "DATABASE_URL", "ENV_FILE", "SECRET_KEY", "CLIENT_API_TOKEN", "MAKEFLAGS")
BODY = json.dumps({"messages": [{"role": "user", "content": "Say hello."}], "stream": True})


def main() -> None:
    env = {name: value for name, value in os.environ.items() if name not in UNSET}
    rows: list[tuple[str, float]] = []

    def timed(what: str, work: Callable[[], object]) -> None:
        began = time.monotonic()
        work()
        rows.append((what, time.monotonic() - began))

    with tempfile.TemporaryDirectory() as scratch, OpenAIDouble() as upstream:
        clone = Path(scratch, "llmapi")
        timed("`git clone`", lambda: run(["git", "clone", "-q", str(ROOT), str(clone)], ROOT, env))
        timed("`make run`: the environment and its packages", lambda: run(["make", ".venv/run"], clone, env))
        for name, settings in (("a double of OpenAI", {"OPENAI_BASE_URL": upstream.url}), ("the trial model", {})):
            for when in ("first", "second"):
                port = str(free_port())
                began = time.monotonic()
                with served(clone, {**env, **settings, "PORT": port}, port):
                    rows.append((f"`make run`, {when} time with {name}: until ready", time.monotonic() - began))
                    timed(f"the same: the first word of a stream from {name}", partial(first_word, clone, port))
    print("| step | seconds |\n|---|---|")
    for what, seconds in rows:
        print(f"| {what} | {seconds:.2f} |")


def run(command: list[str], folder: Path, env: dict[str, str]) -> None:
    subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def served(clone: Path, env: dict[str, str], port: str) -> Iterator[None]:
    """Run `make run` until the block ends, as Ctrl-C ends it."""
    process = subprocess.Popen(["make", "run"], cwd=clone, env=env, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        # The installation of the trial model may take longer than a start.
        while not (clone / ".env").exists() and process.poll() is None:
            time.sleep(0.01)
        wait_for(f"http://127.0.0.1:{port}/ready", process, "make run did not serve.")
        yield
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


def first_word(clone: Path, port: str) -> None:
    token = next(line for line in (clone / ".env").read_text().splitlines() if line.startswith("CLIENT_API_TOKEN="))
    headers = {"Authorization": f"Bearer {token.partition('=')[2]}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
    connection.request("POST", "/v1/chat/completions", BODY, headers)
    with contextlib.closing(connection), connection.getresponse() as answer:
        for line in answer:
            choices = json.loads(line[6:]).get("choices") if line.startswith(b"data: {") else None
            if choices and choices[0]["delta"].get("content"):
                return
    raise SystemExit("The stream had no word.")


if __name__ == "__main__":
    main()
