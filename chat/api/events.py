"""Events that clients send: what only they see, of conversations and turns that are their own."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema_field
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from analytics import ledger
from chat.api import answers, openapi
from chat.api.base import ClientViewSet, client_of, person_ids
from chat.api.scalars import Few, Text
from chat.api.serializers import KnownFieldsSerializer, Metadata, validated
from chat.api.users import UserId, user_of
from chat.exceptions import ApiError, CompletionNotFound, ConversationNotFound
from chat.models import ClientToken, Conversation

# An event about one reply has to name it.
ABOUT_A_REPLY = ["first_token_shown", "regenerated", "thumbs_up", "thumbs_down"]
NAMES = ["opened", *ABOUT_A_REPLY]
MAX_EVENTS, MAX_EVENT_ID = 100, 64
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
        except (ValueError, OverflowError, OSError):
            self.fail("invalid" if isinstance(data, str) else "far")
        if at.tzinfo is None:
            self.fail("invalid")
        if not 2000 <= at.year < 2100:
            self.fail("far")
        return at


class EventIn(KnownFieldsSerializer):
    name = serializers.ChoiceField(choices=NAMES, error_messages={"invalid_choice": f"Send one of {', '.join(NAMES)}."})
    id = Text(
        required=False,
        max_length=MAX_EVENT_ID,
        help_text="Unique among your events. An event that is sent again counts once.",
    )
    user = UserId(required=False, help_text="Names the end user. Without it: the user of the completion.")
    conversation_id = Text(required=False, max_length=40)
    request_id = Text(required=False, max_length=40, help_text="The completion that the event is about.")
    occurred_at = Instant(required=False, help_text="By your clock. Without it: when it arrives.")
    metadata = Metadata(required=False, allow_null=True, help_text="`app_version` is what metrics filter by.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["name"] in ABOUT_A_REPLY and "request_id" not in attrs:
            raise serializers.ValidationError({"request_id": ["Name the completion that was shown or judged."]})
        return attrs


class EventsIn(KnownFieldsSerializer):
    events = Few(child=EventIn(), allow_empty=False, max_length=MAX_EVENTS)
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


EventsOut = answers.shape(
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
            OpenApiExample("The app was opened", {"events": [{"name": "opened"}]}, request_only=True),
            OpenApiExample(
                "A reply that was liked",
                {"events": [{"name": "thumbs_up", "id": "like-1", "request_id": "r_0123456789abcdef01234567"}]},
                description="Put in the request_id of a completion of yours, and an id of your own.",
                request_only=True,
            ),
        ],
    )
    def create(self, request: Request) -> Response:
        """Send up to 100 events that only the client sees. All are stored, or none.

        An event with an `id` counts once, so that a batch that got no answer can be sent again.
        """
        client, events = client_of(request), validated(EventsIn(data=request.data))["events"]
        # An event that was stored before is no error now, whatever has become of what it names.
        for event in events:
            if "id" in event:
                event["id"] = client.own_name(event["id"], MAX_EVENT_ID)
        known = ledger.known_event_ids(client.pk, {event["id"] for event in events if "id" in event})
        new = own_events(client, [event for event in events if event.get("id") not in known])
        stored = ledger.record_client_events(client.pk, new)
        answer = {"object": "events", "stored": stored, "duplicates": len(events) - stored}
        return Response(answer, status=status.HTTP_201_CREATED)


def own_events(client: ClientToken, events: list[dict[str, Any]]) -> list[ledger.Event]:
    """Find the turn or the conversation that each event is about.

    Raises ApiError where it is not the client's, or an event is too old.
    """
    asked = {event["request_id"] for event in events if "request_id" in event}
    turns = ledger.turns_of(client.pk, asked, person_ids(client)) if asked else {}
    # A turn names its own conversation, even where that was deleted since.
    named = {event.get("conversation_id", "") for event in events if "request_id" not in event} - {""}
    own = {"", *Conversation.objects.owned_by(client).filter(pk__in=named).values_list("pk", flat=True)}
    found = []
    for event in events:
        path, conversation_id, metadata = event["path"], event.get("conversation_id"), event.get("metadata") or {}
        if event["age"] > MAX_AGE:
            param = f"{path}.occurred_at"
            raise ApiError(f"{param}: Send events within 24 hours; leave this one out.", param=param)
        if "request_id" not in event:
            if (conversation_id or "") not in own:
                raise ConversationNotFound(param=f"{path}.conversation_id")
            subject = ledger.Subject("", client.pk, client.default_user_id, conversation_id or "")
        elif event["request_id"] not in turns:
            raise CompletionNotFound(param=f"{path}.request_id")
        else:
            subject = turns[event["request_id"]]
            if conversation_id not in (None, subject.conversation_id):
                raise ApiError("The completion is not of this conversation.", param=f"{path}.conversation_id")
        version = metadata.get("app_version", subject.app_version)[:64]
        user_id = user_of(client, event.get("user"), f"{path}.user") if "user" in event else subject.user_id
        user_id = client.owner_id or user_id
        subject = replace(subject, user_id=user_id, app_version=version)
        found.append(ledger.Event(f"client.{event['name']}", subject, event.get("id"), event["age"], metadata))
    return found
