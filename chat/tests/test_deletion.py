"""A conversation that is deleted while turns settle and items are added: every order ends right."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from chat import background, conversations, deletion
from chat.exceptions import ConversationNotFound
from chat.models import ClientToken, Conversation, IdempotencyKey, Message
from conftest import ApiClient, Server, wait_until

URL = "/v1/conversations"
ITEMS = {"items": [{"role": "user", "content": "Hi"}]}


def fill(alice: ApiClient, count: int) -> str:
    cid = alice.conversation()
    Message.objects.bulk_create(
        Message.from_openai({"role": "user", "content": "x"}, conversation_id=cid, request_id="") for _ in range(count)
    )
    return cid


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Let threads, each with a connection of its own, begin at the same moment."""
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> Any:
        try:
            connection.ensure_connection()
            barrier.wait(30)
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result(60) for future in [pool.submit(run, work) for work in works]]


def everything(alice: ApiClient, cid: str) -> list[Callable[[], tuple[str, int]]]:
    url = f"{URL}/{cid}"
    return [
        lambda: ("turn", alice.say(cid, "Hi", key="k").status_code),
        lambda: ("turn", alice.say(cid, "Hi").status_code),
        lambda: ("add", alice.send(f"{url}/items", ITEMS).status_code),
        lambda: ("add", alice.send(f"{url}/items", ITEMS).status_code),
        lambda: ("update", alice.send(url, {"metadata": {"a": "b"}}).status_code),
        lambda: ("delete", alice.delete(url).status_code),
        lambda: ("delete", alice.delete(url).status_code),
    ]


@pytest.mark.django_db(transaction=True)
def test_all_at_once_end_right(upstream: OpenAIDouble) -> None:
    """Turns, items, metadata and deletions of one conversation: nothing is a 500 or 503, and nothing is left."""
    alice = ApiClient("alice")
    for _ in range(12):
        cid = fill(alice, 50)
        statuses = at_once(*everything(alice, cid))
        assert {status for _, status in statuses} <= {200, 404}, statuses
        assert sorted(status for what, status in statuses if what == "delete") == [200, 404]
        assert (Conversation.with_deleted.count(), Message.objects.count()) == (0, 0)
        # A turn that was paid for has its tokens, and a key gives no answer of a conversation that is gone.
        assert not UsageEvent.objects.pending().exists()
        assert UsageEvent.objects.filter(status="completed").count() == len(upstream.requests)
        IdempotencyKey.objects.all().delete()


def test_a_reply_to_a_conversation_that_is_deleted_meanwhile(server: Server, upstream: OpenAIDouble) -> None:
    """Many turns are under way when it is deleted: each is told, and keeps its tokens without its text."""
    cid = server.conversation()
    go_on = threading.Event()
    upstream.plan(*[Behaviour(gate=go_on)] * 8)
    with ThreadPoolExecutor(8) as pool:
        body = {"conversation_id": cid, "message": "Hi"}
        asks = [pool.submit(server.post, "/v1/chat/completions", body) for _ in range(8)]
        wait_until(lambda: len(upstream.requests) == 8)
        deletion.delete(ClientToken.objects.get(), cid)
        go_on.set()
        statuses = {ask.result(30)[0] for ask in asks}

    assert statuses == {404}
    assert Message.objects.count() == 0
    assert UsageEvent.objects.filter(status="completed", total_tokens__gt=0).count() == 8


class TestLargeConversations:
    @pytest.fixture
    def half_deleted(self, alice: ApiClient, monkeypatch: pytest.MonkeyPatch) -> str:
        """A conversation of which a request could delete only the first messages."""
        monkeypatch.setattr(deletion, "BATCH", 10)
        monkeypatch.setattr(deletion, "REQUEST_SECONDS", 0)
        cid = fill(alice, 35)
        assert alice.delete(f"{URL}/{cid}").json() == {"id": cid, "object": "conversation.deleted", "deleted": True}
        assert Message.objects.filter(conversation_id=cid).count() == 25
        return cid

    def test_it_looks_deleted_at_once(self, alice: ApiClient, half_deleted: str, upstream: OpenAIDouble) -> None:
        url = f"{URL}/{half_deleted}"
        item = f"{url}/items/msg_{Message.objects.order_by('pk')[20].pk}"

        answers = [
            *(alice.get(path) for path in (url, f"{url}/items", item)),
            *(alice.delete(path) for path in (url, item)),
            *(alice.send(path, body) for path, body in ((url, {"metadata": {}}), (f"{url}/items", ITEMS))),
            alice.say(half_deleted, "Hi"),
        ]

        assert {(one.status_code, one.json()["error"]["code"]) for one in answers} == {(404, "conversation_not_found")}
        assert not Conversation.objects.exists()
        assert not upstream.requests

    def test_the_job_deletes_the_rest(self, half_deleted: str) -> None:
        background.run_due()

        assert (Conversation.with_deleted.count(), Message.objects.count()) == (0, 0)

    def test_who_has_found_it_before_adds_nothing(self, half_deleted: str) -> None:
        with pytest.raises(ConversationNotFound):
            conversations.add_items(Conversation(pk=half_deleted), [{"role": "user", "content": "late"}])

        assert Message.objects.count() == 25

    def test_each_transaction_is_short(self, alice: ApiClient) -> None:
        cid = fill(alice, 3 * deletion.BATCH + 1)
        with CaptureQueriesContext(connection) as captured:
            alice.delete(f"{URL}/{cid}")
            deletion.purge_deleted()

        deletes = [query["sql"] for query in captured if query["sql"].startswith('DELETE FROM "messages"')]
        assert len(deletes) >= 4
        assert Message.objects.count() == 0

    def test_a_transaction_deletes_few_bytes(self, alice: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deletion, "REQUEST_SECONDS", 0)
        monkeypatch.setattr(deletion, "BATCH_BYTES", 50_000)
        cid = alice.conversation()
        Message.objects.bulk_create(
            Message.from_openai({"role": "user", "content": "x" * 20_000}, conversation_id=cid, request_id="")
            for _ in range(5)
        )

        alice.delete(f"{URL}/{cid}")

        assert Message.objects.count() == 3

    def test_what_nobody_deleted_stays(self, alice: ApiClient, half_deleted: str) -> None:
        kept = fill(alice, 3)

        deletion.purge_deleted()

        assert [*Conversation.with_deleted.values_list("pk", flat=True)] == [kept]
        assert Message.objects.count() == 3
