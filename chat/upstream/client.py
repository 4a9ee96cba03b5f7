"""Calls to OpenAI, or to another server that speaks its protocol. No other module makes them."""

import contextlib
import json
import logging
import time
from collections.abc import Generator, Iterator
from typing import Any

import httpx2
import openai
import orjson
from django.conf import settings

from chat.exceptions import ApiError, Cancelled, Interrupted, UpstreamError, UpstreamTimeout
from chat.upstream import compatibility, deadlines, errors, spans
from chat.upstream.deadlines import Cancellation, Deadline
from chat.upstream.frames import DONE, frames
from chat.upstream.once import once
from chat.upstream.replies import Call, Completion, Reply
from chat.upstream.text import loads
from chat.upstream.transport import READ_BYTES, Client, Transport

logger = logging.getLogger(__name__)

# From a reply's finish reason to the end of its stream: what comes between is the usage.
END_SECONDS = 15
# Longer than any reply; a longer answer is not a completion. It is what is in it that counts, not its compressed form.
MAX_ANSWER_BYTES = 32 * 1024 * 1024
# Of an error's body.
MAX_ERROR_BYTES = 64 * 1024
ERROR_BODY_SECONDS = 5
MAX_REDIRECTS = 3
# What a provider says of a request that it does not take as it is.
REFUSALS = {400, 404, 413, 415, 422}
# Failures before a request reaches a model, for which nothing was sold; and those of them that a setting causes, so
# that no other try can help.
NEVER_SENT = (
    httpx2.ConnectTimeout,
    httpx2.ConnectError,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.TooManyRedirects,
)
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


