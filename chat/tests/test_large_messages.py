"""What is large costs its own turn alone: histories, pages and stored answers are read up to a number of bytes."""

import random
from itertools import accumulate
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from analytics.ledger import Subject
from bench.openai_double import OpenAIDouble
from chat import conversations
from chat.models import ClientToken, Conversation, Message
from chat.sql import DjangoSession, Found, Step, clock, dumped
from chat.turns import cuts, opening, store
from chat.turns.idempotency import Idempotency
from chat.turns.lanes import Alone
from chat.turns.opening import Before
from chat.turns.request import TurnRequest
from conftest import ApiClient

MB = 1024 * 1024


class Shared:
    """A session of a lane, for the tests' transaction."""

    def run(self, *steps: Step, is_last: bool = False) -> list[Found]:
        return DjangoSession().run(*steps)


def fill(alice: ApiClient, *sizes: int, as_parts: bool = False) -> str:
    """Store messages of so many bytes, in turns of two."""
    cid = alice.conversation()
    Message.objects.bulk_create(
        Message.from_openai(
            {
                "role": ("user", "assistant")[number % 2],
                "content": [{"type": "image_url", "image_url": {"url": "x" * size}}] if as_parts else "x" * size,
            },
            conversation_id=cid,
            request_id=f"r_{number // 2}",
        )
        for number, size in enumerate(sizes)
    )
    return cid


def look(alice: ApiClient, cid: str, session: Any = None) -> Any:
    client = ClientToken.objects.get()
    request = TurnRequest(client, Subject("r_new", client.pk, "u", conversation_id=cid), [])
    (before,) = opening.look(session or DjangoSession(), [request])
    return before


def bytes_of(before: Before) -> int:
    return sum(row.bytes for row in before.messages)


@pytest.mark.parametrize("as_parts", [False, True])
def test_a_history_is_read_up_to_a_number_of_bytes(alice: ApiClient, as_parts: bool) -> None:
    """Text that PostgreSQL stores as a hundredth of it counts in full."""
    cid = fill(alice, *[1_900_000] * 20, as_parts=as_parts)

    before = look(alice, cid)

    assert 4 * 1_900_000 <= bytes_of(before) <= cuts.MAX_BYTES
    assert [row.content is None for row in before.messages] == [True, False, False, False, False]
    assert before.messages[-1].pk == Message.objects.order_by("pk").last().pk  # type: ignore[union-attr]


def test_the_last_exchange_is_read_however_large(alice: ApiClient) -> None:
    before = look(alice, fill(alice, 100, 100, 9 * MB, 100))

    assert [len(row.content or "") for row in before.messages] == [0, 9 * MB, 100]


@pytest.mark.parametrize("seed", range(5))
def test_as_many_messages_are_read_as_fit(alice: ApiClient, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(opening, "MAX_BYTES", 200_000)
    dice = random.Random(seed)  # noqa: S311
    sizes = [dice.choice([0, 10, 10_000, 16_384, 16_385, 50_000, 199_999, 200_001]) for _ in range(30)]

    before = look(alice, fill(alice, *sizes))

    totals = list(accumulate(reversed(sizes)))
    fitting = max(sum(total <= 200_000 for total in totals), cuts.LAST_EXCHANGE)
    read = [len(row.content) for row in before.messages if row.content is not None]
    assert read == (sizes[-fitting:] if max(sizes) > 16_384 else sizes)
    assert len(before.messages) == min(fitting + 1, 30)


def test_messages_that_are_not_large_are_few_bytes(alice: ApiClient) -> None:
    assert cuts.MAX_MESSAGES * 16_384 < cuts.MAX_BYTES
    before = look(alice, fill(alice, *[16_384] * 410))

    assert len(before.messages) == cuts.MAX_MESSAGES + 1
    assert bytes_of(before) < cuts.MAX_BYTES


def test_a_large_message_among_many_small_ones_leaves_their_number(alice: ApiClient) -> None:
    before = look(alice, fill(alice, *[10] * 300, 20_000, *[10] * 200))

    assert len(before.messages) == cuts.MAX_MESSAGES + 1


def test_a_turn_beyond_many_bytes_is_cut_for_good(alice: ApiClient, upstream: OpenAIDouble, settings: Settings) -> None:
    settings.HISTORY_TOKENS = 0
    settings.OPENAI_CONTEXT_TOKENS = 50_000_000
    cid = alice.send(
        "/v1/conversations",
        {"items": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]},
    ).json()["id"]
    Message.objects.bulk_create(
        Message.from_openai({"role": role, "content": "x" * 1_900_000}, conversation_id=cid, request_id=f"r_{number}")
        for number in range(4)
        for role in ("user", "assistant")
    )

    answers = [alice.say(cid, f"one {number}", model="smollm2-135m").json() for number in range(2)]

    assert [answer["history_truncated"] for answer in answers] == [True, True]
    sent = [request["body"]["messages"] for request in upstream.requests]
    assert [messages[0]["content"] for messages in sent] == ["Be brief."] * 2
    # The second begins with the same messages as the first.
    assert sent[1][: len(sent[0])] == sent[0]
    assert sum(len(message["content"]) for message in sent[0]) <= cuts.MAX_BYTES // 2
    assert Conversation.objects.get().history_from is not None


