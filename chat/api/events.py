"""Events from clients: where what they saw meets the conversations and turns that are theirs."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from analytics.ledger import events as client_events
from analytics.models import AnalyticsEvent, UsageEvent
from chat.api import openapi as schema
from chat.api.base import ClientViewSet, client_of
from chat.api.serializers import KnownFieldsSerializer, Metadata, Text
from chat.exceptions import ApiError, CompletionNotFound, ConversationNotFound
from chat.models import ClientToken, Conversation

# What is about one reply has to name it.
ABOUT_A_REPLY = ["first_token_shown", "regenerated", "thumbs_up", "thumbs_down"]
NAMES = ["opened", *ABOUT_A_REPLY]
MOST_EVENTS = 100
# A day is closed soon after it is over: what comes later than this could change what nobody builds again.
OLDEST = timedelta(hours=24)


@extend_schema_field({"oneOf": [{"type": "number"}, {"type": "string", "format": "date-time"}]})
class Instant(serializers.Field[datetime, Any, Any, Any]):
    """Seconds since 1970, or a date and time of ISO 8601 with its offset."""

    default_error_messages = {
        "invalid": "Send seconds since 1970, or a time with its offset as 2026-03-02T09:30:00Z.",
        "far": "This is no time of this century; send seconds since 1970, not milliseconds.",
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
    id = Text(required=False, max_length=64, help_text="Unique among your events: sent again, it counts once.")
    user = Text(required=False, max_length=255, help_text="Names the end user; that of the completion without it.")
    conversation_id = Text(required=False, max_length=40)
    request_id = Text(required=False, max_length=40, help_text="The completion that the event is about.")
    occurred_at = Instant(required=False, help_text="By your clock; when it arrives without it.")
    metadata = Metadata(required=False, allow_null=True, help_text="`app_version` is what metrics filter by.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["name"] in ABOUT_A_REPLY and "request_id" not in attrs:
            raise serializers.ValidationError({"request_id": ["Name the completion that was shown or judged."]})
        return attrs


class EventsIn(KnownFieldsSerializer):
    events = serializers.ListField(child=EventIn(), allow_empty=False, max_length=MOST_EVENTS)
    sent_at = Instant(required=False, help_text="The time by your clock as you send this: it tells how wrong that is.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """An event is as old as the client's clock says, and no younger than none: so a wrong clock does no harm."""
        now = timezone.now()
        sent_at = attrs.get("sent_at", now)
        for index, event in enumerate(attrs["events"]):
            event["path"] = f"events[{index}]"
            event["age"] = max(timedelta(0), sent_at - event.get("occurred_at", sent_at))
            # One that is too old is refused once it is known to be new; until then it has a time like any other.
            event["created_at"] = now - min(event["age"], OLDEST)
        return attrs


class EventsOut(serializers.Serializer[Any]):
    object = serializers.ChoiceField(choices=["events"])
    stored = serializers.IntegerField()
    duplicates = serializers.IntegerField(help_text="Events whose id had been sent before.")


class EventViewSet(ClientViewSet):
    @extend_schema(
        tags=["Events"],
        request=EventsIn,
        responses={201: EventsOut, **schema.errors(*schema.BODY_ERRORS)},
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
        """Tell what only the client sees: up to 100 events, stored all or none.

        An event with an `id` counts once, so that a batch without an answer can be sent again.
        """
        asked = EventsIn(data=request.data)
        asked.is_valid(raise_exception=True)
        client, events = client_of(request), asked.validated_data["events"]
        # What was stored before is no error now, whatever has become of it since.
        known = client_events.known(client.pk, {event["id"] for event in events if "id" in event})
        batch = Batch.of(client, [event for event in events if event.get("id") not in known])
        stored = client_events.record(client.pk, list(batch.rows()))
        answer = {"object": "events", "stored": stored, "duplicates": len(events) - stored}
        return Response(answer, status=status.HTTP_201_CREATED)


@dataclass(frozen=True)
class Batch:
    """Validated events, and what they name of the client's own."""

    client: ClientToken
    events: list[dict[str, Any]]
    turns: dict[str, UsageEvent]
    conversations: set[str]

    @classmethod
    def of(cls, client: ClientToken, events: list[dict[str, Any]]) -> "Batch":
        turns = client_events.turns_of(client.pk, {event["request_id"] for event in events if "request_id" in event})
        # The conversation of a turn is the turn's own, even where it was deleted since.
        named = {event.get("conversation_id", "") for event in events if "request_id" not in event} - {""}
        owned = Conversation.objects.owned_by(client).filter(pk__in=named)
        return cls(client, events, turns, set(owned.values_list("pk", flat=True)) if named else set())

    def rows(self) -> Iterator[AnalyticsEvent]:
        return map(self.row, self.events)

    def row(self, event: dict[str, Any]) -> AnalyticsEvent:
        path = event["path"]
        if event["age"] > OLDEST:
            param = f"{path}.occurred_at"
            raise ApiError(f"{param}: Send events within 24 hours; leave this one out.", param=param)
        turn = self.turn_of(event, path)
        conversation_id = self.conversation_of(event, turn, path)
        metadata = event.get("metadata") or {}
        return AnalyticsEvent(
            event_name=f"client.{event['name']}",
            client_token_id=self.client.pk,
            user_id=event.get("user") or (turn.user_id if turn else self.client.default_user_id),
            conversation_id=conversation_id,
            request_id=event.get("request_id", ""),
            model=turn.model if turn else "",
            app_version=metadata.get("app_version", turn.app_version if turn else "")[:64],
            metadata_json=metadata,
            client_event_id=event.get("id"),
            created_at=event["created_at"],
        )

    def turn_of(self, event: dict[str, Any], path: str) -> UsageEvent | None:
        if "request_id" not in event:
            return None
        turn = self.turns.get(event["request_id"])
        if turn is None:
            raise CompletionNotFound(param=f"{path}.request_id")
        return turn

    def conversation_of(self, event: dict[str, Any], turn: UsageEvent | None, path: str) -> str:
        conversation_id: str = event.get("conversation_id", turn.conversation_id if turn else "")
        if turn and conversation_id != turn.conversation_id:
            raise ApiError("The completion is not of this conversation.", param=f"{path}.conversation_id")
        if not turn and conversation_id and conversation_id not in self.conversations:
            raise ConversationNotFound(param=f"{path}.conversation_id")
        return conversation_id
