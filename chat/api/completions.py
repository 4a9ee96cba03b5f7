import itertools
from typing import Any

from django.conf import settings
from django.http import StreamingHttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.permissions import AllowAny
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from analytics.ledger import turns as recording
from chat.api import openapi as schema
from chat.api.base import ClientViewSet, client_of
from chat.api.parsers import JSONParser, ProtobufParser, RegisteredProtobufParser
from chat.api.renderers import ProtobufRenderer, RegisteredProtobufRenderer, SameFormatNegotiation
from chat.api.serializers import CompletionIn
from chat.api.streaming import EventStream, ProtobufStream, StreamRenderer, render_stream
from chat.exceptions import CompletionNotFound, ModelNotFound, NotCancellable
from chat.limits.rates import verdicts_of
from chat.turns import lifecycle as turns
from chat.turns import stream as streams
from chat.turns.idempotency import Idempotency

REPLAYED = {"Idempotent-Replayed": "true"}


RENDERERS = [JSONRenderer, ProtobufRenderer, RegisteredProtobufRenderer]


class CompletionViewSet(ClientViewSet):
    parser_classes = [JSONParser, ProtobufParser, RegisteredProtobufParser]
    renderer_classes = RENDERERS
    content_negotiation_class = SameFormatNegotiation
    idempotency_class = Idempotency

    @extend_schema(**schema.CREATE_COMPLETION)
    def create(self, request: Request, **kwargs: Any) -> Response | StreamingHttpResponse:
        """Send a message and get the reply.

        Either `conversation_id` and `message`, or OpenAI's `messages`. With an `Idempotency-Key` header the
        same request can be sent again for 24 hours: it is answered from memory, and billed once.
        """
        asked = CompletionIn(data=request.data)
        asked.is_valid(raise_exception=True)
        data = asked.validated_data
        ask = turns.Ask(
            client=client_of(request),
            request_id=request._request.request_id,  # type: ignore[attr-defined]
            model=data.get("model", settings.OPENAI_MODEL),
            messages=asked.new_messages,
            conversation_id=data.get("conversation_id", ""),
            user_id=data.get("user", ""),
            parameters=asked.parameters,
            idempotency=self.idempotency_class.of(request, data),
            is_stream=data.get("stream", False),
            app_version=data.get("metadata", {}).get("app_version", "")[:64],
            verdicts=verdicts_of(request._request),
        )
        if ask.is_stream:
            return self.stream(ask, wants_usage_chunk=asked.wants_usage_chunk)
        outcome = turns.take_turn(ask)
        return Response(outcome.answer, headers=REPLAYED if outcome.is_replay else None)

    def stream(self, ask: turns.Ask, *, wants_usage_chunk: bool) -> StreamingHttpResponse:
        """Begin the answer with the first chunk, or after 10 seconds of silence: from then on an error is an event."""
        log, is_replay = streams.begin(ask)
        reading = log.read()
        first = next(reading)
        form: StreamRenderer = EventStream()
        if self.request.accepted_renderer.format == "pb":
            form = ProtobufStream(self.request.accepted_renderer.media_type)
        wants_usage = wants_usage_chunk or form.content_type != EventStream.content_type
        body = render_stream(itertools.chain([first], reading), lambda: log.usage if wants_usage else None, form)
        headers = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
        return StreamingHttpResponse(
            body, content_type=form.content_type, headers=headers | (REPLAYED if is_replay else {})
        )

    @extend_schema(**schema.CANCEL_COMPLETION)
    def cancel(self, request: Request, request_id: str) -> Response:
        """Stop a reply that is being streamed; what has come of it is kept, its tokens as an estimate."""
        found = recording.ask_to_cancel(request_id, client_of(request).pk)
        if found is None:
            raise CompletionNotFound
        status_now, is_stream = found
        if status_now == "pending":
            if not is_stream:
                raise NotCancellable
            streams.cancel(request_id)
            status_now = "cancelling"
        return Response({"id": request_id, "object": "chat.completion.cancellation", "status": status_now})


class ModelViewSet(ClientViewSet):
    @extend_schema(**schema.LIST_MODELS)
    def list(self, request: Request) -> Response:
        """The models a client may name."""
        return Response({"object": "list", "data": [model_object(name) for name in settings.OPENAI_MODELS]})

    @extend_schema(**schema.RETRIEVE_MODEL)
    def retrieve(self, request: Request, model: str) -> Response:
        """One of them."""
        if model not in settings.OPENAI_MODELS:
            raise ModelNotFound
        return Response(model_object(model))


def model_object(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "llmapi"}


@extend_schema(exclude=True)
class UnknownRouteView(APIView):
    """What is not offered under /v1 is a 404 in OpenAI's shape, whatever the method, in DEBUG as well."""

    renderer_classes = RENDERERS
    content_negotiation_class = SameFormatNegotiation
    authentication_classes = ()
    permission_classes = (AllowAny,)
    throttle_classes = ()

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self.http_method_names = [str(request.method).lower()]
        return super().dispatch(request, *args, **kwargs)

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        raise NotFound(f"llmapi does not offer {request.method} {request.path}; /docs lists every route.")
