"""HTTP/1.1 on a socket of gevent's, by hand: a hostile client sends what no library would, and reads as it likes."""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from gevent import socket

BYTES = 65536


class Lost(OSError):
    """The other side closed the connection before its answer was whole."""


def request(
    method: str, path: str, body: bytes | None = None, *, token: str = "", headers: dict[str, str] | None = None
) -> bytes:
    """Return a whole request. `token` is that of a client; empty: none is sent."""
    fields = {"Host": "127.0.0.1", **({"Authorization": f"Bearer {token}"} if token else {})}
    if body is not None:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    fields |= headers or {}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


class Wire:
    """One connection. `seconds` bound every single read and write; a small `receive_buffer` fills early."""

    def __init__(self, port: int, *, seconds: float = 60, receive_buffer: int = 0) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(seconds)
        self.seconds = seconds
        self.buffer = b""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_over = False  # no further request can be sent
        try:
            self.socket.connect(("127.0.0.1", port))
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.is_over = True
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def drip(self, data: bytes, pause: float) -> None:
        """Send a byte at a time. Ends with Lost as soon as the other side closes or answers."""
        for index in range(len(data)):
            self.send(data[index : index + 1])
            if self.is_readable(pause):
                raise Lost("answered before the end")

    def is_readable(self, seconds: float = 0) -> bool:
        """Tell whether something has come, or the end: within these seconds."""
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, TimeoutError):
            return False
        except OSError:
            return True
        finally:
            self.socket.settimeout(self.seconds)
        return True

    def head(self) -> int:
        """Read the head of an answer, and return its status."""
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ", 2)[1])
        fields = (line.partition(":") for line in lines)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        self.is_over = self.headers.get("connection", "").lower() == "close"
        return self.status

    def body(self) -> Iterator[bytes]:
        """Yield the body of the answer in the pieces that come."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self.line(), 16):
                yield self.exactly(size)
                self.exactly(2)
            self.exactly(2)
        elif "content-length" in self.headers:
            yield self.exactly(int(self.headers["content-length"]))
        elif self.status not in (204, 304):
            self.is_over = True
            yield from self.until_closed()

    def answer(self) -> bytes:
        """Read an answer to its end, and return its body; `status` and `headers` are set."""
        self.head()
        return b"".join(self.body())

    def line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            self.more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def exactly(self, size: int) -> bytes:
        pieces, missing = [self.buffer[:size]], size - len(self.buffer)
        self.buffer = self.buffer[size:]
        while missing > 0:
            self.more()
            pieces.append(self.buffer[:missing])
            missing, self.buffer = missing - len(self.buffer), self.buffer[missing:]
        return b"".join(pieces)

    def until_closed(self) -> Iterator[bytes]:
        while data := self.buffer or self.socket.recv(BYTES):
            self.buffer = b""
            yield data

    def more(self) -> None:
        data = self.socket.recv(BYTES)
        if not data:
            self.is_over = True
            raise Lost("closed")
        self.buffer += data


def now_ms() -> float:
    return 1000 * time.perf_counter()
