"""Events for product metrics: those of turns, and those that clients send. The database's clock dates them all."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from analytics.ledger.invalidation import database_now, invalidate
from analytics.models import AnalyticsEvent, UsageEvent


@dataclass(frozen=True)
class Subject:
    """Whom and what a row of the ledger is about. `model` is the name that the client asked for."""

    request_id: str
    client_token_id: int
    user_id: str
    conversation_id: str = ""
    app_version: str = ""
    model: str = ""


@dataclass(frozen=True)
class Event:
    """Something that happened to a user, `age` before it is stored. `client_event_id` is what its client calls it."""

    name: str
    subject: Subject
    client_event_id: str | None = None
    age: timedelta = timedelta(0)
    metadata: dict[str, Any] = field(default_factory=dict)

    def row(self, created_at: datetime | Now) -> AnalyticsEvent:
        return AnalyticsEvent(
            event_name=self.name,
            **vars(self.subject),
            client_event_id=self.client_event_id,
            metadata_json=self.metadata,
            created_at=created_at,
        )


def record_event(
    name: str, subject: Subject, metadata: dict[str, Any] | None = None, *, created_at: datetime | Now | None = None
) -> None:
    """Store an event of now, or of `created_at`: then the caller invalidates its day."""
    Event(name, subject, metadata=metadata or {}).row(created_at or Now()).save(force_insert=True)


def record_client_events(client_token_id: int, events: Collection[Event]) -> int:
    """Store those events of one client that are new, and return how many.

    An id that the client has used before names the same event, sent again.
    """
    named = {event.client_event_id: event for event in reversed([*events]) if event.client_event_id}
    with transaction.atomic():
        new = [event for event in events if not event.client_event_id]
        # Sorted, so that two requests with the same batch do not wait for each other.
        new += [named[event_id] for event_id in sorted(named.keys() - known_event_ids(client_token_id, named.keys()))]
        # The clock is read only where an event is older than its arrival.
        now = database_now() if any(event.age for event in new) else None
        rows = [event.row(now - event.age if now and event.age else Now()) for event in new]
        AnalyticsEvent.objects.bulk_create(rows, ignore_conflicts=True)
        if now:
            invalidate({(now - event.age).date() for event in new} - {now.date()})
    return len(new)


def known_event_ids(client_token_id: int, event_ids: Collection[str]) -> set[str | None]:
    """Return those ids that the client has used for an event before."""
    events = AnalyticsEvent.objects.filter(client_token_id=client_token_id, client_event_id__in=event_ids)
    return set(events.values_list("client_event_id", flat=True))


def turns_of(
    client_token_id: int, request_ids: Collection[str], user_ids: Collection[str] | None = None
) -> dict[str, Subject]:
    """Return the subjects of those turns that are the client's own, by request id. With `user_ids`, only of theirs."""
    turns = UsageEvent.objects.filter(client_token_id=client_token_id, request_id__in=request_ids)
    if user_ids is not None:
        turns = turns.filter(user_id__in=user_ids)
    columns = ("request_id", "client_token_id", "user_id", "conversation_id", "app_version", "model")
    return {row[0]: Subject(*row) for row in turns.values_list(*columns)}
