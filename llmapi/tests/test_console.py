"""What a server prints at a terminal: no line for what went well, but one short line for each turn."""

import os
import pty
import re
import urllib.request
from contextlib import suppress
from typing import Any

import pytest

from bench.openai_double import Behaviour, OpenAIDouble
from conftest import running_server


def read_all(terminal: int) -> str:
    printed = b""
    with suppress(OSError):  # on Linux a terminal that nobody holds any more
        while data := os.read(terminal, 65536):
            printed += data
    return printed.decode()


@pytest.mark.django_db(transaction=True)
def test_a_terminal_is_quiet(upstream: OpenAIDouble) -> None:
    upstream.plan(Behaviour(text="One two three"), Behaviour(status=503, error={"message": "overloaded"}))
    terminal, output = pty.openpty()
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
    with running_server(upstream, output=output, LOG_FORMAT="", WEB_CONCURRENCY="1") as server:
        os.close(output)
        for path in ("/health", "/ready", "/", "/static/web/chat.css", "/docs"):
            with urllib.request.urlopen(server.url + path, timeout=20) as answer:
                assert answer.status == 200
        ids = [server.post("/v1/chat/completions", body)[1]["x-request-id"] for _ in range(2)]
        server.post("/v1/nothing", body)
    printed = read_all(terminal).replace("\r\n", "\n")
    os.close(terminal)

    name, clock = "CLIENT_API_TOKEN gpt-4o-mini", r"\d\d:\d\d:\d\d"
    patterns = [
        rf"{clock} {name} completed, 5\+4 tokens, \$0\.0000\d+, \d+ ms {ids[0]}",
        rf"{clock} WARNING {name} failed: upstream_error, \d+ ms, the provider said: overloaded {ids[1]}",
        rf"{clock} POST /v1/chat/completions 502 upstream_error, \d+ ms, CLIENT_API_TOKEN {ids[1]}",
        rf"{clock} POST /v1/nothing 404 not_found, \d+ ms, 127\.0\.0\.1 r_\w+",
    ]
    # What the server finds out about the provider by itself comes at any moment.
    lines = [line for line in printed.splitlines() if line and "model" not in line.replace(name, "")]
    assert len(lines) == len(patterns), printed
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), printed
