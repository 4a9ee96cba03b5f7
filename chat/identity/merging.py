"""What becomes of an anonymous person who signs in: all that was theirs is the known person's."""

from django.db.models import Exists, F, OuterRef, Value
from django.db.models.functions import Concat, Now, Substr

from analytics import ledger
from chat.models import Budget, ClientSession, Conversation, IdempotencyKey, Person


def merge(anonymous_id: str, known: Person) -> None:
    """Give a person's keys, conversations and what was used of this period to a known one, and end the sessions.

    It runs inside the transaction of the sign-in, and does nothing a second time. A known person is never merged.
    What turns have reserved that run meanwhile counts as used: an amount may be counted too high, and none is forgiven.

    The sessions end, because whoever had the device before may have copied their tokens: they would be the known
    person's (OWASP, "Session Management Cheat Sheet", renewal after a change of privilege).
    """
    anonymous = Person.objects.select_for_update().filter(
        pk=anonymous_id, client_token=known.client_token_id, subject="", merged_into=None, is_blocked=False
    )
    if anonymous_id == known.pk or not anonymous.update(merged_into=known.pk):
        return
    ClientSession.objects.filter(person=anonymous_id, revoked_at=None).update(revoked_at=Now())
    # In the order in which a turn that settles locks rows.
    give_keys(anonymous_id, known)
    add_budgets(anonymous_id, known)
    ledger.merge_users(known.client_token_id, anonymous_id, known.pk)
    Conversation.with_deleted.filter(client_token=known.client_token_id, user_id=anonymous_id).update(user_id=known.pk)


def give_keys(anonymous_id: str, known: Person) -> None:
    """Let a request that was sent before and is sent again get the same answer.

    Not under a key that both have used, and not while its turn runs: the turn would find that it has lost its key.
    """
    own = f"{anonymous_id}:"
    theirs = Concat(Value(f"{known.pk}:"), Substr("idempotency_key", len(own) + 1))
    keys = IdempotencyKey.objects.filter(client_token=known.client_token_id)
    mine = keys.filter(
        idempotency_key__gte=anonymous_id, idempotency_key__lt=after(anonymous_id), idempotency_key__startswith=own
    ).exclude(response_json=None)
    taken = keys.filter(idempotency_key=OuterRef("theirs"))
    mine.annotate(theirs=theirs).filter(~Exists(taken)).update(idempotency_key=theirs)


def after(person_id: str) -> str:
    """Return what follows all texts that begin with the id, in the order of any collation: only letters and digits.

    PostgreSQL reads a range of an index, and no beginning where its collation is that of a language.
    """
    last = person_id[-1]
    return person_id[:-1] + ("a" if last == "9" else chr(ord(last) + 1))


def add_budgets(anonymous_id: str, known: Person) -> None:
    """Add up what both have used of each day and month that is not over. Over a limit the next turn is refused."""
    # Whoever writes a client's budgets locks the count of its turns first.
    [*Budget.objects.select_for_update().filter(pk=f"{known.client_token_id}:{Budget.Unit.TURNS}::")]
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