@once
def client() -> openai.OpenAI:
    """Return the process's one client, with one pool of connections.

    It never retries by itself: each call that reaches the upstream has a usage row of its own.
    """
    return openai.OpenAI(
        api_key=settings.OPENAI_API_KEY or "none",
        base_url=settings.OPENAI_BASE_URL,
        max_retries=0,
        http_client=Client(
            transport=Transport(),
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
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
    if response.status_code < 300 or response.has_redirect_location:
        return
    body = b""
    deadline = deadlines.current()
    # The status says what there is to know, whatever becomes of the body.
    with contextlib.suppress(ApiError), deadline.within(ERROR_BODY_SECONDS):
        for piece in read(response, deadline, MAX_ERROR_BYTES):
            body += piece
    raise Refused(response, body)


def complete(reply: Reply) -> Completion:
    """Ask for a completion. `reply` collects what comes.

    Takes at most UPSTREAM_TIMEOUT_SECONDS, however slowly the answer comes. Raises ApiError where the upstream refuses
    the request, and UpstreamError where the upstream fails.
    """
    with (
        spans.calling(reply, is_stream=False),
        Deadline() as deadline,
        post(reply.call, reply.call.body, deadline) as response,
    ):
        for _ in take(reply, frames(read(response, deadline)), deadline):
            pass
    return reply.completion()


def stream(reply: Reply, cancellation: Cancellation) -> Generator[dict[str, Any], None, None]:
    """Ask for a completion in chunks, and yield the `choice` of each chunk as it comes, but for the finish reason.

    `reply` collects what comes. The upstream may be silent for UPSTREAM_TIMEOUT_SECONDS; signs of life that add
    nothing to the reply are silence, and so is all that comes before it. Raises UpstreamError where the upstream breaks
    off before the reply is whole, and Cancelled where `cancellation` is requested. The errors of `complete` come before
    the first chunk.
    """
    body = {**reply.call.body, "stream": True, "stream_options": {"include_usage": True}}
    try:
        with spans.calling(reply, is_stream=True) as note_piece, Deadline() as deadline:
            cancellation.arm(deadline)
            with post(reply.call, body, deadline) as response:
                for choice in take(reply, frames(read(response, deadline)), deadline):
                    deadline.renew()
                    note_piece()
                    yield choice
                    if cancellation.is_requested:
                        raise Cancelled
    except ApiError as exc:
        if cancellation.is_requested and not isinstance(exc, Cancelled):
            raise deadlines.cancelled(is_billed=exc.is_billed) from exc
        raise
    finally:
        cancellation.disarm()


def take(reply: Reply, answer: Iterator[Any], deadline: Deadline | None = None) -> Iterator[dict[str, Any]]:
    """Read an answer's frames into the reply up to its end, and yield what each adds."""
    is_finished = False
    try:
        for frame in answer:
            if frame is DONE:
                break
            yield from reply.add(frame)
            if deadline and reply.finish_reason and not is_finished:
                is_finished = True
                # The reply is whole then. Some providers say no more, and keep the connection open.
                deadline.shorten(END_SECONDS)
        else:
            if not reply.finish_reason:
                raise UpstreamError("The model's provider broke the reply off.", is_billed=True)
    except ApiError as exc:
        # With a finish reason the reply is whole; what broke off was the end of the stream.
        if not reply.finish_reason or isinstance(exc, Cancelled):
            raise
        logger.warning("upstream broke off after the reply: %s", type(exc).__name__)
    yield from reply.finish()


@contextlib.contextmanager
def post(call: Call, body: dict[str, Any], deadline: Deadline) -> Iterator[httpx2.Response]:
    """Send `body` to the upstream, and yield its answer, not yet read. Every failure is raised as one of our errors."""
    if deadlines.is_stopping():
        raise interrupted(is_billed=False)
    with open_answer(call, body, deadline) as answer:
        yield answer.response


def open_answer(call: Call, body: dict[str, Any], deadline: Deadline) -> "openai.Stream[object]":
    """Send a request, and send it again after each refusal that teaches how this upstream takes it."""
    request = compatibility.Request(call, body)
    while True:
        sent = request.sent()
        try:
            with deadlines.calling(deadline):
                return send(call, sent)
        except Refused as exc:
            problem = problem_of(exc)
            if problem.status not in REFUSALS or not request.learn(sent, problem, exc.body.decode(errors="replace")):
                call.heard.note(exc.status, exc.headers)
                call.note_error(problem)
                wait = errors.retry_after(exc.headers, problem.message)
                raise compatibility.blame(errors.told(problem, retry_after=wait), call) from exc
        except (openai.APIConnectionError, httpx2.HTTPError) as exc:
            raise connection_error(exc, deadline) from exc
        except Exception as exc:
            # Before a connection is made everything fails for the same reason: a key, an address or a proxy that
            # cannot be used. Nothing has left this machine.
            raise unusable(exc) from exc


def send(call: Call, body: dict[str, Any]) -> "openai.Stream[object]":
    # `create()` walks the typed message list for milliseconds; the generic call has the same errors, timeouts and
    # authentication. The answer is taken as a stream, so that `read` can bound its time and its size.
    answer = client().post(
        # The SDK joins a relative address with the base at each call, which takes longer than sending the request.
        f"{client().base_url}chat/completions",
        content=dumped(body),
        # By this id OpenAI can find the call, and `reconcile` compares OpenAI's export with our rows.
        options={"headers": {"X-Client-Request-Id": call.request_id, **UNSENT}},
        cast_to=object,
        stream=True,
        stream_cls=openai.Stream[object],
    )
    call.heard.note(answer.response.status_code, answer.response.headers)
    return answer


def fetch_models(seconds: float) -> Any:
    """Return what the upstream answers to GET /models. Raises OpenAIError or ApiError."""
    with Deadline(seconds) as deadline:
        try:
            with deadlines.calling(deadline):
                answer = client().get("/models", cast_to=object, stream=True, stream_cls=openai.Stream[object])
        except httpx2.HTTPError as exc:
            raise connection_error(exc, deadline) from exc
        with answer:
            return loads(b"".join(read(answer.response, deadline)))


def dumped(body: dict[str, Any]) -> bytes:
    """Return the body's JSON: histories are long, and the SDK takes ten times as long for it."""
    try:
        return orjson.dumps(body)
    except TypeError:  # a number beyond 64 bits
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def hang_up() -> None:
    """Break off every call, because the server stops and its turns must be settled now."""
    deadlines.end_all()


def interrupted(*, is_billed: bool) -> ApiError:
    error = Interrupted()
    error.is_billed = is_billed
    return error


def connection_error(exc: Exception, deadline: Deadline) -> ApiError:
    """Translate the failure of a call that got no whole answer. Nothing was sold if no connection was made."""
    cause = exc.__cause__ or exc
    if isinstance(cause, UNUSABLE):
        return unusable(cause)
    is_billed = not isinstance(cause, NEVER_SENT)
    if deadlines.is_stopping():
        return interrupted(is_billed=is_billed)
    logger.warning("upstream connection lost: %s", type(cause).__name__)
    if deadline.is_late or isinstance(exc, openai.APITimeoutError | httpx2.TimeoutException):
        return UpstreamTimeout("The model did not answer in time.", is_billed=is_billed)
    return UpstreamError("The connection to the model's provider failed.", is_billed=is_billed)


def unusable(cause: BaseException) -> UpstreamError:
    """Return the error of a key, an address or a proxy that cannot be used."""
    logger.warning("upstream cannot be called: %s", type(cause).__name__)
    message = "The server cannot call the model's provider; the operator must look into its settings."
    return UpstreamError(message, should_retry=False)


def read(response: httpx2.Response, deadline: Deadline, most: int = MAX_ANSWER_BYTES) -> Iterator[bytes]:
    """Yield the body as it comes, at most so many bytes of it, and until the deadline has passed."""
    size = 0
    try:
        for data in pieces_of(response):
            size += len(data)
            if size > most:
                raise UpstreamError("The model's answer is too long for a completion.", is_billed=True)
            if time.monotonic() > deadline.at:
                raise UpstreamTimeout("The model did not finish in time.", is_billed=True)
            yield data
    except (httpx2.HTTPError, httpx2.StreamError) as exc:
        raise connection_error(exc, deadline) from exc


def pieces_of(response: httpx2.Response) -> Iterator[bytes]:
    """Yield the body in small pieces. What comes compressed may be a thousand times as much as comes."""
    if "Content-Encoding" not in response.headers:
        yield from response.iter_raw()
        return
    for data in response.iter_bytes():
        for start in range(0, len(data), READ_BYTES):
            yield data[start : start + READ_BYTES]
            time.sleep(0)  # Others get their turn of the processor.


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
