"""Calls to OpenAI, or to another server that speaks its protocol. No other module makes them."""

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

from chat.exceptions import (
    ApiError,
    Cancelled,
    ContextLengthExceeded,
    Interrupted,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamTimeout,
)
from chat.upstream.replies import Call, Completion, check, is_chunk, loads, storable

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10
# Longer than any reply; a longer answer is not a completion.
MAX_ANSWER_BYTES = 32 * 1024 * 1024
_is_stopping = threading.Event()


@cache
def client() -> openai.OpenAI:
    """Return the process's one client, with one pool of connections.

    It never retries by itself: each call that reaches the upstream has a usage row of its own. It keeps few idle
    connections, because the pool polls each of them at every request.
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


def complete(call: Call) -> Completion:
    """Ask for a completion.

    Takes at most UPSTREAM_TIMEOUT_SECONDS, however slowly the answer comes. Raises ApiError where the upstream refuses
    the request, and UpstreamError where the upstream fails.
    """
    with post(call.body, call.request_id) as response:
        raw = b"".join(read(response))
    return check(loads(raw), call)


def stream(call: Call, cancellation: "Cancellation") -> Iterator[dict[str, Any]]:
    """Ask for a completion in chunks, and yield each `chat.completion.chunk` as it comes.

    Ends at the upstream's [DONE]. Raises UpstreamError where the upstream breaks off earlier, and Cancelled where
    `cancellation` is requested. The errors of `complete` come before the first chunk.
    """
    body = {**call.body, "stream": True, "stream_options": {"include_usage": True}}
    try:
        with post(body, call.request_id) as response:
            cancellation.arm(response)
            for data in server_sent_data(read(response)):
                if data == b"[DONE]":
                    return
                chunk = loads(data)
                if not is_chunk(chunk):
                    # Some providers report a failure inside the stream, after its status was sent.
                    raise UpstreamError("The model's provider failed in the middle of the reply.", is_billed=True)
                yield chunk
                if cancellation.is_requested:
                    raise Cancelled
            raise UpstreamError("The model's provider broke the reply off.", is_billed=True)
    except UpstreamError as exc:
        if cancellation.is_requested:
            raise Cancelled from exc
        raise
    finally:
        cancellation.disarm()


class Cancellation:
    """Lets another thread stop a stream: it shuts the socket, so that a read that waits for the upstream ends."""

    def __init__(self) -> None:
        self.is_requested = False
        self._socket: socket.socket | None = None

    def arm(self, response: httpx2.Response) -> None:
        network = response.extensions.get("network_stream")
        self._socket = network.get_extra_info("socket") if network else None
        if self.is_requested:
            raise Cancelled

    def disarm(self) -> None:
        """Forget the socket: from now on it may carry another call."""
        self._socket = None

    def request(self) -> None:
        self.is_requested = True
        if (connected := self._socket) is not None:
            with contextlib.suppress(OSError):  # the connection has ended
                connected.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def post(body: dict[str, Any], request_id: str) -> Iterator[httpx2.Response]:
    """Send `body` to the upstream, and yield its answer, not yet read. Every failure is raised as one of our errors."""
    if _is_stopping.is_set():
        raise Interrupted
    try:
        # `create()` walks the typed message list for milliseconds; the generic call has the same errors, timeouts and
        # authentication. The answer is taken as a stream, so that `read` can bound its time and its size.
        with client().post(
            "/chat/completions",
            body=body,
            # By this id OpenAI can find the call, and `reconcile` compares OpenAI's export with our rows.
            options={"headers": {"X-Client-Request-Id": request_id}},
            cast_to=object,
            stream=True,
            stream_cls=openai.Stream[object],
        ) as answer:
            yield answer.response
    except openai.APIStatusError as exc:
        raise status_error(exc) from exc
    except (openai.APIConnectionError, httpx2.TransportError) as exc:
        raise connection_error(exc) from exc


def hang_up() -> None:
    """Break off every call, because the server stops and its turns must be settled now."""
    _is_stopping.set()
    client().close()


def connection_error(exc: Exception) -> ApiError:
    """Translate the failure of a call that got no whole answer. Nothing was sold if no connection was made."""
    if _is_stopping.is_set():
        return Interrupted()
    cause = exc.__cause__ or exc
    logger.warning("upstream connection lost: %s", type(cause).__name__)
    is_billed = not isinstance(cause, httpx2.ConnectTimeout | httpx2.ConnectError)
    if isinstance(exc, openai.APITimeoutError | httpx2.TimeoutException):
        return UpstreamTimeout("The model did not answer in time.", is_billed=is_billed)
    return UpstreamError("The connection to the model's provider failed.", is_billed=is_billed)


def read(response: httpx2.Response) -> Iterator[bytes]:
    """Yield the body as it comes, at most MAX_ANSWER_BYTES of it and for UPSTREAM_TIMEOUT_SECONDS."""
    deadline = time.monotonic() + settings.UPSTREAM_TIMEOUT_SECONDS
    size = 0
    for data in response.iter_bytes():
        size += len(data)
        if size > MAX_ANSWER_BYTES:
            raise UpstreamError("The model's answer is too long for a completion.", is_billed=True)
        if time.monotonic() > deadline:
            raise UpstreamTimeout("The model did not finish in time.", is_billed=True)
        yield data


def server_sent_data(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the data of each event of an event stream (WHATWG HTML, section 9.2.6). Pieces may end inside a line."""
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


def status_error(exc: openai.APIStatusError) -> ApiError:
    """Translate an error status of the upstream. Its message may contain our key, so it is neither sent nor logged."""
    logger.warning("upstream status=%d code=%s", exc.status_code, exc.code)
    if exc.code == "context_length_exceeded":
        return ContextLengthExceeded()
    if exc.status_code in {400, 413, 422}:
        error = exc.body if isinstance(exc.body, dict) else {}
        message = storable(str(error.get("message") or "no reason given"))
        param = storable(str(exc.param)) if exc.param else None
        return ApiError(f"The model refused the request: {message}", param=param)
    if exc.status_code == 429 and exc.code != "insufficient_quota":
        return UpstreamRateLimited(retry_after=retry_after(exc))
    if exc.status_code >= 500:
        return UpstreamError("The model's provider failed; try again.", retry_after=retry_after(exc))
    is_key_refused = exc.status_code in {401, 403}
    reason = "refused the server's OPENAI_API_KEY" if is_key_refused else "cannot serve this account or model"
    return UpstreamError(f"The model's provider {reason}; the operator must look into it.", should_retry=False)


def retry_after(exc: openai.APIStatusError) -> float | None:
    """Return the upstream's Retry-After in seconds, where it is a number that a client would wait for."""
    value = exc.response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() and int(value) <= 120 else None
