"""The OpenAPI description of the routes, beyond what clients may send: answers, and errors.

llmapi/openapi.py adds what all routes have in common: headers, errors, and Protobuf.
"""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

from drf_spectacular.extensions import (
    OpenApiAuthenticationExtension,
    OpenApiSerializerExtension,
    OpenApiSerializerFieldExtension,
)
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
    extend_schema_serializer,
)
from rest_framework import serializers

from chat.api.serializers import CompletionIn

F = TypeVar("F", bound=Callable[..., Any])


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "chat.api.authentication.ClientTokenAuthentication"
    name = "clientToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "A client token."}


# A string, or OpenAI's content parts. What is in a part beside its type is OpenAI's, and changes with it.
PART = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"type": "string"}, "text": {"type": "string"}},
}
CONTENT = {"oneOf": [{"type": "string"}, {"type": "array", "items": PART}]}


class ContentField(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    target_class = "chat.api.serializers.Content"
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return copy.deepcopy(CONTENT)


OBJECT = {"type": "object", "additionalProperties": True}
# Fields that go to the upstream as they are: what is allowed in them is OpenAI's.
PASSED_ON = {
    "stop": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": 4}]},
    "tools": {
        "type": "array",
        "maxItems": 128,
        "items": {
            "type": "object",
            "required": ["type"],
            "properties": {
                "type": {"type": "string"},
                "function": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": {"type": "string"},
                        "description": {"type": "string"},
                        "parameters": OBJECT,
                        "strict": {"type": ["boolean", "null"]},
                    },
                },
            },
        },
    },
    "tool_choice": {"oneOf": [{"type": "string"}, OBJECT]},
    "response_format": {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"type": "string"}, "json_schema": OBJECT},
    },
}


