"""The OpenAPI description of the routes, beyond what clients may send: answers, and errors."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers

from chat.api.serializers import CompletionIn

F = TypeVar("F", bound=Callable[..., Any])


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
    411: "`length_required`: the body came in chunks, and the server that runs llmapi does not mark their end.",
    413: "`request_too_large`: the body is over MAX_REQUEST_BYTES, which the message names.",
    415: "`unsupported_media_type`.",
    429: "`rate_limit_exceeded`: `Retry-After` says when to send it again. `budget_exceeded`: the message says what "
    "is left and until when; `x-should-retry: false`. `upstream_rate_limited`: the model's provider limits the server.",
    500: "`internal_error`: quote the `x-request-id`.",
    502: "`upstream_error`: the model's provider failed.",
    503: "`unavailable`: the database is away, the server is full or stops; `Retry-After`.",
    504: "`upstream_timeout`: the model did not answer in time.",
}


DrfField = serializers.Field[Any, Any, Any, Any]
Kind = str | type[str | float] | DrfField
FIELDS: dict[type[str | float], type[DrfField]] = {
    str: serializers.CharField,
    int: serializers.IntegerField,
    float: serializers.FloatField,
    bool: serializers.BooleanField,
}


def shape(name: str, /, **fields: Kind) -> type[serializers.Serializer[Any]]:
    """Declare an answer, as a serializer that only describes.

    Each field is given as a type, as the one string that it holds, or as a field of DRF.
    """
    return type(name, (serializers.Serializer,), {key: _field(kind) for key, kind in fields.items()})


def _field(kind: Kind) -> DrfField:
    if isinstance(kind, str):
        return serializers.ChoiceField([kind])
    # DRF orders fields by their creation, so a field that exists already is made again.
    return FIELDS[kind]() if isinstance(kind, type) else copy.deepcopy(kind)


TIMESTAMP = serializers.IntegerField(help_text="Seconds since 1970.")
NULLABLE = serializers.CharField(allow_null=True)
TEXTS = serializers.DictField(child=serializers.CharField())
OBJECTS = serializers.ListField(child=serializers.DictField())
ErrorDetail = shape(
    "ErrorDetail",
    message=serializers.CharField(help_text="Says what to do."),
    type=str,
    code=str,
    param=serializers.CharField(allow_null=True, help_text="The field or header at fault."),
)
ErrorOut = shape("ErrorOut", error=ErrorDetail())
ConversationOut = shape(
    "ConversationOut", id=str, object="conversation", created_at=TIMESTAMP, metadata=TEXTS, conversation_id=str
)
ConversationDeletedOut = shape("ConversationDeletedOut", id=str, object="conversation.deleted", deleted=bool)
ItemOut = shape("ItemOut", id=str, type="message", role=str, status="completed", content=OBJECTS, created_at=TIMESTAMP)
ItemListOut = shape(
    "ItemListOut", object="list", data=ItemOut(many=True), first_id=NULLABLE, last_id=NULLABLE, has_more=bool
)
ModelOut = shape("ModelOut", id=str, object="model", created=int, owned_by=str)
ModelListOut = shape("ModelListOut", object="list", data=ModelOut(many=True))
CANCEL_STATUS = serializers.CharField(help_text="cancelling, or how the completion ended before.")
CancellationOut = shape("CancellationOut", id=str, object="chat.completion.cancellation", status=CANCEL_STATUS)
UsageOut = shape("UsageOut", prompt_tokens=int, completion_tokens=int, total_tokens=int, latency_ms=int)
ReplyOut = shape("ReplyOut", role="assistant", content=NULLABLE)
ChoiceOut = shape("ChoiceOut", index=int, message=ReplyOut(), finish_reason=str)
CompletionOut = shape(
    "CompletionOut",
    id=str,
    object="chat.completion",
    created=TIMESTAMP,
    model=str,
    choices=ChoiceOut(many=True),
    usage=UsageOut(),
    request_id=serializers.CharField(help_text="Equal to id."),
    conversation_id=NULLABLE,
    reply=serializers.CharField(help_text="The text of the reply."),
    history_truncated=serializers.BooleanField(help_text="Earlier turns were left out: the model could not hold them."),
)
CompletionOut.__doc__ = "OpenAI's `chat.completion`, with what the conversation form adds."

COMMON = (401, 406, 429, 500, 503)
BODY_ERRORS = (400, 404, 411, 413, 415)


def operation(tag: str, answer: Any, *statuses: int, status: int = 200, **more: Any) -> Callable[[F], F]:
    """Describe an operation that answers with `answer`, or with one of the error `statuses` or COMMON."""
    errors = {status: OpenApiResponse(ErrorOut, DESCRIPTIONS[status]) for status in (*statuses, *COMMON)}
    return extend_schema(tags=[tag], responses={status: answer, **errors}, **more)


create_completion = extend_schema(
    tags=["Chat"],
    parameters=[
        OpenApiParameter(
            "Idempotency-Key",
            str,
            OpenApiParameter.HEADER,
            description="1 to 255 printable ASCII characters, quoted or not. The same request with the same key is "
            "answered from memory for 24 hours, with `Idempotent-Replayed: true`.",
        )
    ],
    request={"application/json": CompletionIn, **dict.fromkeys(PROTOBUF, OpenApiTypes.BINARY)},
    responses={
        (200, "application/json"): CompletionOut,
        (200, "text/event-stream"): OpenApiResponse(
            OpenApiTypes.STR, "With `stream: true`: OpenAI's chunks as server-sent events, then `[DONE]`."
        ),
        **{(200, media_type): OpenApiTypes.BINARY for media_type in PROTOBUF},
        # A Protobuf request gets errors as the message `Error`.
        **{
            (status, media_type): OpenApiResponse(answer, DESCRIPTIONS[status])
            for status in (*BODY_ERRORS, 409, 502, 504, *COMMON)
            for media_type, answer in {
                "application/json": ErrorOut,
                **dict.fromkeys(PROTOBUF, OpenApiTypes.BINARY),
            }.items()
        },
    },
    examples=[
        OpenApiExample(name, value, request_only=True, media_type="application/json")
        for name, value in {
            "Conversation": {"conversation_id": "c_…", "message": "Hello!"},
            "OpenAI messages": {"messages": [{"role": "user", "content": "Hello!"}]},
        }.items()
    ],
)
