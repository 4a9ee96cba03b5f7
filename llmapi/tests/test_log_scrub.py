"""A day in the log of a real server at its most talkative: nothing in it was said, sent or kept in confidence."""

import http.cookiejar
import json
import re
import socket
import urllib.parse
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from django.contrib.auth.models import User

from analytics.ledger import pseudonym
from bench.openai_double import Behaviour, OpenAIDouble
from conftest import Server, running_server, wait_until

# Each stands for something of its kind; none is a word of the code.
PROMPT, REPLY, USER, TOKEN, PASSWORD, QUERY = "Quixotry", "Zugzwang", "Ylangylang", "Wyvernling", "Vexillary", "Umbrage"
KEY = "sk-Jabberwock0123456789"
SECRETS = [PROMPT, REPLY, USER, TOKEN, PASSWORD, QUERY, "Jabberwock"]


def quoting(prompt: str) -> list[Behaviour]:
    """Answer as providers do who repeat what they were sent, whole, cut, in another form, and in a stream."""
    words = [
        f"Incorrect API key provided: {KEY}",
        f"Incorrect API key provided: {KEY[3:14]}******",
        f"cannot answer '{prompt}'",
        f"cannot answer {json.dumps(prompt)} or {prompt.upper()} or {prompt[:-3]}…",
        f'{{"input": "{prompt.encode("unicode_escape").decode()}"}}',
    ]
    errors = [Behaviour(status=500, error={"message": text, "code": prompt, "param": prompt}) for text in words]
    plain = Behaviour(status=503, raw=f"upstream broke at {prompt}".encode(), headers={"Content-Type": "text/plain"})
    chunk = {"id": "u", "choices": [{"index": 0, "delta": {"content": f"half {REPLY}"}, "finish_reason": None}]}
    events = [chunk, {"error": {"message": f"flagged: {REPLY} after {prompt}", "code": 500}}]
    stream = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return [*errors, plain, Behaviour(raw=stream, headers={"Content-Type": "text/event-stream"})]


def turn(server: Server, prompt: str, **fields: Any) -> tuple[int, str]:
    body = {"messages": [{"role": "user", "content": prompt}], "user": USER, **fields}
    status, headers, _ = server.post("/v1/chat/completions", body)
    return status, headers["x-request-id"]


def send_raw(server: Server, data: bytes) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connected, suppress(OSError):
        connected.sendall(data)
        connected.settimeout(1)
        while connected.recv(4096):
            pass


def ask(opener: urllib.request.OpenerDirector, url: str, data: bytes | None = None, **headers: str) -> int:
    try:
        with opener.open(urllib.request.Request(url, data, headers), timeout=20) as answer:
            return int(answer.status)
    except HTTPError as exc:
        with exc:
            return exc.code


def log_in(server: Server, name: str, password: str) -> None:
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    page = f"{server.url}/admin/login/?next=/admin/{QUERY}"
    assert ask(opener, page) == 200
    token = next(cookie.value for cookie in jar if cookie.name == "csrftoken") or ""
    form = {"username": name, "password": password, "csrfmiddlewaretoken": token}
    ask(opener, page, urllib.parse.urlencode(form).encode(), Referer=page)


