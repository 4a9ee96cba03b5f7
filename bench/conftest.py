"""A small service in the place of llmapi, for the tests of clients that are hostile and of those that are not."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from gevent import event, server

from bench.hostile.honest import CHUNKS
from bench.hostile.world import World

WORLD = World(
    ["honest-0", "honest-1"], hostile="hostile-token", limited="limited-token", poor="poor-token", session="s"
)
OURS = (*WORLD.honest, WORLD.hostile, WORLD.limited, WORLD.poor)
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
LOGIN_PAGE = b'<input name="csrfmiddlewaretoken" value="secret">'


class Recorder(server.StreamServer):
    """A service that remembers every byte of every connection, and answers each whole request with `answer`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), backlog=512)
        self.seen: list[bytearray] = []
        self.open = 0
        self.unsent = 0  # answers that nobody has read to the end
        self.has_request = event.Event()
        self.answer: Callable[[bytes], bytes] = answer_of

    @property
    def port(self) -> int:
        return int(self.server_port or 0)

    def handle(self, connection: Any, _: Any) -> None:
        seen = bytearray()
        self.seen.append(seen)
        self.open += 1
        rest = b""
        try:
            while data := connection.recv(65536):
                seen += data
                rest += data
                self.has_request.set()
                while (end := end_of(rest)) is not None:
                    request, rest = rest[:end], rest[end:]
                    self.unsent += 1
                    connection.sendall(self.answer(request))
                    self.unsent -= 1
        except OSError:
            pass  # what a hostile client does
        finally:
            self.open -= 1


def end_of(data: bytes) -> int | None:
    """Return where the first request ends; None while it is not whole."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found or b"chunked" in head:
        return None
    length = LENGTH.search(head)
    size = int(length[1]) if length else 0
    return len(head) + 4 + size if len(body) >= size else None


def answer_of(request: bytes) -> bytes:
    if b'"stream": true' in request:
        chunk = b'data: {"choices": [{"delta": {"content": "word "}}]}\n\n'
        return as_answer(200, chunk * CHUNKS + b"data: [DONE]\n\n", pieces=3)
    if b"/admin/login/" in request:
        return as_answer(200, LOGIN_PAGE)
    return as_answer(201 if request.startswith(b"POST /v1/conversations HTTP") else 200, b'{"id": "c_1"}')


def as_answer(status: int, body: bytes, *, pieces: int = 0) -> bytes:
    head = f"HTTP/1.1 {status} X\r\nSet-Cookie: csrftoken=c; Path=/\r\n"
    if not pieces:
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    size = -(-len(body) // pieces)
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    parts = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""]]
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"".join(parts)


@pytest.fixture
def service() -> Iterator[Recorder]:
    recorder = Recorder()
    recorder.start()
    yield recorder
    recorder.stop(timeout=0)


def of(service: Recorder) -> World:
    return replace(WORLD, port=service.port)
