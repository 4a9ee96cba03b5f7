"""The OpenAPI description of the routes, beyond their serializers."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse

from chat.api import serializers


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "chat.api.authentication.ClientTokenAuthentication"
    name = "clientToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "A client token."}


PROTOBUF = ("application/x-protobuf", "application/protobuf")

DESCRIPTIONS = {
    400: "`invalid_request`, `context_length_exceeded`: the message names the field and what to change.",
    401: "`invalid_token`: no token, or one that is unknown, expired or revoked.",
    403: "`permission_denied`: the token may not read metrics.",
    404: "`conversation_not_found`, `item_not_found`, `completion_not_found`, `model_not_found`: "
    "not there, or somebody else's.",
    406: "`not_acceptable`: no format of the `Accept` header is offered.",
    409: "`cancelled`, `not_cancellable`. `idempotency_key_reused`: same key, different request. "
    "`idempotency_in_progress`: the first request with this key still runs; `Retry-After` says when to send it again.",
    411: "`length_required`: the body was sent without a Content-Length.",
    413: "`request_too_large`: the body is over MAX_REQUEST_BYTES.",
    415: "`unsupported_media_type`.",
    429: "`rate_limit_exceeded`: `Retry-After` says when to send it again. `budget_exceeded`: the message says what "
    "is left and until when; `x-should-retry: false`.",
    500: "`internal_error`: quote the `x-request-id`.",
    502: "`upstream_error`: the model's provider failed.",
    503: "`unavailable`: the database is away, the server is full or stops; `Retry-After`.",
    504: "`upstream_timeout`: the model did not answer in time.",
}


def errors(*statuses: int) -> dict[Any, Any]:
    return {status: OpenApiResponse(serializers.ErrorOut, DESCRIPTIONS[status]) for status in statuses}


def errors_with_protobuf(*statuses: int) -> dict[Any, Any]:
    """Describe the same errors where a Protobuf request gets the message `Error`."""
    answers: dict[Any, Any] = {}
    for status in statuses:
        answers[status, "application/json"] = OpenApiResponse(serializers.ErrorOut, DESCRIPTIONS[status])
        for media_type in PROTOBUF:
            answers[status, media_type] = OpenApiResponse(OpenApiTypes.BINARY, DESCRIPTIONS[status])
    return answers


IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="1 to 255 printable ASCII characters, quoted or not. The same request with the same key is "
    "answered from memory for 24 hours, with `Idempotent-Replayed: true`.",
)
COMMON = (401, 406, 429, 500, 503)
BODY_ERRORS = (400, 404, 411, 413, 415, *COMMON)


def operation(tag: str, answer: Any, *statuses: int, status: int = 200, **more: Any) -> dict[str, Any]:
    """Describe an operation that answers with `answer`, or with one of the error `statuses`."""
    return {"tags": [tag], "responses": {status: answer, **errors(*statuses)}, **more}


CREATE_CONVERSATION = operation(
    "Conversations",
    serializers.ConversationOut,
    *(400, 411, 413, 415, *COMMON),
    status=201,
    request=serializers.ConversationIn,
    examples=[
        OpenApiExample("Plain", {}, request_only=True),
        OpenApiExample("With metadata", {"metadata": {"app": "web", "version": "1.2"}}, request_only=True),
    ],
)
RETRIEVE_CONVERSATION = operation("Conversations", serializers.ConversationOut, 404, *COMMON)
UPDATE_CONVERSATION = operation(
    "Conversations",
    serializers.ConversationOut,
    *BODY_ERRORS,
    operation_id="v1_conversations_update",
    request=serializers.ConversationUpdateIn,
)
DELETE_CONVERSATION = operation("Conversations", serializers.ConversationDeletedOut, 404, *COMMON)
LIST_ITEMS = operation(
    "Conversations", serializers.ItemListOut, 400, 404, *COMMON, parameters=[serializers.ItemListQuery]
)
CREATE_ITEMS = operation("Conversations", serializers.ItemListOut, *BODY_ERRORS, request=serializers.ItemsIn)
RETRIEVE_ITEM = operation("Conversations", serializers.ItemOut, 404, *COMMON)
DELETE_ITEM = operation("Conversations", serializers.ConversationOut, 404, *COMMON)
LIST_MODELS = operation("Models", serializers.ModelListOut, *COMMON)
RETRIEVE_MODEL = operation("Models", serializers.ModelOut, 404, *COMMON)
CANCEL_COMPLETION = operation("Chat", serializers.CancellationOut, 404, 409, *COMMON, request=None)
CREATE_COMPLETION: dict[str, Any] = {
    "tags": ["Chat"],
    "parameters": [IDEMPOTENCY_KEY],
    "request": {
        "application/json": serializers.CompletionIn,
        **dict.fromkeys(PROTOBUF, OpenApiTypes.BINARY),
    },
    "responses": {
        (200, "application/json"): serializers.CompletionOut,
        (200, "text/event-stream"): OpenApiResponse(
            OpenApiTypes.STR, "With `stream: true`: OpenAI's chunks as server-sent events, then `[DONE]`."
        ),
        **{(200, media_type): OpenApiTypes.BINARY for media_type in PROTOBUF},
        **errors_with_protobuf(400, 404, 409, 411, 413, 415, 502, 504, *COMMON),
    },
    "examples": [
        OpenApiExample(
            "Conversation",
            {"conversation_id": "c_…", "message": "Hello!"},
            request_only=True,
            media_type="application/json",
        ),
        OpenApiExample(
            "OpenAI messages",
            {"messages": [{"role": "user", "content": "Hello!"}]},
            request_only=True,
            media_type="application/json",
        ),
    ],
}
