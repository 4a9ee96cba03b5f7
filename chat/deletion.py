"""The deletion of conversations, however large, while turns settle and items are added.

The conversation's row is locked and marked first. Whoever adds messages locks that row too and finds it marked, so none
is added after that, and nobody sees a part of a conversation. Its messages are deleted in batches, each in a short
transaction of its own, and the row with the last of them.
"""

import time

from django.db import connection, transaction
from django.db.models.functions import Now

from analytics.fairness import outside
from chat.conversations import read_within
from chat.exceptions import ConversationNotFound
from chat.models import ClientToken, Conversation, Message
from chat.sql import retry_deadlocks

# Messages deleted in one transaction, and the bytes of them: a few dozen milliseconds, after which others can write.
BATCH = 1000
BATCH_BYTES = 16 * 1024 * 1024
# SQLite gives its one lock to whoever asks first, so others need a moment in which to ask.
PAUSE_SECONDS = 0.01
# Seconds for which a request deletes, before the job has the rest; and the job, before other jobs run.
REQUEST_SECONDS = 2
JOB_SECONDS = 10


def delete(client: ClientToken, conversation_id: str) -> None:
    """Delete a client's conversation: for everybody at once, and what is left of a large one soon after.

    Raises ConversationNotFound where it is not the client's, or is deleted already.
    """
    deadline = time.monotonic() + REQUEST_SECONDS
    if not retry_deadlocks(lambda: mark(client, conversation_id)):
        finish(conversation_id, deadline)


def purge_deleted() -> int:
    """Finish what requests have begun, for JOB_SECONDS at most. Returns how many conversations are gone."""
    deadline = time.monotonic() + JOB_SECONDS
    begun = Conversation.with_deleted.filter(deleted_at__isnull=False).order_by("deleted_at")
    return sum(
        finish(conversation_id, deadline) for conversation_id in list(begun.values_list("pk", flat=True)[:BATCH])
    )


def mark(client: ClientToken, conversation_id: str) -> bool:
    """Mark a conversation as deleted, and delete its first messages. Returns whether it is gone."""
    with transaction.atomic():
        owned = Conversation.objects.owned_by(client).filter(pk=conversation_id)
        if not owned.update(deleted_at=Now()):
            raise ConversationNotFound
        return delete_batch(conversation_id)


def finish(conversation_id: str, deadline: float) -> bool:
    """Delete what is left of a marked conversation, till the deadline. Returns whether it is gone."""
    is_gone = False
    while not is_gone and time.monotonic() < deadline:
        if not connection.in_atomic_block:
            connection.close()  # back to the pool: others may have it meanwhile
        with outside():
            time.sleep(PAUSE_SECONDS)
        is_gone = retry_deadlocks(lambda: delete_batch(conversation_id))
    return is_gone


def delete_batch(conversation_id: str) -> bool:
    """Delete the next messages of a marked conversation, and its row with the last. Returns whether it is gone."""
    with transaction.atomic():
        marked = Conversation.with_deleted.filter(pk=conversation_id, deleted_at__isnull=False)
        # Another process that is at it has it to itself.
        if not marked.select_for_update(skip_locked=True).values_list("pk"):
            return not marked.exists()
        messages = Message.objects.filter(conversation_id=conversation_id)
        batch, has_more = read_within(messages.order_by("pk")[:BATCH], BATCH_BYTES, columns="id")
        if batch:
            messages.filter(pk__lte=batch[-1].pk).delete()
        if not has_more:
            marked.delete()
        return not has_more
