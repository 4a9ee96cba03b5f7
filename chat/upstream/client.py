"""Calls to OpenAI, or to another server that speaks its protocol. No other module makes them."""

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import cache
from typing import Any

import httpx2
import openai
import orjson
from django.conf import settings

from chat.exceptions import ApiError, Cancelled, Interrupted, UpstreamError, UpstreamTimeout
from chat.upstream import compatibility, errors
from chat.upstream.connections import CONNECT_SECONDS, shut
from chat.upstream.frames import DONE, frames
from chat.upstream.replies import Call, Completion, Reply
from chat.upstream.transport import Client, Transport

logger = logging.getLogger(__name__)

# From a reply's finish reason to the end of its stream: what comes between is the usage.
END_SECONDS = 15
# Longer than any reply; a longer answer is not a completion.
MAX_ANSWER_BYTES = 32 * 1024 * 1024
# Of an error's body.
MAX_ERROR_BYTES = 64 * 1024
ERROR_BODY_SECONDS = 5
# What a provider says of a request that it does not take as it is.
REFUSALS = {400, 404, 413, 415, 422}
# Failures before the request is sent, for which nothing was sold; and those of them that a setting causes, so that no
# other try can help.
NEVER_SENT = (httpx2.ConnectTimeout, httpx2.ConnectError, httpx2.PoolTimeout, httpx2.ProxyError)
UNUSABLE = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)
# Nine headers about the SDK and this machine, which no provider needs, are a tenth of a call's cost.
SDK_HEADERS = (
    "Arch",
    "Async",
    "Lang",
    "OS",
    "Package-Version",
    "Read-Timeout",
    "Retry-Count",
    "Runtime",
    "Runtime-Version",
)
UNSENT = {f"X-Stainless-{name}": openai.Omit() for name in SDK_HEADERS}
_is_stopping = threading.Event()


@cache
def client() -> openai.OpenAI:
    """Return the process's one client, with one pool of connections.

    It never retries by itself: each call that reaches the upstream has a usage row of its own.
    """
    timeout = httpx2.Timeout(settings.UPSTREAM_TIMEOUT_SECONDS, connect=CONNECT_SECONDS)
    return openai.OpenAI(
        api_key=settings.OPENAI_API_KEY or "none",
        base_url=settings.OPENAI_BASE_URL,
        max_retries=0,
        timeout=timeout,
        http_client=Client(
            transport=Transport(),
            timeout=timeout,
            follow_redirects=True,
            event_hooks={"response": [refuse_error_status]},
        ),
    )


class Refused(openai.OpenAIError):
    """An error status of the upstream, and what of its body could be read."""

    def __init__(self, response: httpx2.Response, body: bytes) -> None:
        super().__init__(f"status {response.status_code}")
        self.status, self.headers, self.body = response.status_code, response.headers, body


def refuse_error_status(response: httpx2.Response) -> None:
    """Read an error status within bounds. The SDK itself would read its body for as long, and as much, as comes."""
    if response.status_code < 400:
        return
    body = b""
    # The status says what there is to know, whatever becomes of the body.
    with contextlib.suppress(ApiError):
        for piece in read(response, Deadline(ERROR_BODY_SECONDS), MAX_ERROR_BYTES):
            body += piece
    raise Refused(response, body)


def complete(reply: Reply) -> Completion:
    """Ask for a completion. `reply` collects what comes.

    Takes at most UPSTREAM_TIMEOUT_SECONDS, however slowly the answer comes. Raises ApiError where the upstream refuses
    the request, and UpstreamError where the upstream fails.
    """
    deadline = Deadline()
    with post(reply.call, reply.call.body) as response:
        for _ in take(reply, frames(read(response, deadline))):
            pass
    return reply.completion()


def stream(reply: Reply, cancellation: "Cancellation") -> Generator[dict[str, Any], None, None]:
    """Ask for a completion in chunks, and yield the `choice` of each chunk as it comes, but for the finish reason.

    `reply` collects what comes. The upstream may be silent for UPSTREAM_TIMEOUT_SECONDS; signs of life that add
    nothing to the reply are silence. Raises UpstreamError where the upstream breaks off before the reply is whole, and
    Cancelled where `cancellation` is requested. The errors of `complete` come before the first chunk.
    """
    try:
        body = {**reply.call.body, "stream": True, "stream_options": {"include_usage": True}}
        with post(reply.call, body) as response:
            cancellation.arm(response)
            deadline = Deadline()
            # The reply is whole then. Some providers say no more, and keep the connection open.
            for choice in take(reply, frames(read(response, deadline)), cancellation.expire):
                deadline.renew()
                yield choice
                if cancellation.is_requested:
                    raise Cancelled
    except ApiError as exc:
        if cancellation.is_requested:
            raise Cancelled from exc
        raise
    finally:
        cancellation.disarm()


def take(
    reply: Reply, answer: Iterator[Any], at_finish_reason: Callable[[], None] = lambda: None
) -> Iterator[dict[str, Any]]:
    """Read an answer's frames into the reply up to its end, and yield what each adds."""
    is_finished = False
    try:
        for frame in answer:
            if frame is DONE:
                break
            yield from reply.add(frame)
            if reply.finish_reason and not is_finished:
                is_finished = True
                at_finish_reason()
        else:
            if not reply.finish_reason:
                raise UpstreamError("The model's provider broke the reply off.", is_billed=True)
    except ApiError as exc:
        # With a finish reason the reply is whole; what broke off was the end of the stream.
        if not reply.finish_reason or isinstance(exc, Cancelled):
            raise
        logger.warning("upstream broke off after the reply: %s", type(exc).__name__)
    yield from reply.finish()


