"""What every test has: an upstream double, two clients, and real servers."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client
from pytest_django import Settings

from bench.openai_double import OpenAIDouble
from llmapi.launch import ROOT, free_port, wait_for


@pytest.fixture
def upstream(settings: Settings) -> Iterator[OpenAIDouble]:
    from chat.upstream.client import client

    with OpenAIDouble() as double:
        settings.OPENAI_BASE_URL = double.url
        client.cache_clear()
        yield double
        client().close()
        client.cache_clear()


class ApiClient(Client):
    """Django's test client, speaking JSON with a client token."""

    def __init__(self, name: str) -> None:
        from chat.models import ClientToken

        self.token_row = ClientToken(name=name)
        self.token = self.token_row.renew()
        self.token_row.save()
        # Tests see the 500 that a client would see.
        super().__init__(headers={"authorization": f"Bearer {self.token}"}, raise_request_exception=False)

    def send(self, path: str, body: Any, key: str | None = None, **headers: str) -> Any:
        if key is not None:
            headers["Idempotency-Key"] = key
        data = body if isinstance(body, str | bytes) else json.dumps(body)
        return self.post(path, data, content_type="application/json", headers=headers)

    def conversation(self) -> str:
        answer = self.send("/v1/conversations", {})
        assert answer.status_code == 201, answer.content
        conversation_id: str = answer.json()["id"]
        return conversation_id

    def say(self, conversation_id: str, message: str, key: str | None = None, **fields: Any) -> Any:
        body = {"conversation_id": conversation_id, "message": message, **fields}
        return self.send("/v1/chat/completions", body, key)


@pytest.fixture
def alice(db: None) -> ApiClient:
    return ApiClient("alice")


@pytest.fixture
def bob(db: None) -> ApiClient:
    return ApiClient("bob")


@pytest.fixture
def by_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Around midnight a turn asks the database whether a clock is wrong."""
    from analytics.ledger import turns as recording

    monkeypatch.setattr(recording, "is_near_midnight", lambda: False)


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.01)


@dataclass
class Server:
    """A gunicorn of its own, on the database of the test."""

    url: str
    token: str
    process: subprocess.Popen[bytes]

    def post(self, path: str, body: Any, key: str | None = None) -> tuple[int, dict[str, str], bytes]:
        """On a new connection, so that the kernel deals requests to all processes."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        if key:
            headers["Idempotency-Key"] = key
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, dict(answer.headers.items()), answer.read()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, dict(exc.headers.items()), exc.read()


def environment(upstream: OpenAIDouble, **settings: str) -> dict[str, str]:
    """What a server process is told: the test's database, and the double for OpenAI."""
    from django.db import connection

    database = connection.settings_dict
    url = f"sqlite:///{database['NAME']}"
    if connection.vendor == "postgresql":
        login = ":".join(quote(part, safe="") for part in (database["USER"], database["PASSWORD"]) if part)
        host = f"{database['HOST'] or '127.0.0.1'}:{database['PORT'] or 5432}"
        url = f"postgres://{login}{'@' if login else ''}{host}/{database['NAME']}"
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "llmapi.settings",
        "DATABASE_URL": url,
        "OPENAI_BASE_URL": upstream.url,
        "IDEMPOTENCY_WAIT_SECONDS": "20",
        **settings,
    }


@pytest.fixture
def serve(transactional_db: None, upstream: OpenAIDouble) -> Iterator[Callable[..., Server]]:
    """`serve(WEB_CONCURRENCY="2")` starts a server with these settings, and returns once it is ready."""
    running: list[Server] = []

    def start(probe: str = "/ready", **settings: str) -> Server:
        port = free_port()
        env = environment(upstream, PORT=str(port), **settings)
        process = subprocess.Popen([sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"], cwd=ROOT, env=env)
        server = Server(f"http://127.0.0.1:{port}", env["CLIENT_API_TOKEN"], process)
        running.append(server)
        wait_for(server.url + probe, process, "The server did not start.")
        return server

    yield start
    for server in running:
        server.process.terminate()
        server.process.wait(30)