def live_a_day(server: Server, upstream: OpenAIDouble) -> dict[str, tuple[int, str]]:
    """Do what clients, staff and strangers do. Returns the status and the id of some requests."""
    prompt = f"my\n“{PROMPT}” {PROMPT}-{PROMPT} é"
    upstream.default = Behaviour(text=f"so {REPLY}", headers={"x-request-id": "req_of_the_provider"})
    done = {"whole": turn(server, prompt), "stream": turn(server, prompt, stream=True)}
    for number, behaviour in enumerate(quoting(prompt)):
        upstream.plan(behaviour, behaviour)
        for stream in (False, True):
            done[f"quoting {number} {stream}"] = turn(server, prompt, stream=stream)
    upstream.plan(Behaviour(refuse=True))
    done["lost"] = turn(server, prompt, stream=True)
    for where in ("view", "thread"):
        done[where] = turn(server, f"fail-in-{where} {prompt}")
    conversation = server.conversation()
    kept = {"conversation_id": conversation, "message": f"fail-in-database {prompt}"}
    status, headers, _ = server.post("/v1/chat/completions", kept)
    done["database"] = status, headers["x-request-id"]
    for body in ({"messages": PROMPT}, {"messages": [{"role": PROMPT, "content": []}]}, {"model": PROMPT}, PROMPT):
        server.post("/v1/chat/completions", body)
    server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": f"{PROMPT} " * 50_000}]})
    opener = urllib.request.build_opener()
    path = f"{server.url}/v1/chat/completions?token={QUERY}"
    for _ in range(30):
        assert ask(opener, path, b'{"half": "' + PROMPT.encode(), Authorization=f"Bearer {TOKEN}") == 401
    mine = f"Bearer {server.token}"
    ask(opener, path, b'{"half": "' + PROMPT.encode(), **{"Authorization": mine, "Content-Type": "application/json"})
    log_in(server, "boss", PASSWORD)
    log_in(server, PASSWORD, PASSWORD)
    send_raw(server, f'{{"message": "{PROMPT}"}}\r\n\r\n'.encode())
    send_raw(server, f"GET /?q={QUERY} HTTP/1.1\r\nAuthorization Bearer {TOKEN}\r\n\r\n".encode())
    send_raw(server, f"POST /x HTTP/1.1\r\nHost: {TOKEN}\r\nContent-Length: 2\r\n\r\n{PROMPT}\r\n\r\n".encode())
    return done


@pytest.mark.django_db(transaction=True)
def test_a_day_of_logs_tells_no_secret(upstream: OpenAIDouble, tmp_path: Path) -> None:
    User.objects.create_superuser("boss", password="the-right-" + PASSWORD)
    path = tmp_path / "log"
    settings = {"DEBUG": "true", "GUNICORN_CMD_ARGS": "--log-level debug", "LOG_FORMAT": "json"}
    settings |= {"MAX_REQUEST_BYTES": "100000", "OPENAI_API_KEY": KEY, "WEB_CONCURRENCY": "1"}
    with (
        path.open("wb") as output,
        running_server(upstream, "llmapi/tests/failing_server.py", output=output.fileno(), **settings) as server,
    ):
        done = live_a_day(server, upstream)
        wait_until(lambda: all(count_turns(path, request_id) for _, request_id in done.values()), 10)
    text = path.read_text()

    for secret in [*SECRETS, server.token]:
        assert not re.findall(f".{{,200}}{secret}.{{,200}}", text, re.IGNORECASE)
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert not [line for line in text.splitlines() if not line.startswith("{")]
    turns = {line["request_id"]: line for line in lines if line["message"] == "turn"}
    assert {count_turns(path, request_id) for _, request_id in done.values()} == {1}
    for name in ("whole", "stream"):
        told = turns[done[name][1]]
        assert (told["status"], told["user"], told["upstream_status"]) == ("completed", pseudonym(USER), 200)
        assert {"latency_ms", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_usd"} <= told.keys()
    assert "first_token_ms" in turns[done["stream"][1]]
    quoted = turns[done["quoting 2 True"][1]]
    assert (quoted["upstream_status"], quoted["upstream_error"]) == (500, "cannot answer 'my\n“[…]'")
    crashes = {line["exception"].splitlines()[-1] for line in lines if "exception" in line}
    assert {"ValueError", "django.db.utils.IntegrityError"} <= {crash.partition(":")[0] for crash in crashes}
    assert len([line for line in lines if line["message"] == "a thread or greenlet has crashed"]) == 2
    lost = [line["request_id"] for line in lines if line["message"].startswith("upstream connection lost")]
    assert lost == [done["lost"][1]]
    logins = [line for line in lines if line["message"] == "login failed"]
    assert [(line["address"], line.get("account")) for line in logins] == [("127.0.0.1", "boss"), ("127.0.0.1", None)]
    assert len([line for line in lines if line.get("status") == 401]) == 10


def count_turns(path: Path, request_id: str) -> int:
    return len(re.findall(rf'"request_id": "{request_id}", "message": "turn"', path.read_text()))
