"""The errors that llmapi answers with: status, code, and whether SDKs should try again.

The body is OpenAI's: `{"error": {"message", "type", "code", "param"}}`.
"""

import logging
import math
from typing import Any

from django.core.exceptions import BadRequest, PermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, JsonResponse
from rest_framework import exceptions, status
from rest_framework.response import Response

logger = logging.getLogger(__name__)


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


class ContextLengthExceeded(ApiError):
    default_code = "context_length_exceeded"
    default_detail = "The message is longer than the model can read; shorten it."


class ConversationNotFound(ApiError):
    status_code = status.HTTP_404_NOT_FOUND
    default_code = "conversation_not_found"
    default_detail = "No such conversation; create one with POST /v1/conversations."


class IdempotencyKeyReused(ApiError):
    status_code = status.HTTP_409_CONFLICT
    default_code = "idempotency_key_reused"
    default_detail = "Idempotency key reused with different request"
    should_retry = False


class IdempotencyInProgress(ApiError):
    status_code = status.HTTP_409_CONFLICT
    default_code = "idempotency_in_progress"
    default_detail = "The first request with this Idempotency-Key is still running; send the same request again."
    retry_after = 1


class RequestTooLarge(ApiError):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "request_too_large"


class LengthRequired(ApiError):
    status_code = status.HTTP_411_LENGTH_REQUIRED
    default_code = "length_required"
    default_detail = "Send the body with a Content-Length, not chunked."


class RateLimitExceeded(ApiError):
    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    default_code = "rate_limit_exceeded"


class BudgetExceeded(ApiError):
    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    default_code = "budget_exceeded"
    should_retry = False


class UpstreamError(ApiError):
    status_code: int = status.HTTP_502_BAD_GATEWAY
    default_code = "upstream_error"


class UpstreamTimeout(UpstreamError):
    status_code = status.HTTP_504_GATEWAY_TIMEOUT
    default_code = "upstream_timeout"


class Interrupted(UpstreamError):
    """The server stops, and the turn did not end in time."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "unavailable"
    default_detail = "The server is being restarted; send the request again."
    retry_after = 1
    is_billed = True


class Cancelled(ApiError):
    status_code = status.HTTP_409_CONFLICT
    default_code = "cancelled"
    default_detail = "The completion was cancelled before its first word."
    should_retry = False
    is_billed = True


class NotCancellable(ApiError):
    status_code = status.HTTP_409_CONFLICT
    default_code = "not_cancellable"
    default_detail = "Only a completion that is being streamed can be cancelled."
    should_retry = False


class ModelNotFound(ApiError):
    status_code = status.HTTP_404_NOT_FOUND
    default_code = "model_not_found"
    default_detail = "Not a model of this server; GET /v1/models lists them."


class ItemNotFound(ApiError):
    status_code = status.HTTP_404_NOT_FOUND
    default_code = "item_not_found"
    default_detail = "No such item in this conversation; list its items to see their ids."


class CompletionNotFound(ApiError):
    status_code = status.HTTP_404_NOT_FOUND
    default_code = "completion_not_found"
    default_detail = "No such completion; its id is the request_id of the first chunk."


class InternalError(ApiError):
    status_code = status.HTTP_500_INTERNAL_SERVER_ERROR
    default_code = "internal_error"
    default_detail = "Something broke on our side; quote the x-request-id when you report it."
    is_billed = True


class Unavailable(ApiError):
    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "unavailable"
    default_detail = "The service cannot reach its database; try again in a moment."
    retry_after = 1


CODES = {
    400: "invalid_request",
    401: "invalid_token",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    415: "unsupported_media_type",
    429: "rate_limit_exceeded",
    503: "unavailable",
}


def type_of(status_code: int) -> str:
    """Return OpenAI's `type` for a status."""
    if status_code >= 500:
        return "server_error"
    return {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
        status_code, "invalid_request_error"
    )


def error_body(status_code: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    code = code or CODES.get(status_code, "internal_error")
    return {"error": {"message": message, "type": type_of(status_code), "code": code, "param": param}}


def answer_error(exc: Exception, context: dict[str, Any]) -> Response:
    """Answer with any exception that a view raises, never with a traceback. This is DRF's exception handler."""
    error = known_error(exc)
    if error.status_code >= 500 and not isinstance(exc, ApiError):
        # A database that is away fails every request: one line for each, without a traceback.
        logger.error("request failed: %s", type(exc).__name__, exc_info=None if isinstance(error, Unavailable) else exc)
    message, param = first_problem(error.detail)
    code = error.default_code if isinstance(error, ApiError) else CODES.get(error.status_code)
    response = Response(
        error_body(error.status_code, message, code, getattr(error, "param", None) or param), status=error.status_code
    )
    if auth_header := getattr(error, "auth_header", None):
        response["WWW-Authenticate"] = auth_header
    if (retry_after := getattr(error, "retry_after", None)) is not None:
        response["Retry-After"] = str(max(1, math.ceil(retry_after)))
    if (should_retry := getattr(error, "should_retry", None)) is not None:
        response["x-should-retry"] = "true" if should_retry else "false"
    return response


def known_error(exc: Exception) -> exceptions.APIException:
    """Translate an exception that is not ours."""
    if isinstance(exc, exceptions.NotAuthenticated):
        exc.detail = exceptions.ErrorDetail("Send a client token as `Authorization: Bearer <token>`.")
    if isinstance(exc, exceptions.Throttled):
        return RateLimitExceeded(
            "Too many requests in this minute; wait as long as Retry-After says.",
            retry_after=getattr(exc, "wait", None),
        )
    if isinstance(exc, exceptions.APIException):
        return exc
    if isinstance(exc, Http404):
        return exceptions.NotFound("Nothing is here; /docs lists every route.")
    if isinstance(exc, PermissionDenied):
        return exceptions.PermissionDenied()
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
        for index, inner in enumerate(detail):
            if isinstance(inner, dict | list):
                if inner:
                    return first_problem(inner, f"{path}[{index}]")
            else:
                return first_problem(inner, path)
    message = str(detail)
    return (f"{path}: {message}" if path else message), path or None


def json_error(request: HttpRequest, status_code: int, message: str) -> JsonResponse:
    return JsonResponse(error_body(status_code, message), status=status_code)


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:
    """Answer with the message of our own errors only: Django's may quote the request."""
    message = "The request is malformed, or names a host that this server does not serve."
    return json_error(request, 400, str(exception) if isinstance(exception, BadRequest) else message)


def permission_denied(request: HttpRequest, exception: Exception) -> JsonResponse:
    return json_error(request, 403, "You may not do this.")


def not_found(request: HttpRequest, exception: Exception) -> JsonResponse:
    return json_error(request, 404, "Nothing is here; /docs lists every route.")


def server_error(request: HttpRequest) -> JsonResponse:
    return json_error(request, 500, InternalError.default_detail)
