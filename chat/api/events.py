"""Events that clients send: what only they see, of conversations and turns that are their own."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema_field
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from analytics import ledger
from chat.api import openapi
from chat.api.base import ClientViewSet, client_of
from chat.api.serializers import KnownFieldsSerializer, Metadata, Text
from chat.exceptions import ApiError, CompletionNotFound, ConversationNotFound
from chat.models import ClientToken, Conversation

# An event about one reply has to name it.
ABOUT_A_REPLY = ["first_token_shown", "regenerated", "thumbs_up", "thumbs_down"]
NAMES = ["opened", *ABOUT_A_REPLY]
MAX_EVENTS = 100
# Rollups of a day are final at some time: an event that comes later could not be counted.
MAX_AGE = timedelta(hours=24)


@extend_schema_field({"oneOf": [{"type": "number"}, {"type": "string", "format": "date-time"}]})
class Instant(serializers.Field[datetime, Any, Any, Any]):
    """Seconds since 1970, or a date and time of ISO 8601 with its offset."""

    default_error_messages = {
        "invalid": "Send seconds since 1970, or a time with its offset as 2026-03-02T09:30:00Z.",
        "far": "This is not a time of this century; send seconds since 1970, not milliseconds.",
    }

    def to_internal_value(self, data: Any) -> datetime:
        if isinstance(data, bool) or not isinstance(data, int | float | str):
            self.fail("invalid")
        try:
            at = datetime.fromisoformat(data) if isinstance(data, str) else datetime.fromtimestamp(data, UTC)
        except (OverflowError, OSError):
            self.fail("far")
        except ValueError:
            self.fail("invalid" if isinstance(data, str) else "far")
        if at.tzinfo is None:
            self.fail("invalid")
        if not 2000 <= at.year < 2100:
            self.fail("far")
        return at


class EventIn(KnownFieldsSerializer):
    name = serializers.ChoiceField(choices=NAMES, error_messages={"invalid_choice": f"Send one of {', '.join(NAMES)}."})
    id = Text(
        required=False, max_length=64, help_text="Unique among your events. An event that is sent again counts once."
    )
    user = Text(required=False, max_length=255, help_text="Names the end user. Without it: the user of the completion.")
    conversation_id = Text(required=False, max_length=40)
    request_id = Text(required=False, max_length=40, help_text="The completion that the event is about.")
    occurred_at = Instant(required=False, help_text="By your clock. Without it: when it arrives.")
    metadata = Metadata(required=False, allow_null=True, help_text="`app_version` is what metrics filter by.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["name"] in ABOUT_A_REPLY and "request_id" not in attrs:
            raise serializers.ValidationError({"request_id": ["Name the completion that was shown or judged."]})
        return attrs


class EventsIn(KnownFieldsSerializer):
    events = serializers.ListField(child=EventIn(), allow_empty=False, max_length=MAX_EVENTS)
    sent_at = Instant(
        required=False, help_text="The time by your clock as you send this. It tells how wrong your clock is."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Take the age of each event by the client's own clock, at least 0: so a wrong clock does no harm."""
        sent_at = attrs.get("sent_at")
        for index, event in enumerate(attrs["events"]):
            event["path"] = f"events[{index}]"
            event["age"] = timedelta(0)
            if "occurred_at" in event:
                sent_at = sent_at or ledger.database_now()
                event["age"] = max(timedelta(0), sent_at - event["occurred_at"])
        return attrs


EventsOut = openapi.shape(
    "EventsOut",
    object="events",
    stored=int,
    duplicates=serializers.IntegerField(help_text="Events whose id had been sent before."),
)


class EventViewSet(ClientViewSet):
    @openapi.operation(
        "Events",
        EventsOut,
        *openapi.BODY_ERRORS,
        status=201,
        request=EventsIn,
        operation_id="v1_events",
        examples=[
            OpenApiExample(
                "A reply that was liked",
                {"events": [{"name": "thumbs_up", "id": "0b5c…", "request_id": "r_…", "occurred_at": 1772443800}]},
                request_only=True,
            )
        ],
    )
    def create(self, request: Request) -> Response:
        """Send up to 100 events that only the client sees. All are stored, or none.

        An event with an `id` counts once, so that a batch that got no answer can be sent again.
        """
        asked = EventsIn(data=request.data)
        asked.is_valid(raise_exception=True)
        client, events = client_of(request), asked.validated_data["events"]
        # An event that was stored before is no error now, whatever has become of what it names.
        known = ledger.known_event_ids(client.pk, {event["id"] for event in events if "id" in event})
        batch = Batch.of(client, [event for event in events if event.get("id") not in known])
        stored = ledger.record_client_events(client.pk, [batch.event_of(event) for event in batch.events])
        answer = {"object": "events", "stored": stored, "duplicates": len(events) - stored}
        return Response(answer, status=status.HTTP_201_CREATED)


@dataclass(frozen=True)
class Batch:
    """Validated events, and those turns and conversations that they name and the client owns."""

    client: ClientToken
    events: list[dict[str, Any]]
    turns: dict[str, ledger.Subject]
    conversations: set[str]

    @classmethod
    def of(cls, client: ClientToken, events: list[dict[str, Any]]) -> "Batch":
        turns = ledger.turns_of(client.pk, {event["request_id"] for event in events if "request_id" in event})
        # A turn names its own conversation, even where that was deleted since.
        named = {event.get("conversation_id", "") for event in events if "request_id" not in event} - {""}
        owned = Conversation.objects.owned_by(client).filter(pk__in=named)
        return cls(client, events, turns, set(owned.values_list("pk", flat=True)) if named else set())

    def event_of(self, event: dict[str, Any]) -> ledger.Event:
        """Check what an event names. Raises ApiError where it is not the client's, or the event is too old."""
        if event["age"] > MAX_AGE:
            param = f"{event['path']}.occurred_at"
            raise ApiError(f"{param}: Send events within 24 hours; leave this one out.", param=param)
        subject = self.subject_of(event)
        metadata = event.get("metadata") or {}
        subject = replace(
            subject,
            user_id=event.get("user") or subject.user_id,
            app_version=metadata.get("app_version", subject.app_version)[:64],
        )
        return ledger.Event(f"client.{event['name']}", subject, event.get("id"), event["age"], metadata)

    def subject_of(self, event: dict[str, Any]) -> ledger.Subject:
        """Find the turn or the conversation that an event is about."""
        path, conversation_id = event["path"], event.get("conversation_id", "")
        if "request_id" not in event:
            if conversation_id and conversation_id not in self.conversations:
                raise ConversationNotFound(param=f"{path}.conversation_id")
            return ledger.Subject("", self.client.pk, self.client.default_user_id, conversation_id)
        turn = self.turns.get(event["request_id"])
        if turn is None:
            raise CompletionNotFound(param=f"{path}.request_id")
        if event.get("conversation_id", turn.conversation_id) != turn.conversation_id:
            raise ApiError("The completion is not of this conversation.", param=f"{path}.conversation_id")
        return turn