def test_a_conversation_that_is_just_one_large_message_is_whole(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = fill(alice, 9 * MB)

    before = look(alice, cid)

    assert [row.content is None for row in before.messages] == [False]


def test_in_a_lane_only_the_large_one_is_told_to_read_alone(alice: ApiClient) -> None:
    client = ClientToken.objects.get()
    large, small, medium = fill(alice, MB, MB), fill(alice, 10, 10), fill(alice, 100_000, 10)
    requests = [
        TurnRequest(client, Subject(f"r_{number}", client.pk, "u", conversation_id=cid), [])
        for number, cid in enumerate([large, small, medium])
    ]

    found = opening.look(Shared(), requests)

    assert [type(one) for one in found] == [Alone, Before, Before]
    assert [len(one.messages) for one in found[1:] if isinstance(one, Before)] == [2, 2]


def test_in_a_lane_a_large_answer_is_not_read(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    alice.say(cid, "Hi", key="k")
    client = ClientToken.objects.get()
    client.idempotency_keys.update(response_json='{"id": "r_1", "x": "%s"}' % ("x" * 2 * MB))
    held = client.idempotency_keys.get()
    request = TurnRequest(client, Subject("r_2", client.pk, "u"), [], idempotency=Idempotency(client, "k", ""))

    (shared,), (alone,) = opening.look(Shared(), [request]), opening.look(DjangoSession(), [request])

    assert isinstance(shared, Alone)
    assert isinstance(alone, Before)
    assert alone.key
    assert alone.key.response_json == held.response_json


def test_what_is_looked_up_beside_the_newest_is_bounded(alice: ApiClient) -> None:
    cid = fill(alice, *[3 * MB] * 5)

    read, has_more = conversations.read_within(Message.objects.filter(conversation_id=cid).order_by("pk")[:4], 8 * MB)

    assert (len(read), has_more) == (2, True)


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_page_of_items_is_bounded_and_leads_on(alice: ApiClient, order: str) -> None:
    sizes = [1_900_000, 10, 5 * MB, 1_900_000, 1_900_000, 1_900_000, 20]
    cid = fill(alice, *sizes)
    url, pages = f"/v1/conversations/{cid}/items", []
    after: dict[str, str] = {}

    while True:
        answer = alice.get(url, {"limit": "100", "order": order, **after})
        page = answer.json()
        pages.append([len(entry["content"][0]["text"]) for entry in page["data"]])
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}

    seen = [size for page in pages for size in page]
    assert seen == (sizes if order == "asc" else sizes[::-1])
    assert all(len(page) == 1 or sum(page) <= conversations.MAX_PAGE_BYTES for page in pages)
    assert 4 <= len(pages) <= 5


def test_large_messages_are_found_by_their_index(alice: ApiClient) -> None:
    """Its condition, in the migration, is literally the statement's."""
    statement = store.READ_HISTORIES
    explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
    with connection.cursor() as cursor:
        cursor.execute(
            f"{explain} {statement.sql(connection.vendor, clock())}", [dumped([dict.fromkeys(statement.columns)])]
        )
        assert "message_large" in "\n".join(str(row[-1]) for row in cursor.fetchall())
