"""What OpenAPI says of the routes, beyond what their serializers say."""

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
    "`idempotency_in_progress`: the first request with this key still runs; `Retry-After` says when to ask again.",
    411: "`length_required`: the body was sent without a Content-Length.",
    413: "`request_too_large`: the body is over MAX_REQUEST_BYTES.",
    415: "`unsupported_media_type`.",
    429: "`rate_limit_exceeded`: `Retry-After` says when to ask again. `budget_exceeded`: the message says what "
    "is left and until when; `x-should-retry: false`.",
    500: "`internal_error`: quote the `x-request-id`.",
    502: "`upstream_error`: the model's provider failed.",
    503: "`unavailable`: the database is away, the server is full or stops; `Retry-After`.",
    504: "`upstream_timeout`: the model did not answer in time.",
}


def errors(*statuses: int) -> dict[Any, Any]:
    return {status: OpenApiResponse(serializers.ErrorOut, DESCRIPTIONS[status]) for status in statuses}


def errors_with_protobuf(*statuses: int) -> dict[Any, Any]:
    """The same where a Protobuf request gets the message `Error`."""
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

CREATE_CONVERSATION: dict[str, Any] = {
    "tags": ["Conversations"],
    "request": serializers.ConversationIn,
    "responses": {201: serializers.ConversationOut, **errors(400, 411, 413, 415, *COMMON)},
    "examples": [
        OpenApiExample("Plain", {}, request_only=True),
        OpenApiExample("With metadata", {"metadata": {"app": "web", "version": "1.2"}}, request_only=True),
    ],
}
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
CANCEL_COMPLETION: dict[str, Any] = {
    "tags": ["Chat"],
    "request": None,
    "responses": {200: serializers.CancellationOut, **errors(404, 409, *COMMON)},
}
BODY_ERRORS = (400, 404, 411, 413, 415, *COMMON)
RETRIEVE_CONVERSATION: dict[str, Any] = {
    "tags": ["Conversations"],
    "responses": {200: serializers.ConversationOut, **errors(404, *COMMON)},
}
UPDATE_CONVERSATION: dict[str, Any] = {
    "tags": ["Conversations"],
    "operation_id": "v1_conversations_update",
    "request": serializers.ConversationUpdateIn,
    "responses": {200: serializers.ConversationOut, **errors(*BODY_ERRORS)},
}
DELETE_CONVERSATION: dict[str, Any] = {
    "tags": ["Conversations"],
    "responses": {200: serializers.ConversationDeletedOut, **errors(404, *COMMON)},
}
LIST_ITEMS: dict[str, Any] = {
    "tags": ["Conversations"],
    "parameters": [serializers.ItemListQuery],
    "responses": {200: serializers.ItemListOut, **errors(400, 404, *COMMON)},
}
CREATE_ITEMS: dict[str, Any] = {
    "tags": ["Conversations"],
    "request": serializers.ItemsIn,
    "responses": {200: serializers.ItemListOut, **errors(*BODY_ERRORS)},
}
RETRIEVE_ITEM: dict[str, Any] = {
    "tags": ["Conversations"],
    "responses": {200: serializers.ItemOut, **errors(404, *COMMON)},
}
DELETE_ITEM: dict[str, Any] = {
    "tags": ["Conversations"],
    "responses": {200: serializers.ConversationOut, **errors(404, *COMMON)},
}
RETRIEVE_MODEL: dict[str, Any] = {
    "tags": ["Models"],
    "responses": {200: serializers.ModelOut, **errors(404, *COMMON)},
}
LIST_MODELS: dict[str, Any] = {
    "tags": ["Models"],
    "responses": {200: serializers.ModelListOut, **errors(*COMMON)},
}
