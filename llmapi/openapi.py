"""Add error responses to the metrics routes in the OpenAPI schema. The app analytics does not know our error format."""

from typing import Any

from chat.api.openapi import COMMON, DESCRIPTIONS

STATUSES = sorted({400, 403, 404, *COMMON})


def add_errors(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Postprocess the schema: a hook of drf-spectacular."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorOut"}}}
    for path, operations in result["paths"].items():
        if path.startswith("/metrics"):
            for operation in operations.values():
                for status in STATUSES:
                    operation["responses"][str(status)] = {"description": DESCRIPTIONS[status], "content": content}
    return result
