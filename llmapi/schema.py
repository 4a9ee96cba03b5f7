"""The description of the API for everybody, written once for each format: writing it takes 60 ms of a core."""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.cache import get_conditional_response
from django.utils.http import quote_etag
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework.request import Request

# The formats, below the few paths that a proxy may give this server.
MAX_KEPT = 16


class SchemaView(SpectacularAPIView):
    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        renderer: Any = request.accepted_renderer
        renderer_class: Callable[[], Any] = type(renderer)
        text, etag = described(renderer_class, request.META.get("SCRIPT_NAME", ""))
        content_type = f"{renderer.media_type}; charset={renderer.charset}" if renderer.charset else renderer.media_type
        headers = {"ETag": etag, "Content-Disposition": f'inline; filename="llmapi.{renderer.format}"'}
        response = HttpResponse(text, content_type=content_type, headers=headers)
        return get_conditional_response(request._request, etag=etag, response=response)


@lru_cache(MAX_KEPT)
def described(renderer: Callable[[], Any], script_name: str) -> tuple[bytes, str]:
    """Write the description for a server below the path `script_name` of a proxy, and its ETag."""
    request = HttpRequest()
    request.META["SCRIPT_NAME"] = script_name
    generator: Any = SchemaView.generator_class()
    text = renderer().render(generator.get_schema(request=Request(request), public=True), renderer_context={})
    return text, quote_etag(hashlib.sha256(text).hexdigest()[:32])
