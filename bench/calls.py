"""Requests of a bench to a server, each on a socket of its own, and the processor time of whole process trees."""

import http.client
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.stack import TOKEN, children_of


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def call(server: str, path: str, body: dict[str, Any] | None = None, **headers: str) -> Answer:
    """Send a GET, or a POST where there is a body, with the token of the bench."""
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=60)
    sent = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), sent)
    answer = connection.getresponse()
    found = Answer(answer.status, answer.read())
    connection.close()
    return found


def say(server: str, number: int) -> Answer:
    """Send one turn of a conversation of its own under a key; every other one is a stream."""
    conversation = call(server, "/v1/conversations", {}).json["id"]
    body = {"conversation_id": conversation, "message": f"turn {number}", "stream": number % 2 == 1}
    return call(server, "/v1/chat/completions", body, idempotency_key=f"turn {number} of {conversation}")


def turns(server: str, count: int, *, at_once: int = 20) -> list[Answer]:
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda number: say(server, number), range(count)))


def is_whole(answer: Answer) -> bool:
    """Whether a turn was answered: by an object, or by a stream up to its end."""
    return answer.status == 200 and (answer.body.startswith(b"{") or answer.body.endswith(b"data: [DONE]\n\n"))


def tree_seconds(pid: int) -> float:
    """Return the processor time of a process and all below it, those that have ended included (Linux)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(tree_seconds, children_of(pid)))
