"""No connection to the database is held while a client sends its request, or takes its answer.

Django itself gives a connection back when the answer has been sent: a client that reads slowly, or not at all, would
keep it from all others.
"""

from collections.abc import Callable, Iterator
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from analytics.fairness import close_connection
from chat.database import CLIENT, PAGE, Patience, waiting_as

# Pages of staff and figures: they may read for longer than a request of a client.
PAGES = ("/admin/", "/metrics")


class ConnectionMiddleware:
    """Gives the connection back before the body is read, when the answer is made, and between pieces of the answer.

    It is the outermost, so that whatever others read or write is done by then.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        kind = PAGE if request.path_info.startswith(PAGES) else CLIENT
        if stream := getattr(request, "_stream", None):
            request._stream = Body(stream)  # type: ignore[assignment]
        with waiting_as(kind):
            try:
                response = self.get_response(request)
            finally:
                close_connection()
        # A stream to a client reads what a thread has written to memory, and never the database.
        if response.streaming and not request.path_info.startswith("/v1/"):
            response.streaming_content = pieces(response.streaming_content, kind)  # type: ignore[attr-defined]
        return response


class Body:
    """The body of a request. Whoever reads it waits for the client."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, *size: int) -> bytes:
        close_connection()
        data: bytes = self._stream.read(*size)
        return data

    def readline(self, *size: int) -> bytes:
        close_connection()
        line: bytes = self._stream.readline(*size)
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def pieces(content: Any, kind: Patience) -> Iterator[Any]:
    """Yield the pieces of an answer that is made while it is sent."""
    remaining = iter(content)
    while True:
        with waiting_as(kind):
            try:
                piece = next(remaining)
            except StopIteration:
                return
            finally:
                close_connection()
        yield piece
