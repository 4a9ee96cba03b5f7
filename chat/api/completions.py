import itertools
from typing import Any

from django.http import StreamingHttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from analytics import ledger
from analytics.fairness import outside
from chat.api import answers, openapi, policy
from chat.api.base import ClientViewSet, client_of, person_ids
from chat.api.limits import limits_of
from chat.api.serializers import CompletionIn, upstream_parameters, validated
from chat.api.streaming import EventStream, ProtobufStream, render_stream
from chat.api.users import user_of
from chat.exceptions import CompletionNotFound, NotCancellable
from chat.turns import lifecycle, registry, stream
from chat.turns.idempotency import Idempotency
from chat.turns.request import TurnRequest

REPLAYED = {"Idempotent-Replayed": "true"}


class CompletionViewSet(ClientViewSet):
    @openapi.create_completion
    def create(self, request: Request, **kwargs: Any) -> Response | StreamingHttpResponse:
        """Send a message and get the reply.

        Send either `conversation_id` and `message`, or OpenAI's `messages`. With an `Idempotency-Key` header the same
        request can be sent again for 24 hours: it gets the same answer, and is billed once.
        """
        client, data = client_of(request), validated(CompletionIn(data=request.data))
        policy.check_completion(client, data)
        message = {"role": "user", "content": data.get("message")}
        subject = ledger.Subject(
            request_id=request._request.request_id,  # type: ignore[attr-defined]
            client_token_id=client.pk,
            user_id=user_of(client, data.get("user")),
            conversation_id=data.get("conversation_id", ""),
            app_version=data.get("metadata", {}).get("app_version", "")[:64],
            model=data.get("model") or policy.default_model(client),
        )
        turn = TurnRequest(
            client=client,
            subject=subject,
            messages=data.get("messages", [message]),
            parameters=policy.bound_reply(client, upstream_parameters(data)),
            idempotency=Idempotency.of(request, data),
            is_stream=data.get("stream", False),
            limits=limits_of(request),
        )
        if turn.is_stream:
            # A chunk without choices breaks clients that did not ask for it.
            wants_usage = data.get("stream_options", {}).get("include_usage", False)
            return self.stream(turn, wants_usage_chunk=wants_usage)
        result = lifecycle.take_turn(turn)
        return Response(result.answer, headers=REPLAYED if result.is_replay else None)

    def stream(self, turn: TurnRequest, *, wants_usage_chunk: bool) -> StreamingHttpResponse:
        """Begin the answer with the first chunk, or after 10 seconds of silence: from then on an error is an event."""
        log, is_replay = stream.begin(turn)
        reading = log.read()
        with outside():
            first = next(reading)
        renderer = self.request.accepted_renderer
        form = ProtobufStream(renderer.media_type) if renderer.format == "pb" else EventStream()
        wants_usage = wants_usage_chunk or isinstance(form, ProtobufStream)
        body = render_stream(itertools.chain([first], reading), lambda: log.usage if wants_usage else None, form)
        headers = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
        return StreamingHttpResponse(
            body, content_type=form.content_type, headers=headers | (REPLAYED if is_replay else {})
        )

    @openapi.operation("Chat", answers.CancellationOut, 404, 409, request=None)
    def cancel(self, request: Request, request_id: str) -> Response:
        """Stop a reply that is being streamed. What has come of it is kept, and its tokens are estimated."""
        client = client_of(request)
        found = ledger.request_cancel(request_id, client.pk, person_ids(client))
        if found is None:
            raise CompletionNotFound
        status, is_stream = found
        if status == ledger.Status.PENDING:
            if not is_stream:
                raise NotCancellable
            registry.cancel(request_id)
            status = "cancelling"
        return Response({"id": request_id, "object": "chat.completion.cancellation", "status": status})
