"""What of the ledger becomes another user's, when an anonymous person signs in."""

from django.db import transaction

from analytics.ledger.invalidation import database_now
from analytics.models import AnalyticsEvent, MergedUser, Milestone, UsageEvent
from analytics.query import midnight


def merge_users(client_token_id: int, user_id: str, into: str) -> None:
    """Count a user as another from today on (UTC): one active user, who is there since the first of both came.

    Rows of earlier days stay as they are, and with them the figures of these days.
    """
    with transaction.atomic():
        MergedUser.objects.get_or_create(user_id=user_id, defaults={"merged_into": into})
        today = {
            "client_token_id": client_token_id,
            "user_id": user_id,
            "created_at__gte": midnight(database_now().date()),
        }
        UsageEvent.objects.filter(**today).update(user_id=into)
        AnalyticsEvent.objects.filter(**today).update(user_id=into)
        for came in Milestone.objects.filter(pk=user_id):
            first = Milestone(pk=into, first_day=came.first_day)
            Milestone.objects.bulk_create([first], ignore_conflicts=True)
            Milestone.objects.filter(pk=into, first_day__gt=came.first_day).update(first_day=came.first_day)