class CompletionRequest(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """Says of the fields that are passed on what OpenAI says of them. The serializer checks less."""

    target_class = "chat.api.serializers.CompletionIn"

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        for name, known in PASSED_ON.items():
            if name in schema["properties"]:
                may_be_null = CompletionIn._declared_fields[name].allow_null
                described = {"oneOf": [known, {"type": "null"}]} if may_be_null else known
                schema["properties"][name] = copy.deepcopy(described)
        return schema


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
    declared = type(name, (serializers.Serializer,), {key: _field(kind) for key, kind in fields.items()})
    # Without this, drf-spectacular takes the answer of an action named `list` for a bare array.
    return extend_schema_serializer(many=False)(declared)


def _field(kind: Kind) -> DrfField:
    if isinstance(kind, str):
        return serializers.ChoiceField([kind])
    # DRF orders fields by their creation, so a field that exists already is made again.
    return FIELDS[kind]() if isinstance(kind, type) else copy.deepcopy(kind)


def maybe(kind: type[str | float] | type[serializers.Serializer[Any]], help_text: str = "", **more: Any) -> DrfField:
    """Describe a field that may be absent, or null."""
    declared: Any = FIELDS.get(kind, kind)  # type: ignore[arg-type]
    field: DrfField = declared(required=False, allow_null=True, help_text=help_text or None, **more)
    return field


TIMESTAMP = serializers.IntegerField(help_text="Seconds since 1970.")
NULLABLE = serializers.CharField(allow_null=True)
TEXTS = serializers.DictField(child=serializers.CharField())
OBJECTS = serializers.ListField(child=serializers.DictField())
MAYBE_OBJECTS = serializers.ListField(child=serializers.DictField(), required=False, allow_null=True)
EXTRA_CONTENT = serializers.DictField(
    required=False, help_text="What the model's provider wants back with the message, such as a thought signature."
)


def maybe_any(help_text: str) -> DrfField:
    """Describe a value as the model's provider sends it, whatever its type."""
    return serializers.JSONField(required=False, help_text=help_text)


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
FunctionCallOut = shape(
    "FunctionCallOut", name=str, arguments=serializers.CharField(help_text="JSON, as the model wrote it.")
)
CustomCallOut = shape("CustomCallOut", name=str, input=serializers.CharField(help_text="As the model wrote it."))
ToolCallOut = shape(
    "ToolCallOut",
    id=str,
    type=serializers.CharField(help_text="function or custom."),
    function=maybe(FunctionCallOut),
    custom=maybe(CustomCallOut),
    extra_content=EXTRA_CONTENT,
)
TOOL_CALLS = maybe(ToolCallOut, many=True)
ItemPartOut = shape(
    "ItemPartOut",
    type=serializers.CharField(help_text="input_text, output_text, input_image, input_audio, file, refusal, …"),
    text=maybe(str),
    refusal=maybe(str),
    image_url=maybe(str, "Of an input_image."),
    detail=maybe(str),
    file_id=maybe(str),
    input_audio=maybe(shape("InputAudioOut", data=serializers.CharField(help_text="In Base64."), format=str)),
    file=maybe(shape("FileOut", file_data=maybe(str, "A data: URL."), file_id=maybe(str), filename=maybe(str))),
    prompt_cache_breakpoint=serializers.DictField(required=False),
    annotations=MAYBE_OBJECTS,
    logprobs=MAYBE_OBJECTS,
)
ItemOut = shape(
    "ItemOut",
    id=str,
    type="message",
    role=str,
    status="completed",
    content=ItemPartOut(many=True),
    created_at=TIMESTAMP,
    name=maybe(str),
    tool_calls=TOOL_CALLS,
    tool_call_id=maybe(str),
)
ItemListOut = shape(
    "ItemListOut", object="list", data=ItemOut(many=True), first_id=NULLABLE, last_id=NULLABLE, has_more=bool
)
ModelOut = shape("ModelOut", id=str, object="model", created=int, owned_by=str)
ModelListOut = shape("ModelListOut", object="list", data=ModelOut(many=True))
CANCEL_STATUS = serializers.CharField(help_text="cancelling, or how the completion ended before.")
CancellationOut = shape("CancellationOut", id=str, object="chat.completion.cancellation", status=CANCEL_STATUS)
PromptTokensDetailsOut = shape(
    "PromptTokensDetailsOut",
    **{f"{kind}_tokens": maybe(int) for kind in ("cached", "cache_write", "audio", "image", "text")},
)
CompletionTokensDetailsOut = shape(
    "CompletionTokensDetailsOut",
    **{
        f"{kind}_tokens": maybe(int)
        for kind in ("reasoning", "audio", "accepted_prediction", "rejected_prediction", "text")
    },
)
UsageOut = shape(
    "UsageOut",
    prompt_tokens=int,
    completion_tokens=int,
    total_tokens=int,
    latency_ms=int,
    prompt_tokens_details=maybe(PromptTokensDetailsOut, "Of the prompt's tokens."),
    completion_tokens_details=maybe(CompletionTokensDetailsOut, "Of the completion's tokens."),
)
TokenLogprobOut = shape(
    "TokenLogprobOut",
    token=str,
    logprob=float,
    bytes=serializers.ListField(child=serializers.IntegerField(), required=False, allow_null=True),
    top_logprobs=MAYBE_OBJECTS,
)
LogprobsOut = shape("LogprobsOut", content=maybe(TokenLogprobOut, many=True), refusal=maybe(TokenLogprobOut, many=True))
REFUSAL = maybe(str, "What the model said in place of a reply that it refused.")
# What the model's provider says beside the text: in a message all of it, in a delta what comes next.
BESIDE: dict[str, Kind] = {
    "annotations": MAYBE_OBJECTS,
    "reasoning_content": maybe(str, "What the model thought first, where its provider tells it."),
    "reasoning_details": MAYBE_OBJECTS,
    "images": MAYBE_OBJECTS,
    "extra_content": EXTRA_CONTENT,
}
ReplyOut = shape(
    "ReplyOut",
    role="assistant",
    content=NULLABLE,
    refusal=REFUSAL,
    tool_calls=TOOL_CALLS,
    **BESIDE,
)
ChoiceOut = shape("ChoiceOut", index=int, message=ReplyOut(), logprobs=maybe(LogprobsOut), finish_reason=str)
REQUEST_ID = serializers.CharField(help_text="Equal to id.")
TRUNCATED = serializers.BooleanField(help_text="Earlier turns were left out: the model could not hold them.")
IS_CANCELLED = serializers.BooleanField(required=False, help_text="There, and true, if a client stopped the reply.")
IncompleteDetailsOut = shape("IncompleteDetailsOut", reason=str)
OF_THE_PROVIDER: dict[str, Kind] = {"service_tier": maybe(str), "system_fingerprint": maybe(str)}
# In a stream they are in the chunk with the finish reason.
AT_THE_END: dict[str, Kind] = {
    "cancelled": IS_CANCELLED,
    "incomplete_details": maybe(
        IncompleteDetailsOut, "`max_output_tokens`: the model has used up its tokens before its first word."
    ),
    "citations": maybe_any("The provider's list of sources."),
    "search_results": maybe_any("The provider's list of what it found."),
    "moderation": maybe_any("The provider's judgement of the request and the reply."),
}
CompletionOut = shape(
    "CompletionOut",
    id=str,
    object="chat.completion",
    created=TIMESTAMP,
    model=str,
    choices=ChoiceOut(many=True),
    usage=UsageOut(),
    **OF_THE_PROVIDER,
    request_id=REQUEST_ID,
    conversation_id=NULLABLE,
    reply=serializers.CharField(help_text="The text of the reply."),
    history_truncated=TRUNCATED,
    **AT_THE_END,
)
CompletionOut.__doc__ = "OpenAI's `chat.completion`, with what the conversation form adds."
CallDelta = shape(
    "ChatCompletionToolCallDelta",
    index=serializers.IntegerField(help_text="Pieces with one index make one call."),
    id=maybe(str),
    type=maybe(str),
    function=maybe(shape("ChatCompletionFunctionDelta", name=maybe(str), arguments=maybe(str))),
    custom=maybe(shape("ChatCompletionCustomDelta", name=maybe(str), input=maybe(str))),
    extra_content=EXTRA_CONTENT,
)
DELTA = shape(
    "ChatCompletionDelta",
    role=maybe(str),
    content=maybe(str, "What comes next in the reply."),
    refusal=maybe(str),
    tool_calls=maybe(CallDelta, many=True),
    **BESIDE,
)
Chunk = shape(
    "ChatCompletionChunk",
    id=str,
    object="chat.completion.chunk",
    created=TIMESTAMP,
    model=str,
    choices=shape(
        "ChatCompletionChunkChoice",
        index=int,
        delta=DELTA(),
        logprobs=maybe(LogprobsOut),
        finish_reason=maybe(str, "In the last one."),
    )(many=True, help_text="Empty in the chunk with the usage."),
    usage=maybe(UsageOut, "In a chunk of its own at the end."),
    **OF_THE_PROVIDER,
    request_id=serializers.CharField(required=False, help_text="In the first chunk. Equal to id."),
    conversation_id=maybe(str, "In the first chunk."),
    history_truncated=serializers.BooleanField(
        required=False, help_text="In the first chunk. Earlier turns were left out: the model could not hold them."
    ),
    **AT_THE_END,
)
Chunk.__doc__ = "OpenAI's `chat.completion.chunk`."
STREAM_EVENT = PolymorphicProxySerializer(
    component_name="ChatCompletionEvent", serializers=[Chunk, ErrorOut], resource_type_field_name=None
)

COMMON = (401, 406, 429, 500, 503)
BODY_ERRORS = (400, 404, 411, 413, 415)


def operation(tag: str, answer: Any, *statuses: int, status: int = 200, **more: Any) -> Callable[[F], F]:
    """Describe an operation that answers with `answer`, or with one of the error `statuses` or COMMON.

    `answer` is a serializer, or one for each status and media type.
    """
    errors = {status: OpenApiResponse(ErrorOut, DESCRIPTIONS[status]) for status in (*statuses, *COMMON)}
    answers = answer if isinstance(answer, dict) else {status: answer}
    return extend_schema(tags=[tag], responses={**answers, **errors}, **more)


MESSAGES = [{"role": "user", "content": "Hello!"}]
WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
REPLY = (
    "The reply. With `stream: true`, server-sent events: `data:` and a ChatCompletionChunk each, then `data: [DONE]`. "
    "A stream that fails has an ErrorOut in its last event."
)
create_completion = operation(
    "Chat",
    {
        (200, "application/json"): OpenApiResponse(CompletionOut, REPLY),
        (200, "text/event-stream"): OpenApiResponse(STREAM_EVENT, REPLY),
    },
    *(*BODY_ERRORS, 409, 502, 504),
    request=CompletionIn,
    parameters=[
        OpenApiParameter(
            "Idempotency-Key",
            str,
            OpenApiParameter.HEADER,
            description="1 to 255 printable ASCII characters, quoted or not. The same request with the same key is "
            "answered from memory for 24 hours, with `Idempotent-Replayed: true`.",
        )
    ],
    examples=[
        OpenApiExample(name, value, description=description, request_only=True, media_type="application/json")
        for name, description, value in [
            ("OpenAI messages", "The history comes with the request.", {"messages": MESSAGES}),
            ("Stream", "", {"messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}),
            ("Tools", "", {"messages": MESSAGES, "tools": [{"type": "function", "function": WEATHER}]}),
            (
                "Conversation",
                "The server remembers the history. Put in the id that POST /v1/conversations gave you.",
                {"conversation_id": "c_0123456789abcdef01234567", "message": "Hello!"},
            ),
        ]
    ],
)
