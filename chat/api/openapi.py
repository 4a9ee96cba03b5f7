"""The OpenAPI description of the routes, beyond what clients may send: operations, and errors.

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
    extend_schema,
)

from chat.api.answers import STREAM_EVENT, CompletionOut, ErrorOut
from chat.api.serializers import CompletionIn

F = TypeVar("F", bound=Callable[..., Any])


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "chat.api.authentication.ClientTokenAuthentication"
    name = "clientToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "A client token, or the access token of a session."}


class PublishableScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "chat.api.sessions.PublishableKeyAuthentication"
    name = "publishableKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "A publishable key, which only starts sessions."}


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
    401: "`invalid_token`: no token, or one that is unknown, expired or revoked. `session_expired`: refresh it. "
    "`invalid_subject_token`: the sign-in is not taken.",
    403: "`permission_denied`: the token may not read metrics. `publishable_key`: it can only start sessions. "
    "`not_allowed`: the app may not send what `param` names. `origin_not_allowed`, `person_blocked`, "
    "`attestation_failed`, `secret_key`.",
    404: "`conversation_not_found`, `item_not_found`, `completion_not_found`, `model_not_found`: "
    "not there, or somebody else's.",
    406: "`not_acceptable`: no format of the `Accept` header is offered.",
    409: "`cancelled`, `not_cancellable`. `idempotency_key_reused`: same key, different request. "
    "`idempotency_in_progress`: the first request with this key still runs; `Retry-After` says when to send it again.",
    411: "`length_required`: the body came in chunks, and the server that runs llmapi does not mark their end.",
    413: "`request_too_large`: the body is over MAX_REQUEST_BYTES or 50,000 values; the message says which.",
    415: "`unsupported_media_type`.",
    429: "`rate_limit_exceeded`: `Retry-After` says when to send it again. `budget_exceeded`: the message says what "
    "is left and until when; `x-should-retry: false`. `session_limit_exceeded`: too many sessions were "
    "started. `upstream_rate_limited`: the model's provider limits the server.",
    500: "`internal_error`: quote the `x-request-id`.",
    502: "`upstream_error`: the model's provider failed.",
    503: "`unavailable`: the database is away, the server is full or stops; `Retry-After`.",
    504: "`upstream_timeout`: the model did not answer in time.",
}

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