class Cancellation:
    """Lets another thread stop a stream: it shuts the socket, so that a read that waits for the upstream ends."""

    def __init__(self) -> None:
        self.is_requested = False
        self._socket: socket.socket | None = None
        self._ends_at: float | None = None

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
        self._shut()

    def expire(self) -> None:
        """Let the upstream say the rest within END_SECONDS, as `look` sees to."""
        self._ends_at = time.monotonic() + END_SECONDS

    def look(self) -> None:
        """End a stream that says no more after its reply. Called each second."""
        if self._ends_at and time.monotonic() > self._ends_at:
            self._shut()

    def _shut(self) -> None:
        if (connected := self._socket) is not None:
            shut(connected)


@contextlib.contextmanager
def post(call: Call, body: dict[str, Any]) -> Iterator[httpx2.Response]:
    """Send `body` to the upstream, and yield its answer, not yet read. Every failure is raised as one of our errors."""
    if _is_stopping.is_set():
        raise Interrupted
    with open_answer(call, body) as answer:
        yield answer.response


def open_answer(call: Call, body: dict[str, Any]) -> "openai.Stream[object]":
    """Send a request, and send it again after each refusal that teaches how this upstream takes it."""
    request = compatibility.Request(call, body)
    while True:
        sent = request.sent()
        try:
            return send(call, sent)
        except Refused as exc:
            problem = problem_of(exc)
            if problem.status not in REFUSALS or not request.learn(sent, problem, exc.body.decode(errors="replace")):
                errors.log(problem, errors.texts_of(call.body["messages"]))
                wait = errors.retry_after(exc.headers, problem.message)
                raise compatibility.blame(errors.told(problem, retry_after=wait), call) from exc
        except (openai.APIConnectionError, httpx2.HTTPError) as exc:
            raise connection_error(exc) from exc
        except Exception as exc:
            # Before a connection is made everything fails for the same reason: a key, an address or a proxy that
            # cannot be used. Nothing has left this machine.
            raise unusable(exc) from exc


def send(call: Call, body: dict[str, Any]) -> "openai.Stream[object]":
    # `create()` walks the typed message list for milliseconds; the generic call has the same errors, timeouts and
    # authentication. The answer is taken as a stream, so that `read` can bound its time and its size.
    return client().post(
        # The SDK joins a relative address with the base at each call, which takes longer than sending the request.
        f"{client().base_url}chat/completions",
        content=dumped(body),
        # By this id OpenAI can find the call, and `reconcile` compares OpenAI's export with our rows.
        options={"headers": {"X-Client-Request-Id": call.request_id, **UNSENT}},
        cast_to=object,
        stream=True,
        stream_cls=openai.Stream[object],
    )


def dumped(body: dict[str, Any]) -> bytes:
    """Return the body's JSON: histories are long, and the SDK takes ten times as long for it."""
    try:
        return orjson.dumps(body)
    except TypeError:  # a number beyond 64 bits
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def hang_up() -> None:
    """Break off every call, because the server stops and its turns must be settled now."""
    _is_stopping.set()
    client().close()


def connection_error(exc: Exception) -> ApiError:
    """Translate the failure of a call that got no whole answer. Nothing was sold if no connection was made."""
    if _is_stopping.is_set():
        return Interrupted()
    cause = exc.__cause__ or exc
    if isinstance(cause, UNUSABLE):
        return unusable(cause)
    logger.warning("upstream connection lost: %s", type(cause).__name__)
    is_billed = not isinstance(cause, NEVER_SENT)
    if isinstance(exc, openai.APITimeoutError | httpx2.TimeoutException):
        return UpstreamTimeout("The model did not answer in time.", is_billed=is_billed)
    return UpstreamError("The connection to the model's provider failed.", is_billed=is_billed)


def unusable(cause: BaseException) -> UpstreamError:
    """Return the error of a key, an address or a proxy that cannot be used."""
    logger.warning("upstream cannot be called: %s", type(cause).__name__)
    message = "The server cannot call the model's provider; the operator must look into its settings."
    return UpstreamError(message, should_retry=False)


class Deadline:
    """The time `seconds` from now, or from when it was last renewed; UPSTREAM_TIMEOUT_SECONDS if none are given."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds: float = settings.UPSTREAM_TIMEOUT_SECONDS if seconds is None else seconds
        self.renew()

    def renew(self) -> None:
        self.at = time.monotonic() + self.seconds


def read(response: httpx2.Response, deadline: Deadline, most: int = MAX_ANSWER_BYTES) -> Iterator[bytes]:
    """Yield the body as it comes, at most so many bytes of it, and until the deadline has passed."""
    size = 0
    pieces = response.iter_bytes() if "Content-Encoding" in response.headers else response.iter_raw()
    try:
        for data in pieces:
            size += len(data)
            if size > most:
                raise UpstreamError("The model's answer is too long for a completion.", is_billed=True)
            if time.monotonic() > deadline.at:
                raise UpstreamTimeout("The model did not finish in time.", is_billed=True)
            yield data
    except (httpx2.HTTPError, httpx2.StreamError) as exc:
        raise connection_error(exc) from exc


def problem_of(refused: Refused) -> errors.Problem:
    """Read what an error status says: JSON of any shape, the same as an event, or plain words."""
    values = []
    with contextlib.suppress(UpstreamError):
        values = [value for value in frames(iter([refused.body])) if value is not DONE]
    found = next(filter(None, (errors.find(value, refused.status) for value in values)), None)
    if found:
        return found
    text = refused.body.decode(errors="replace").strip()
    return errors.read({"message": "" if text.startswith("<") or values else text}, refused.status)
