"""The floor under a turn: an empty DRF view that makes the same SDK call.

It has no middleware, no database, no authentication and no parsing of the reply beyond JSON. The call itself is the one
of chat/upstream/client.py, so the floor follows its client, its pool and its timeouts.
"""

import json
from collections.abc import Iterator
from typing import Any

from django.http import StreamingHttpResponse
from django.urls import URLPattern, path
from rest_framework.parsers import JSONParser
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from chat.upstream import client
from chat.upstream.deadlines import Deadline
from chat.upstream.replies import Call


class FloorView(APIView):
    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()
    parser_classes = (JSONParser,)
    renderer_classes = (JSONRenderer,)

    def get(self, request: Request) -> Response:
        return Response({})

    def post(self, request: Request) -> Response | StreamingHttpResponse:
        asked: Any = request.data
        messages = [{"role": "user", "content": asked["message"]}]
        body: dict[str, Any] = {"model": "gpt-4o-mini", "messages": messages}
        if asked.get("stream"):
            return StreamingHttpResponse(
                sent(body | {"stream": True, "stream_options": {"include_usage": True}}),
                content_type="text/event-stream",
            )
        return Response(json.loads(b"".join(sent(body))))


def sent(body: dict[str, Any]) -> Iterator[bytes]:
    """Yield the upstream's answer as it comes."""
    with client.send(Call("r_floor", body, prompt_tokens=1), body) as answer:
        yield from client.read(answer.response, Deadline())


urlpatterns: list[URLPattern] = [path("health", FloorView.as_view()), path("v1/chat/completions", FloorView.as_view())]
