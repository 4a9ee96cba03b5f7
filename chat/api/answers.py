"""What the routes answer with, as the OpenAPI description has it: serializers that only describe."""

import copy
from typing import Any

from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema_serializer
from rest_framework import serializers

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
