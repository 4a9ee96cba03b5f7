"""What only a client sees, as it tells: each of its events is stored once, however often it is sent."""

from collections.abc import Collection
from datetime import UTC

from django.db import transaction

from analytics.ledger.turns import mark_changed, mark_if_built
from analytics.models import AnalyticsEvent, UsageEvent


def turns_of(client_token_id: int, request_ids: Collection[str]) -> dict[str, UsageEvent]:
    """The client's own turns among these."""
    turns = UsageEvent.objects.filter(client_token_id=client_token_id, request_id__in=request_ids)
    columns = ("request_id", "user_id", "conversation_id", "model", "app_version")
    return {turn.request_id: turn for turn in turns.only(*columns)} if request_ids else {}


def record(client_token_id: int, events: Collection[AnalyticsEvent]) -> int:
    """Store those that are new; how many. An id that the client has used before is the same event, sent again."""
    named = {event.client_event_id: event for event in reversed([*events]) if event.client_event_id}
    with transaction.atomic():
        new = [event for event in events if not event.client_event_id]
        # The same batch may be on its way twice at this moment: sorted, so that neither waits for the other.
        new += [named[event_id] for event_id in sorted(named.keys() - known(client_token_id, named.keys()))]
        AnalyticsEvent.objects.bulk_create(new, ignore_conflicts=True)
        days = {event.created_at.astimezone(UTC).date() for event in new}
        mark_changed(days)
        mark_if_built(days)
    return len(new)


def known(client_token_id: int, event_ids: Collection[str]) -> set[str | None]:
    events = AnalyticsEvent.objects.filter(client_token_id=client_token_id, client_event_id__in=event_ids)
    return set(events.values_list("client_event_id", flat=True)) if event_ids else set()
