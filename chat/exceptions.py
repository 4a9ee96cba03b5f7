"""The errors that llmapi answers with: status, code, and whether SDKs should try again.

The body is OpenAI's: `{"error": {"message", "type", "code", "param"}}`.
"""

import logging
import math
import sys
from collections.abc import Iterable
from typing import Any, Self

from django.core.exceptions import BadRequest, PermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, JsonResponse
from rest_framework import exceptions, status
from rest_framework.response import Response

from analytics import instruments
from analytics.causes import cause
from analytics.replica import ReplicaUnavailable

logger = logging.getLogger(__name__)

# Of an error, in characters: an answer is never as long as the request that it is about.
MAX_MESSAGE = 2000
MAX_PARAM = 200

NOTHING_HERE = "Nothing is here; /docs lists every route."


class ApiError(exceptions.APIException):
    status_code: int = status.HTTP_400_BAD_REQUEST
    default_code = "invalid_request"
    default_detail = "The request is not valid."
    retry_after: float | None = None  # seconds
    should_retry: bool | None = None  # None: the SDKs decide by the status.
    is_billed = False  # The upstream may have sold tokens all the same.

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        is_billed: bool = False,
    ) -> None:
        super().__init__(message)
        self.param = param
        self.retry_after = self.retry_after if retry_after is None else retry_after
        self.should_retry = self.should_retry if should_retry is None else should_retry
        self.is_billed = self.is_billed or is_billed


class UpstreamError(ApiError):
    status_code: int = status.HTTP_502_BAD_GATEWAY
    default_code = "upstream_error"


class UpstreamRateLimited(UpstreamError):
    """The model's provider limits this server: no limit of the client's own, and counted as no refusal of one."""

    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    default_code = "upstream_rate_limited"
    default_detail = "The model's provider is limiting us; wait as long as Retry-After says."
    retry_after = 5


class ContextLengthExceeded(ApiError):
    default_code = "context_length_exceeded"
    # Frameworks know the error by words: some by these, some by those of `of`.
    default_detail = (
        "Input tokens exceed the configured limit, which is this model's maximum context length. Please reduce the "
        "length of the messages."
    )

    @classmethod
    def of(cls, context: int, *, prompt: int, reply: int) -> Self:
        """Say it in OpenAI's words, with the tokens that there are: frameworks look for them, and send less."""
        return cls(
            f"This model's maximum context length is {context} tokens. However, your messages resulted in {prompt} "
            f"tokens, and {reply} are kept for the reply. Input tokens exceed the configured limit. Please reduce the "
            "length of the messages, or lower max_completion_tokens.",
            param="messages",
        )


class RequestTooLarge(ApiError):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "request_too_large"

    @classmethod
    def of(cls, most: int) -> Self:
        return cls(f"The body is longer than {most:,} bytes ({most / 2**20:.3g} MiB); send less at once.")


class ModelNotFound(ApiError):
    status_code = status.HTTP_404_NOT_FOUND
    default_code = "model_not_found"
    should_retry = False

    @classmethod
    def named(cls, model: str, models: Iterable[str]) -> Self:
        """Say it in OpenAI's words, which frameworks know, and name the `models` that there are."""
        missing = f"The model `{model[:100]}` does not exist or you do not have access to it."
        return cls(f"{missing} This server has: {', '.join(models)}.", param="model")


class IdempotencyInProgress(ApiError):
    status_code = status.HTTP_409_CONFLICT
    default_code = "idempotency_in_progress"
    default_detail = "The first request with this Idempotency-Key is still running; send the same request again."
    retry_after = 1


class Cancelled(ApiError):
    status_code = status.HTTP_409_CONFLICT
    default_code = "cancelled"
    default_detail = "The completion was cancelled before its first word."
    should_retry = False
    is_billed = True


def error(
    status_code: int, code: str, message: str = "", *, base: type[ApiError] = ApiError, **more: float | bool
) -> type[ApiError]:
    """Declare an error that is raised and nowhere caught by its class; `more` are other attributes of ApiError."""
    named = {"status_code": status_code, "default_code": code, "default_detail": message}
    return type(code, (base,), {**named, **more})


ConversationNotFound = error(
    404, "conversation_not_found", "No such conversation; create one with POST /v1/conversations."
)
ItemNotFound = error(404, "item_not_found", "No such item in this conversation; list its items to see their ids.")
CompletionNotFound = error(
    404, "completion_not_found", "No such completion; its id is the request_id of the first chunk."
)
RequestTimeout = error(408, "request_timeout", "The body came too slowly, or not at all; send the whole request again.")
IdempotencyKeyReused = error(
    409, "idempotency_key_reused", "Idempotency key reused with different request", should_retry=False
)
NotCancellable = error(
    409, "not_cancellable", "Only a completion that is being streamed can be cancelled.", should_retry=False
)
SessionInvalid = error(
    401, "invalid_token", "The session is unknown or revoked; start one with POST /v1/sessions.", should_retry=False
)
SessionExpired = error(
    401, "session_expired", "The access token is over; renew it with POST /v1/sessions/refresh.", should_retry=False
)
SignInInvalid = error(401, "invalid_subject_token", should_retry=False)
PublishableKey = error(
    403,
    "publishable_key",
    "A publishable key can only start sessions: send it to POST /v1/sessions, and the access_token of its answer here.",
    should_retry=False,
)
SecretKey = error(
    403,
    "secret_key",
    "Sessions are started with a publishable key (pk_…), and not with a secret one.",
    should_retry=False,
)
OriginNotAllowed = error(
    403,
    "origin_not_allowed",
    "The key may not be used from this origin; the operator lists its origins on the key.",
    should_retry=False,
)
NotAllowed = error(403, "not_allowed", should_retry=False)
PersonBlocked = error(403, "person_blocked", "The operator has blocked this person.", should_retry=False)
AttestationFailed = error(403, "attestation_failed", should_retry=False)
LengthRequired = error(411, "length_required", "This server reads no chunked body; send it with a Content-Length.")
RateLimitExceeded = error(429, "rate_limit_exceeded")
SessionLimitExceeded = error(
    429, "session_limit_exceeded", "Too many sessions were started from here; wait as long as Retry-After says."
)
BudgetExceeded = error(429, "budget_exceeded", should_retry=False)
InternalError = error(
    500, "internal_error", "Something broke on our side; quote the x-request-id when you report it.", is_billed=True
)
Unavailable = error(503, "unavailable", "The service cannot reach its database; try again in a moment.", retry_after=1)
# The server stops, and the turn did not end in time.
Interrupted = error(
    503,
    "unavailable",
    "The server is being restarted; send the request again.",
    base=UpstreamError,
    retry_after=1,
    is_billed=True,
)
UpstreamTimeout = error(504, "upstream_timeout", base=UpstreamError)

