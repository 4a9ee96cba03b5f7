"""What all routes have in common in the OpenAPI description: hooks of drf-spectacular."""

from typing import Any

from django.urls import resolve
from rest_framework.request import Request

from chat.api.openapi import COMMON, DESCRIPTIONS
from chat.api.parsers import ProtobufParser, RegisteredProtobufParser
from chat.api.protobuf import ROUTES

Spec = dict[str, Any]

PROTOBUF = (ProtobufParser.media_type, RegisteredProtobufParser.media_type)
NO_RENDERER = 406
ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorOut"}}}
METRICS_ERRORS = sorted({400, 403, 404, *COMMON})

RATES = {
    f"x-ratelimit-{part}-{unit}": f"{said} of the client token, in {unit} a minute."
    for unit in ("requests", "tokens")
    for part, said in {
        "limit": "The limit",
        "remaining": "What is left of the limit",
        "reset": "Seconds until all of the limit is back, as 1.500s,",
    }.items()
}
HEADERS = {
    "x-request-id": "Names this request in logs; a completion has it as its id.",
    "RateLimit-Policy": "Every limit that the request was counted against, as draft-ietf-httpapi-ratelimit-headers.",
    "RateLimit": "What is left of each, and the seconds until more is.",
    **RATES,
    "Retry-After": "Seconds to wait before the next try.",
    "x-should-retry": "`true` or `false`: whether another try may help. OpenAI's SDKs obey it.",
    "Idempotent-Replayed": "`true` if the answer is that of an earlier request with the same Idempotency-Key.",
    "WWW-Authenticate": "How to authenticate.",
}
LIMITS = ("RateLimit-Policy", "RateLimit", *RATES)
# Beside x-request-id, which every answer has.
HEADERS_OF = {
    401: ("WWW-Authenticate",),
    409: ("Retry-After", "x-should-retry", *LIMITS),
    429: ("Retry-After", "x-should-retry", *LIMITS),
    502: ("Retry-After", "x-should-retry", *LIMITS),
    503: ("Retry-After", "x-should-retry", *LIMITS),
    504: ("Retry-After", "x-should-retry", *LIMITS),
}


def complete(result: Spec, request: Request | None = None, **kwargs: Any) -> Spec:
    """Postprocess the description."""
    path_of_proxy = request.META.get("SCRIPT_NAME", "") if request else ""
    # Below a path of a proxy, requests that /docs sends must go there, too.
    result["servers"] = [{"url": path_of_proxy or "/", "description": "This server"}]
    components = result["components"]
    components["headers"] = {name: header(name, text) for name, text in HEADERS.items()}
    components["responses"] = {}
    for path, operations in result["paths"].items():
        for method, operation in operations.items():
            add_summary(operation)
            operation.setdefault("security", [])
            if path.startswith("/v1/"):
                add_protobuf(operation, path, method)
                share_errors(operation, components["responses"])
            elif path.startswith("/metrics"):
                add_errors(operation, METRICS_ERRORS)
            else:
                add_errors(operation, [NO_RENDERER, *([503] if path == "/ready" else [])])
            add_headers(operation, path)
    return result


def header(name: str, description: str) -> Spec:
    # x-request-id alone is on every answer.
    return {"description": description, "required": name == "x-request-id", "schema": {"type": "string"}}


def add_summary(operation: Spec) -> None:
    """Take the first line of the view's docstring as the summary, and what follows, if anything, as the description."""
    first, _, rest = operation.get("description", "").partition("\n\n")
    summary = " ".join(first.split())
    operation["summary"] = summary.removesuffix(".")
    operation["description"] = rest or summary


def add_protobuf(operation: Spec, path: str, method: str) -> None:
    """Describe the Protobuf messages of a route beside its JSON, or, of one that ends in .pb, in place of its JSON."""
    view: Any = resolve(path.replace("{", "").replace("}", "")).func
    messages = ROUTES[f"{view.cls.__name__}.{view.actions[method]}"]
    if messages.request:
        operation["requestBody"]["content"] |= binary(messages.request.DESCRIPTOR.name)
        operation["requestBody"]["required"] = path != "/v1/conversations"
    for status, response in operation["responses"].items():
        answer = messages.answer.DESCRIPTOR.name if int(status) < 400 else "Error"
        is_streamed = "text/event-stream" in response["content"]
        streamed = "; with `stream`, ChatChunk messages, each after its length as a varint" if is_streamed else ""
        in_json = {} if path.endswith(".pb") else response["content"]
        response["content"] = {**in_json, **binary(answer, streamed)}


def binary(message: str, more: str = "") -> Spec:
    schema = {"type": "string", "format": "binary", "description": f"The message {message} of protos/chat.proto{more}."}
    return {media_type: {"schema": dict(schema)} for media_type in PROTOBUF}


def share_errors(operation: Spec, shared: Spec) -> None:
    """Move the errors that clients' routes have in common to the components."""
    for status, response in operation["responses"].items():
        if int(status) >= 400:
            is_protobuf = "application/json" not in response["content"]
            name = f"{'ProtobufError' if is_protobuf else 'Error'}{status}"
            shared[name] = response
            response["headers"] = refer(["x-request-id", *HEADERS_OF.get(int(status), ("x-should-retry", *LIMITS))])
            operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}


def add_errors(operation: Spec, statuses: list[int]) -> None:
    """Add errors to routes of apps that do not know our error format."""
    for status in statuses:
        operation["responses"][str(status)] = {"description": DESCRIPTIONS[status], "content": ERROR}


def add_headers(operation: Spec, path: str) -> None:
    names = ["x-request-id", *(LIMITS if path.startswith(("/v1/", "/metrics")) else ())]
    if path.startswith("/v1/chat/completions"):
        names.append("Idempotent-Replayed")
    for response in operation["responses"].values():
        if "$ref" not in response:
            response["headers"] = refer(names)
            response["description"] = response["description"] or "The answer."


def refer(names: list[str]) -> Spec:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
