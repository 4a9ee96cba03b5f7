"""A provider that follows no rule: each connection is given to a function, which sends what it likes."""

import contextlib
import functools
import itertools
import json
import socket
import threading
import zlib
from collections.abc import Callable, Iterator

from chat.upstream.client import MAX_ANSWER_BYTES

Script = Callable[["Line"], None]

JSON = json.dumps({"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}).encode()
EVENTS = (
    b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n\n'
    b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
)
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class Line:
    """One connection, as the provider has it."""

    def __init__(self, connected: socket.socket, provider: "HostileProvider") -> None:
        self.connected, self.provider = connected, provider
        self.sent = 0

    def read_request(self) -> bytes:
        """Read a request to its end."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.connected.recv(65536) or b"\r\n\r\n"
        head, _, body = data.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0)
        while len(body) < length and (more := self.connected.recv(65536)):
            body += more
        self.provider.asked.set()
        return head

    def send(self, data: bytes) -> None:
        self.connected.sendall(data)
        self.sent += len(data)

    def trickle(self, data: bytes) -> None:
        """Send it over and over, a byte at a time, as long as somebody listens."""
        for byte in itertools.cycle(data):
            self.send(bytes([byte]))
            if self.provider.stopped.wait(0.02):
                return

    def flood(self, data: bytes) -> None:
        """Send it over and over, as fast as it is read."""
        block = data * (65536 // len(data) + 1)
        while not self.provider.stopped.is_set():
            self.send(block)

    def wait(self) -> None:
        """Say no more."""
        self.provider.stopped.wait(30)


class HostileProvider:
    """Plays its scripts, one a connection; the last one again and again."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.asked = threading.Event()  # a whole request has been read
        self.stopped = threading.Event()
        self.connections = 0
        self.sent = 0
        self._listening = socket.create_server(("127.0.0.1", 0))

    @property
    def port(self) -> int:
        port: int = self._listening.getsockname()[1]
        return port

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield
        finally:
            self.stopped.set()
            self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connected, _ = self._listening.accept()
                self.connections += 1
                threading.Thread(target=self._play, args=(Line(connected, self),), daemon=True).start()

    def _play(self, line: Line) -> None:
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        with line.connected, contextlib.suppress(OSError):
            try:
                script(line)
            finally:
                self.sent += line.sent


@functools.cache
def bomb() -> bytes:
    """Return twice as many spaces as an answer may have, compressed to a thousandth."""
    packer = zlib.compressobj(level=1, wbits=31)
    spaces = b" " * 2**20
    return b"".join([*(packer.compress(spaces) for _ in range(2 * MAX_ANSWER_BYTES // 2**20)), packer.flush()])


def sending(*parts: bytes, then: str = "wait", forever: bytes = b"x") -> Script:
    """Make a script that reads the request, sends `parts`, and then does as `then` says with `forever`."""

    def script(line: Line) -> None:
        line.read_request()
        for part in parts:
            line.send(part)
        match then:
            case "trickle":
                line.trickle(forever)
            case "flood":
                line.flood(forever)
            case "wait":
                line.wait()

    return script
