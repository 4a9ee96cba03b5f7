"""The services that are measured, one class a kind."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from bench.peers import installs, request
from bench.peers.cases import Case
from bench.peers.databases import Databases
from bench.peers.processes import Start, parent_of
from bench.peers.request import Template
from llmapi.launch import ROOT, free_port

TOKEN = "tok-9f3kd82mZx71qpLw0TtY"  # noqa: S105
MASTER_KEY = "sk-9f8a7d6c5b4e3f2a1b0c"
SECRET_KEY = "of-a-benchmark-and-of-nothing-else-0123456789"  # noqa: S105
# No request is refused, and every limit is looked at and counted.
LIMITS = [
    *("--rate-limit", "10000000", "--tokens-per-min", str(10**12), "--concurrent-turns", "10000"),
    *(f"--{whose}{period}-tokens={10**14}" for whose in ("", "user-") for period in ("day", "month")),
    *(f"--{whose}{period}-usd=9999999" for whose in ("", "user-") for period in ("day", "month")),
]
STREAMS_AND_HISTORY = {"one", "many", "turns", "stream", "slow", "thousand", "short", "long"}


class Peer(ABC):
    """A service that is measured."""

    cases = STREAMS_AND_HISTORY

    def __init__(self, name: str, databases: Databases) -> None:
        self.name, self.databases = name, databases

    def takes(self, case: Case) -> bool:
        return case.name in self.cases

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yield the URL of a database for one start of the service."""
        yield ""

    @abstractmethod
    def start(self, upstream: int, database: str) -> Start:
        """Say how to start the service. It shall ask the double on port `upstream`."""

    @abstractmethod
    def template(self, start: Start, case: Case) -> Template:
        """Prepare a case on the running service, and return its request."""

    def postmaster(self, database: str) -> int | None:
        """Return the process id of the PostgreSQL server that it asks, if there is one."""
        return None


class Llmapi(Peer):
    """llmapi at a commit, as `make run` starts it: one process on SQLite, two on PostgreSQL."""

    cases = STREAMS_AND_HISTORY | {"limited", "unlimited", "session"}

    def __init__(self, name: str, databases: Databases, commit: str, *, is_postgres: bool) -> None:
        super().__init__(name, databases)
        self.commit, self.is_postgres = commit, is_postgres
        self.root = installs.clone(commit)

    @contextmanager
    def database(self) -> Iterator[str]:
        with self.databases.fresh(self.root, is_postgres=self.is_postgres) as url:
            yield url

    def start(self, upstream: int, database: str) -> Start:
        port = free_port()
        env = {
            "PORT": str(port),
            "SECRET_KEY": SECRET_KEY,
            "DATABASE_URL": database,
            "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream}/v1",
            "OPENAI_API_KEY": "sk-x",
            "CLIENT_API_TOKEN": TOKEN,
            "RATE_LIMIT_PER_MIN": "0",
            # A thousand streams, and those that measure the first byte beside them.
            "MAX_RUNNING_TURNS": "2000",
            **({"WEB_CONCURRENCY": "2"} if self.is_postgres else {}),
        }
        return Start(["make", "run"], self.root, port, "/health", env)

    def template(self, start: Start, case: Case) -> Template:
        token = TOKEN
        if case.is_session:
            key = self.create_token(start, case, "--publishable")
            token = request.start_session(start.port, key)
        elif case.limits:
            token = self.create_token(start, case, *(LIMITS if case.limits == "all" else ["--rate-limit", "0"]))
        conversations = request.create_conversations(start.port, token, case.conversations, case.messages)
        return Template(
            request.of_conversation(is_stream=case.is_stream, has_user=bool(case.limits)),
            {"Authorization": f"Bearer {token}"},
            conversations,
            has_key=True,
        )

    def create_token(self, start: Start, case: Case, *arguments: str) -> str:
        return installs.python(self.root, "manage.py", "create_client_token", case.name, *arguments, **start.env)

    def postmaster(self, database: str) -> int | None:
        if not self.is_postgres:
            return None
        with psycopg.connect(database) as connection:
            # Each connection has a process of its own, which the server's main process has forked.
            return parent_of(connection.info.backend_pid)


