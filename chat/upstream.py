"""The only module that talks to OpenAI, or to what speaks its protocol."""

import json
import logging
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx2
import openai
from django.conf import settings

from analytics.recording import Tokens
from chat.context import estimate_tokens
from chat.exceptions import ApiError, ContextLengthExceeded, UpstreamError, UpstreamTimeout

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10
# Longer than any reply: past it the answer is not a completion.
MAX_ANSWER_BYTES = 32 * 1024 * 1024
CLIENT_ERRORS = {400, 413, 422}
KEY_ERRORS = {401, 403}


@dataclass(frozen=True)
class Completion:
    """OpenAI's `chat.completion` object, checked, and what it cost."""

    body: dict[str, Any]
    tokens: Tokens

    @property
    def message(self) -> dict[str, Any]:
        message: dict[str, Any] = self.body["choices"][0]["message"]
        return message

    @property
    def model(self) -> str:
        model: str = self.body["model"]
        return model


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


def complete(body: dict[str, Any]) -> Completion:
    """Ask for a completion. Takes at most UPSTREAM_TIMEOUT_SECONDS, however slowly the answer comes.

    Raises ApiError (the upstream refused the request as it is) or UpstreamError (the upstream failed).
    """
    deadline = time.monotonic() + settings.UPSTREAM_TIMEOUT_SECONDS
    try:
        # `create()` would walk the typed message list for milliseconds; the generic call has the same
        # errors, timeouts and authentication. As a stream, so that what is read and for how long is ours.
        with client().post(
            "/chat/completions",
            body=body,
            cast_to=object,
            stream=True,
            stream_cls=openai.Stream[object],
        ) as stream:
            raw = read(stream.response, deadline)
    except openai.APIStatusError as exc:
        raise refused(exc) from exc
    except (openai.APITimeoutError, httpx2.TimeoutException) as exc:
        raise timed_out(exc) from exc
    except (openai.APIConnectionError, httpx2.TransportError) as exc:
        raise disconnected(exc) from exc
    return parse(raw, body)


def read(response: httpx2.Response, deadline: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    for chunk in response.iter_bytes():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise UpstreamError("The model's answer is too long to be one.", billed=True)
        if time.monotonic() > deadline:
            raise UpstreamTimeout("The model did not finish in time.", billed=True)
        chunks.append(chunk)
    return b"".join(chunks)


def parse(raw: bytes, asked: dict[str, Any]) -> Completion:
    try:
        body = json.loads(raw, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as exc:
        raise UpstreamError("The model's answer is not JSON.", billed=True) from exc
    body = storable(body)
    try:
        choice = body["choices"][0]
        message = choice["message"]
        content = message.setdefault("content", None)
        if not isinstance(content, str | None):
            raise TypeError
    except (LookupError, TypeError, AttributeError) as exc:
        raise UpstreamError("The model's answer is not a completion.", billed=True) from exc
    choice.setdefault("finish_reason", "stop")
    if not isinstance(body.get("model"), str):
        body["model"] = asked["model"]
    if not isinstance(body.get("created"), int):
        body["created"] = int(time.time())
    return Completion(body, tokens_of(body.get("usage"), asked["messages"], message))


def tokens_of(usage: Any, prompt: list[dict[str, Any]], reply: dict[str, Any]) -> Tokens:
    """The upstream's own figures; an estimate, marked as one, where it names none."""
    figures = usage if isinstance(usage, dict) else {}
    prompt_tokens = count(figures, "prompt_tokens")
    completion_tokens = count(figures, "completion_tokens")
    if prompt_tokens is None or completion_tokens is None:
        estimates = sum(estimate_tokens(message) for message in prompt), estimate_tokens(reply)
        return Tokens(*estimates, total=sum(estimates), is_estimated=True)
    total = count(figures, "total_tokens")
    return Tokens(
        prompt=prompt_tokens,
        completion=completion_tokens,
        total=total if total is not None else prompt_tokens + completion_tokens,
        cached=count(figures.get("prompt_tokens_details"), "cached_tokens") or 0,
        reasoning=count(figures.get("completion_tokens_details"), "reasoning_tokens") or 0,
    )


def count(figures: Any, name: str) -> int | None:
    """A figure that is one: a whole number that the database can hold."""
    value = figures.get(name) if isinstance(figures, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def storable(value: Any) -> Any:
    """A copy without what no database takes: NUL and halves of surrogate pairs become U+FFFD."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [storable(item) for item in value]
    return value


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
