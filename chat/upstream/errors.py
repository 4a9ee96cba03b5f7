"""What a provider says when it fails: found under any status and in any shape, and told as one of our errors.

Providers report failures as HTTP statuses, as bodies under 200, and as events in the middle of a stream; in OpenAI's
shape, and in that of the framework or the gateway that answers (docs/providers.md).
"""

import contextlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from chat.exceptions import ApiError, ContextLengthExceeded, UpstreamError, UpstreamRateLimited, UpstreamTimeout
from chat.upstream.text import storable_text
from chat.upstream.words import without_secrets

# Where a failure is told.
HOLDERS = ("error", "errors", "fault", "base_resp")
CODE_NAMES = ("code", "status_code", "error_code", "type", "status", "reason")
WORD_NAMES = ("message", "error", "msg", "detail", "status_msg", "error_msg", "faultstring", "errors")
# What codes and types stand for, by the words in them; the first that fits holds.
MEANINGS = {
    400: r"context_(length|window)|exceed_context|string_above_max|invalid_argument|failed_precondition"
    r"|content_(filter|policy)|badrequest|unsupported_(parameter|value)|invalid_prompt",
    402: r"insufficient_(quota|balance|credits?|funds)|billing|payment|quota_exhausted|current_quota|credit|arrearage",
    429: r"rate_?limit|resource_?exhausted|too_?many_?requests|throttl|requests_exceeded|tokens_exceeded",
    504: r"timed?_?out|deadline_?exceeded",
    503: r"overload|unavailable|capacity|busy|insufficient_system",
    401: r"invalid_api_?key|authentication|unauthenticated|unauthorized",
    403: r"permission|forbidden",
    404: r"model_not_(found|available)|not_?found",
}
# What is the operator's to mend, under whatever status and code a provider says it.
OPERATORS = {
    402: re.compile(r"credit balance|insufficient balance|recharge|good standing|exceeded your current quota", re.I),
    401: re.compile(r"api key not valid|(incorrect|invalid) api key", re.I),
}
# Words of a request that never fits, however long the client waits.
NEVER_FITS = re.compile(r"request too large", re.I)
# Codes that say that nothing is wrong.
FINE = {"", "0", "200", "none", "null", "ok", "success"}
# OpenAI's type for all of 4xx: it says less than the status that came with it.
VAGUE = "invalid_request_error"
CONTEXT_WORDS = re.compile(
    r"maximum context length|context (window|length|size)|maximum model length|prompt is too long"
    r"|input (is )?too long|too many (input )?tokens|reduce the length of the (messages|prompt)",
    re.I,
)
WAIT = re.compile(r"(?:try again in|retry in|retryDelay\W+)\s*(\d+(?:\.\d+)?) ?s", re.I)
MAX_RETRY_AFTER = 120


@dataclass(frozen=True)
class Problem:
    """A provider's failure: the status that it stands for, and its words, of which nothing is ours to tell."""

    status: int
    code: str
    message: str
    param: str | None = None


def find(answer: Any, http_status: int = 200) -> Problem | None:
    """Find the failure that a JSON value reports; None where it reports none.

    Takes `{"error": {…}}` and `{"error": "…"}`, alone or in a list (Google), vLLM's `{"object": "error"}`, `{"errors":
    […]}` (Cloudflare), `{"detail": …}` (FastAPI), `{"message", "code"}`, and MiniMax's `base_resp`.
    """
    if isinstance(answer, list) and answer and isinstance(answer[0], dict) and "error" in answer[0]:
        answer = answer[0]
    if not isinstance(answer, dict):
        return None
    if answer.get("choices") and answer.keys().isdisjoint(HOLDERS):
        return None  # as almost all are
    outer = {"message": answer.get("message")} if isinstance(answer.get("message"), str) else {}
    for found in (first(answer.get(name)) for name in HOLDERS):
        if found:
            error = found if isinstance(found, dict) else {**answer, **outer, "message": outer.get("message") or found}
            return read(error, http_status) if is_error(error) else None
    is_named = answer.get("object") == "error" or answer.get("type") == "error"
    if is_named or ("choices" not in answer and ("detail" in answer or is_error(answer, by_code=True))):
        return read(answer, http_status)
    return None


def is_error(error: Mapping[str, Any], *, by_code: bool = False) -> bool:
    """Tell whether an object reports a failure: some providers send empty ones with good answers."""
    codes = [str(error[name]).lower() for name in CODE_NAMES if error.get(name) is not None]
    if any(code in {"0", "200", "ok", "success"} for code in codes):
        return False
    has_code = any(code not in FINE and (not by_code or re.search(r"[45]\d\d|err|fail|exceed", code)) for code in codes)
    if "error_code" in error or error.get("success") is False:
        return True
    return has_code if by_code else has_code or any(error.get(name) for name in WORD_NAMES)