class Floor(Peer):
    """An empty DRF view that makes the same SDK call: bench/peers/floor.py."""

    cases = {"one", "many", "turns", "stream", "slow", "thousand"}

    def __init__(self, name: str, databases: Databases, commit: str) -> None:
        super().__init__(name, databases)
        self.root = installs.clone(commit)

    def start(self, upstream: int, database: str) -> Start:
        port = free_port()
        command = [str(self.root / ".venv/bin/python"), "-m", "gunicorn", "-k", "gevent", "-w", "1"]
        command += ["--worker-connections", "2000", "--keep-alive", "5", "--log-level", "warning"]
        command += ["-b", f"127.0.0.1:{port}", "django.core.wsgi:get_wsgi_application()"]
        env = {
            "PYTHONPATH": str(self.root),
            "ENV_FILE": os.devnull,
            "DJANGO_SETTINGS_MODULE": "bench.peers.floor_settings",
            "SECRET_KEY": SECRET_KEY,
            "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream}/v1",
            "OPENAI_API_KEY": "sk-x",
        }
        # Not in the clone, where gunicorn would find the configuration of the service.
        return Start(command, self.databases.scratch, port, "/health", env)

    def template(self, start: Start, case: Case) -> Template:
        return Template(json.dumps({"message": request.MESSAGE, "stream": case.is_stream}), {})


class LiteLLM(Peer):
    """LiteLLM's proxy with two workers, a master key and no database: its best case."""

    def start(self, upstream: int, database: str) -> Start:
        port, config = free_port(), self.databases.scratch / "litellm.yaml"
        url = f"http://127.0.0.1:{upstream}/v1"
        parameters = {"model": f"openai/{request.MODEL}", "api_base": url, "api_key": "sk-x"}
        model = {"model_name": request.MODEL, "litellm_params": parameters}
        config.write_text(json.dumps({"model_list": [model], "general_settings": {"master_key": MASTER_KEY}}))
        program = installs.venv("litellm") / "litellm"
        command = [str(program), "--config", str(config), "--port", str(port), "--num_workers", "2"]
        env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        return Start(command, self.databases.scratch, port, "/health/liveliness", env)

    def template(self, start: Start, case: Case) -> Template:
        body = request.of_openai(case.messages, is_stream=case.is_stream)
        return Template(body, {"Authorization": f"Bearer {MASTER_KEY}"})


class Portkey(Peer):
    """Portkey's gateway on Node, which stores nothing and knows no tokens of its own."""

    def start(self, upstream: int, database: str) -> Start:
        port = free_port()
        self.upstream = upstream
        program = "node_modules/@portkey-ai/gateway/build/start-server.js"
        return Start(["node", program, f"--port={port}", "--headless"], installs.portkey(), port, "/", {})

    def template(self, start: Start, case: Case) -> Template:
        headers = {
            "Authorization": "Bearer x",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{self.upstream}/v1",
        }
        return Template(request.of_openai(case.messages, is_stream=case.is_stream), headers)


class FastAPI(Peer):
    """The service as people write it in an afternoon: bench/peers/plain_fastapi.py, two workers on SQLite."""

    cases = {"one", "many", "turns"}

    @contextmanager
    def database(self) -> Iterator[str]:
        path = self.databases.scratch / "fastapi.sqlite3"
        yield str(path)
        with suppress(FileNotFoundError):
            path.unlink()

    def start(self, upstream: int, database: str) -> Start:
        port = free_port()
        program = installs.venv("fastapi") / "uvicorn"
        command = [
            str(program),
            "bench.peers.plain_fastapi:app",
            "--port",
            str(port),
            "--workers",
            "2",
            "--no-access-log",
        ]
        env = {
            "DB": database,
            "OPENAI_API_KEY": "x",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream}/v1",
            "CLIENT_API_TOKEN": TOKEN,
        }
        return Start(command, ROOT, port, "/health", env)

    def template(self, start: Start, case: Case) -> Template:
        conversations = request.create_conversations(start.port, TOKEN, case.conversations, 0)
        body = request.of_conversation(is_stream=False, has_user=False)
        return Template(body, {"Authorization": f"Bearer {TOKEN}"}, conversations, has_key=True)


def make_peer(name: str, databases: Databases, base: str | None) -> Peer:
    """Return the peer of that name."""
    kind, _, is_base = name.partition("-")
    commit = base if is_base and base else "HEAD"
    match kind:
        case "sqlite" | "postgres":
            return Llmapi(name, databases, commit, is_postgres=kind == "postgres")
        case "floor":
            return Floor(name, databases, commit)
        case "litellm":
            return LiteLLM(name, databases)
        case "portkey":
            return Portkey(name, databases)
        case _:
            return FastAPI(name, databases)
