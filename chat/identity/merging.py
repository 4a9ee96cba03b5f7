"""What becomes of an anonymous person who signs in: all that was theirs is the known person's."""

from django.db.models import F, Value
from django.db.models.functions import Concat, Now, Substr

from analytics import ledger
from chat.models import Budget, ClientSession, Conversation, IdempotencyKey, Person


def merge(anonymous_id: str, known: Person) -> None:
    """Give a person's conversations, keys, sessions and what was used of this period to a known one.

    It runs inside the transaction of the sign-in, and does nothing a second time. A known person is never merged.
    What turns have reserved that run meanwhile counts as used: an amount may be counted too high, and none is forgiven.
    """
    anonymous = Person.objects.select_for_update().filter(
        pk=anonymous_id, client_token=known.client_token_id, subject="", merged_into=None, is_blocked=False
    )
    if anonymous_id == known.pk or not anonymous.update(merged_into=known.pk):
        return
    Conversation.with_deleted.filter(client_token=known.client_token_id, user_id=anonymous_id).update(user_id=known.pk)
    ClientSession.objects.filter(person=anonymous_id).update(person=known.pk)
    # A request that was sent before and is sent again gets the same answer.
    own = f"{anonymous_id}:"
    keys = IdempotencyKey.objects.filter(
        client_token=known.client_token_id, idempotency_key__gte=own, idempotency_key__lt=f"{anonymous_id};"
    )
    keys.update(idempotency_key=Concat(Value(f"{known.pk}:"), Substr("idempotency_key", len(own) + 1)))
    add_budgets(anonymous_id, known)
    ledger.merge_users(known.client_token_id, anonymous_id, known.pk)


def add_budgets(anonymous_id: str, known: Person) -> None:
    """Add up what both have used of each day and month that is not over. Over a limit the next turn is refused."""
    spent = Budget.objects.filter(client_token=known.client_token_id, user_id=anonymous_id, resets_at__gt=Now())
    for row in spent.order_by("pk"):
        key = row.key.removesuffix(anonymous_id) + known.pk
        added = Budget.objects.filter(pk=key).update(used=F("used") + row.used)
        if not added:
            Budget.objects.create(
                key=key,
                client_token_id=row.client_token_id,
                user_id=known.pk,
                unit=row.unit,
                period=row.period,
                used=row.used,
                most=row.most,
                resets_at=row.resets_at,
            )
