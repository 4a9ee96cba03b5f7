"""The only module that talks to OpenAI, or to what speaks its protocol."""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx2
import openai
from django.conf import settings

from chat.exceptions import ApiError, Cancelled, ContextLengthExceeded, Interrupted, UpstreamError, UpstreamTimeout
from chat.upstream.replies import Completion, is_chunk, loads, parse, storable

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10
# Longer than any reply: past it the answer is not a completion.
MAX_ANSWER_BYTES = 32 * 1024 * 1024
CLIENT_ERRORS = {400, 413, 422}
KEY_ERRORS = {401, 403}
_is_stopping = threading.Event()


@cache
def client() -> openai.OpenAI:
    """One client, and one pool of connections, for the process.

    It never retries by itself: each call that reaches the upstream has its own row in the ledger.
    The pool looks at every idle connection at every request, so few are kept.
    """
    timeout = httpx2.Timeout(settings.UPSTREAM_TIMEOUT_SECONDS, connect=CONNECT_SECONDS)
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=10, keepalive_expiry=30)
    return openai.OpenAI(
        api_key=settings.OPENAI_API_KEY or "none",
        base_url=settings.OPENAI_BASE_URL,
        max_retries=0,
        timeout=timeout,
        http_client=openai.DefaultHttpxClient(limits=limits, timeout=timeout),
    )


def complete(body: dict[str, Any], request_id: str) -> Completion:
    """Ask for a completion, under the id of our row in the ledger.

    Takes at most UPSTREAM_TIMEOUT_SECONDS, however slowly the answer comes.
    Raises ApiError (the upstream refused the request as it is) or UpstreamError (the upstream failed).
    """
    with asking(body, request_id) as response:
        raw = b"".join(read(response))
    return parse(raw, body)


def stream(body: dict[str, Any], request_id: str, cancellation: "Cancellation") -> Iterator[dict[str, Any]]:
    """Ask for a completion in chunks, `chat.completion.chunk` objects as they come.

    Ends where the upstream says [DONE]; raises UpstreamError where it breaks off before, and
    Cancelled when `cancellation` was asked for. The errors of `complete` come before the first chunk.
    """
    try:
        with asking({**body, "stream": True, "stream_options": {"include_usage": True}}, request_id) as response:
            cancellation.arm(response)
            for data in server_sent_data(read(response)):
                if data == b"[DONE]":
                    return
                yield chunk_of(data)
                if cancellation.is_asked:
                    raise Cancelled
            raise UpstreamError("The model's provider broke the reply off.", billed=True)
    except UpstreamError as exc:
        if cancellation.is_asked:
            raise Cancelled from exc
        raise
    finally:
        cancellation.disarm()


class Cancellation:
    """How another thread stops a stream: it hangs up, so that a read which waits for the upstream ends at once."""

    def __init__(self) -> None:
        self.is_asked = False
        self._socket: socket.socket | None = None

    def arm(self, response: httpx2.Response) -> None:
        network = response.extensions.get("network_stream")
        self._socket = network.get_extra_info("socket") if network else None
        if self.is_asked:
            raise Cancelled

    def disarm(self) -> None:
        """The connection may carry another call from now on."""
        self._socket = None

    def ask(self) -> None:
        self.is_asked = True
        if (connected := self._socket) is not None:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                connected.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def asking(body: dict[str, Any], request_id: str) -> Iterator[httpx2.Response]:
    """The upstream's answer to `body`, not yet read; every way in which it fails as one of our errors."""
    if _is_stopping.is_set():
        raise Interrupted
    try:
        # `create()` would walk the typed message list for milliseconds; the generic call has the same
        # errors, timeouts and authentication. As a stream, so that what is read and for how long is ours.
        with client().post(
            "/chat/completions",
            body=body,
            # By this OpenAI finds the call again, and so does whoever compares two ledgers.
            options={"headers": {"X-Client-Request-Id": request_id}},
            cast_to=object,
            stream=True,
            stream_cls=openai.Stream[object],
        ) as answer:
            yield answer.response
    except openai.APIStatusError as exc:
        raise refused(exc) from exc
    except (openai.APIConnectionError, httpx2.TransportError) as exc:
        raise failed(exc) from exc


def hang_up() -> None:
    """Break off every call: the server stops, and what still runs is to be settled now."""
    _is_stopping.set()
    client().close()


def failed(exc: Exception) -> ApiError:
    """A call that ended without an answer."""
    if _is_stopping.is_set():
        return Interrupted()
    is_timeout = isinstance(exc, openai.APITimeoutError | httpx2.TimeoutException)
    return timed_out(exc) if is_timeout else disconnected(exc)


def read(response: httpx2.Response) -> Iterator[bytes]:
    """The body as it comes, within a bound of time and of size."""
    deadline = time.monotonic() + settings.UPSTREAM_TIMEOUT_SECONDS
    size = 0
    for data in response.iter_bytes():
        size += len(data)
        if size > MAX_ANSWER_BYTES:
            raise UpstreamError("The model's answer is too long to be one.", billed=True)
        if time.monotonic() > deadline:
            raise UpstreamTimeout("The model did not finish in time.", billed=True)
        yield data


def server_sent_data(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The data of each event of an event stream (WHATWG HTML, section 9.2.6), whose lines pieces cut anywhere."""
    rest = b""
    data: list[bytes] = []
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                yield b"\n".join(data)
                data.clear()


def chunk_of(data: bytes) -> dict[str, Any]:
    chunk = loads(data)
    if not is_chunk(chunk):
        # Some providers tell of their failure in the stream, after its status was sent.
        raise UpstreamError("The model's provider failed in the middle of the reply.", billed=True)
    return chunk


def refused(exc: openai.APIStatusError) -> ApiError:
    """An error status of the upstream. What its message may echo (our key) goes neither out nor into a log."""
    logger.warning("upstream status=%d code=%s", exc.status_code, exc.code)
    if exc.code == "context_length_exceeded":
        return ContextLengthExceeded()
    if exc.status_code in CLIENT_ERRORS:
        error = exc.body if isinstance(exc.body, dict) else {}
        message = storable(str(error.get("message") or "no reason given"))
        return ApiError(
            f"The model refused the request: {message}", param=storable(str(exc.param)) if exc.param else None
        )
    if exc.status_code == 429 and exc.code != "insufficient_quota":
        return UpstreamError("The model's provider is limiting us; wait a little.", retry_after=retry_after(exc) or 5)
    if exc.status_code >= 500:
        return UpstreamError("The model's provider failed; try again.", retry_after=retry_after(exc))
    reason = (
        "refused the server's OPENAI_API_KEY" if exc.status_code in KEY_ERRORS else "cannot serve this account or model"
    )
    return UpstreamError(f"The model's provider {reason}; the operator must look into it.", should_retry=False)


def retry_after(exc: openai.APIStatusError) -> float | None:
    """The upstream's Retry-After in seconds, where it is a number that a client would wait for."""
    value = exc.response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() and int(value) <= 120 else None


def timed_out(exc: Exception) -> UpstreamError:
    logger.warning("upstream timeout")
    billed = not isinstance(exc.__cause__ or exc, httpx2.ConnectTimeout)
    return UpstreamTimeout("The model did not answer in time.", billed=billed)


def disconnected(exc: Exception) -> UpstreamError:
    logger.warning("upstream connection lost: %s", type(exc.__cause__ or exc).__name__)
    billed = not isinstance(exc.__cause__ or exc, httpx2.ConnectError)
    return UpstreamError("The connection to the model's provider failed.", billed=billed)