# By status, for errors that are not ours; where DRF has another code, OpenAI's clients know these.
CODES = {400: "invalid_request", 401: "invalid_token", 403: "permission_denied", 404: "not_found"}


def error_body(status_code: int, message: str, code: str, param: str | None = None) -> dict[str, Any]:
    """Make the body of an answer, or of the last event of a stream, and count that a client was told this."""
    instruments.of(instruments.ERRORS, code).inc()
    message, param = message[:MAX_MESSAGE], param and param[:MAX_PARAM]
    types = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    error_type = "server_error" if status_code >= 500 else types.get(status_code, "invalid_request_error")
    return {"error": {"message": message, "type": error_type, "code": code, "param": param}}


def answer_error(exc: Exception, context: dict[str, Any]) -> Response:
    """Answer with any exception that a view raises, never with a traceback. This is DRF's exception handler."""
    error = known_error(exc)
    if error.status_code >= 500 and not isinstance(exc, ApiError):
        # A database that is away fails every request: one line for each, without a traceback.
        logger.error("request failed: %s", cause(exc), exc_info=None if isinstance(error, Unavailable) else exc)
    message, param = first_problem(error.detail)
    code = error.default_code if isinstance(error, ApiError) else CODES.get(error.status_code, error.default_code)
    response = Response(
        error_body(error.status_code, message, code, getattr(error, "param", None) or param), status=error.status_code
    )
    if error.status_code == status.HTTP_401_UNAUTHORIZED:
        response["WWW-Authenticate"] = getattr(error, "auth_header", None) or 'Bearer realm="llmapi"'
    if (retry_after := getattr(error, "retry_after", None)) is not None:
        response["Retry-After"] = str(max(1, math.ceil(retry_after)))
    if (should_retry := getattr(error, "should_retry", None)) is not None:
        response["x-should-retry"] = "true" if should_retry else "false"
    return response


def known_error(exc: Exception) -> exceptions.APIException:
    """Translate an exception that is not ours."""
    if isinstance(exc, exceptions.NotAuthenticated):
        exc.detail = exceptions.ErrorDetail("Send a client token as `Authorization: Bearer <token>`.")
    if isinstance(exc, exceptions.APIException):
        return exc
    if isinstance(exc, Http404):
        return exceptions.NotFound(NOTHING_HERE)
    if isinstance(exc, PermissionDenied):
        return exceptions.PermissionDenied()
    if isinstance(exc, ReplicaUnavailable):
        return Unavailable(str(exc))
    if isinstance(exc, OperationalError | InterfaceError):
        return Unavailable()
    return InternalError()


def first_problem(detail: Any, path: str = "") -> tuple[str, str | None]:
    """Find the first message in DRF's nested error details, and the field that it is about (`messages[0].role`)."""
    if isinstance(detail, dict):
        field, inner = next(iter(detail.items()))
        if isinstance(field, int):
            return first_problem(inner, f"{path}[{field}]")
        step = "" if field == "non_field_errors" else str(field)
        return first_problem(inner, ".".join(part for part in (path, step) if part))
    if isinstance(detail, list):
        # DRF gives an empty dict for each item without a problem.
        index, inner = next(((index, inner) for index, inner in enumerate(detail) if inner), (0, ""))
        return first_problem(inner, f"{path}[{index}]" if isinstance(inner, dict | list) else path)
    message = str(detail)
    return (f"{path}: {message}" if path else message), path or None


def answer_page_error(request: HttpRequest, exception: Exception | None = None) -> JsonResponse:
    """Answer where no view of DRF does. Of messages only our own are told: Django's may quote the request."""
    match exception:
        case None:
            # Django tells this handler nothing, and calls it while it handles the exception.
            problem = sys.exception()
            if isinstance(problem, OperationalError | InterfaceError):
                away = Unavailable(str(problem) if isinstance(problem, ReplicaUnavailable) else None)
                body = error_body(away.status_code, str(away.detail), away.default_code)
                return JsonResponse(body, status=away.status_code, headers={"Retry-After": "1"})
            status_code, message = 500, InternalError.default_detail
        case Http404():
            status_code, message = 404, NOTHING_HERE
        case PermissionDenied():
            status_code, message = 403, "You may not do this."
        case BadRequest():
            status_code, message = 400, str(exception)
        case _:
            status_code, message = 400, "The request is malformed, or names a host that this server does not serve."
    code = CODES.get(status_code, InternalError.default_code)
    return JsonResponse(error_body(status_code, message, code), status=status_code)