def first(values: Any) -> Any:
    return next(iter(values), None) if isinstance(values, list) else values


def read(error: Mapping[str, Any], http_status: int) -> Problem:
    """Read one error object. A code or a type that means something counts more than the HTTP status."""
    named = [str(error[name]) for name in CODE_NAMES if error.get(name) not in (None, "")]
    message = words_of(next((error[name] for name in WORD_NAMES if error.get(name)), None))
    inner = error.get("metadata")
    if isinstance(inner, dict) and inner.get("raw"):
        message += f" ({words_of(inner['raw'])})"  # OpenRouter quotes the provider behind it
    param = error.get("param")
    code = next((name for name in named if not name.isdecimal()), "")
    return Problem(
        status_of(named, message, http_status), code[:100], message, param if isinstance(param, str) and param else None
    )


def status_of(named: list[str], message: str, http_status: int) -> int:
    """Return the status that a failure stands for: by its code and type, then by HTTP, then by numbers and words."""
    if operators := next((status for status, words in OPERATORS.items() if words.search(message)), None):
        return operators
    if meant := next(filter(None, map(meaning_of, named)), None):
        return meant
    is_too_long = bool(CONTEXT_WORDS.search(message))
    if http_status >= 400:
        return 400 if is_too_long else http_status
    if number := next((int(name) for name in named if re.fullmatch(r"[45]\d\d", name)), None):
        return number
    return 400 if is_too_long or VAGUE in named else meaning_of(message) or 502


def meaning_of(words: str) -> int | None:
    words = re.sub(r"[\s-]+", "_", words).lower()
    return next((status for status, pattern in MEANINGS.items() if re.search(pattern, words)), None)


def words_of(value: Any) -> str:
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    return storable_text(text)


def told(problem: Problem, *, retry_after: float | None = None, is_billed: bool = False) -> ApiError:
    """Return the error that a client gets for the provider's failure, which has been refused or has failed by itself.

    The provider's words are told only where they are about the request.
    """
    status = problem.status
    if status == 429 and NEVER_FITS.search(problem.message):
        return ContextLengthExceeded(is_billed=is_billed)
    if status < 500 and (CONTEXT_WORDS.search(problem.message) or "context" in problem.code):
        return ContextLengthExceeded(is_billed=is_billed)
    if status == 429:
        return UpstreamRateLimited(retry_after=retry_after, is_billed=is_billed)
    if status in {400, 413, 422, 451}:
        words = without_secrets(problem.message) or "no reason given"
        return ApiError(f"The model refused the request: {words}", param=problem.param, is_billed=is_billed)
    if status in {504, 524}:
        # A gateway gave up; whether the provider did, nobody knows.
        return UpstreamTimeout("The model did not answer in time.", retry_after=retry_after, is_billed=True)
    if status >= 500 or status in {408, 409, 424, 425, 498, 499}:
        return UpstreamError("The model's provider failed; try again.", retry_after=retry_after, is_billed=is_billed)
    is_key_refused = status in {401, 403}
    reason = "refused the server's OPENAI_API_KEY" if is_key_refused else "cannot serve this account or model"
    message = f"The model's provider {reason}; the operator must look into it."
    return UpstreamError(message, should_retry=False, is_billed=is_billed)


def texts_of(messages: list[dict[str, Any]]) -> list[str]:
    """Return the texts of a prompt that a provider may quote. Shorter ones are words that any message may have."""
    contents = [message.get("content") for message in messages]
    parts = [part.get("text") for content in contents if isinstance(content, list) for part in content]
    return [text for text in [*contents, *parts] if isinstance(text, str) and len(text) >= 8]


def retry_after(headers: Mapping[str, str], message: str = "") -> float | None:
    """Return the seconds after which the provider takes a request again, at most MAX_RETRY_AFTER; None if it says none.

    It says so in a header, as a number of seconds, milliseconds or a date, or in its words.
    """
    seconds: float | None = None
    value = headers.get("retry-after", "")
    with contextlib.suppress(ValueError):
        seconds = float(headers["retry-after-ms"]) / 1000 if "retry-after-ms" in headers else float(value.rstrip("s"))
    if seconds is None and value:
        with contextlib.suppress(TypeError, ValueError):
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
    if seconds is None and (told := WAIT.search(message)):
        seconds = float(told[1])
    return None if seconds is None or seconds < 0 else min(seconds, MAX_RETRY_AFTER)
