"""/v1/conversations and their items."""

from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries, Settings

from analytics.models import UsageEvent
from bench.openai_double import OpenAIDouble
from chat.models import Conversation, Message
from conftest import ApiClient

URL = "/v1/conversations"


def item(text: str, role: str = "user") -> dict[str, Any]:
    return {"type": "message", "role": role, "content": text}


def ids(page: Any) -> list[str]:
    return [entry["id"] for entry in page.json()["data"]]


def test_it_works(alice: ApiClient) -> None:
    created = alice.send(URL, {"metadata": {"a": "1"}, "items": [item("Hi"), item("Hello", "assistant")]}).json()
    url = f"{URL}/{created['id']}"

    assert alice.get(url).json() == created
    assert alice.send(url, {"metadata": {"b": "2"}}).json() == {**created, "metadata": {"b": "2"}}
    page = alice.get(f"{url}/items", {"order": "asc"}).json()
    assert [(entry["role"], entry["content"][0]) for entry in page["data"]] == [
        ("user", {"type": "input_text", "text": "Hi"}),
        ("assistant", {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}),
    ]
    assert alice.delete(url).json() == {"id": created["id"], "object": "conversation.deleted", "deleted": True}
    assert alice.get(url).status_code == 404
    assert Message.objects.count() == 0


def test_items_are_paged_by_cursor_in_both_orders(alice: ApiClient) -> None:
    cid = alice.conversation()
    url = f"{URL}/{cid}/items"
    for start in (0, 20):
        alice.send(url, {"items": [item(str(n)) for n in range(start, start + 20)]})

    for order in ("asc", "desc"):
        seen: list[str] = []
        page = alice.get(url, {"order": order, "limit": 15})
        while True:
            seen += ids(page)
            if not page.json()["has_more"]:
                break
            page = alice.get(url, {"order": order, "limit": 15, "after": page.json()["last_id"]})
        texts = [Message.objects.get(pk=seen_id.removeprefix("msg_")).content for seen_id in seen]
        expected = [str(n) for n in range(40)]
        assert texts == (expected if order == "asc" else expected[::-1])
    assert len(ids(alice.get(url))) == 20


def test_one_item(alice: ApiClient) -> None:
    cid = alice.conversation()
    url = f"{URL}/{cid}/items"
    (made,) = alice.send(url, {"items": [item("Hi")]}).json()["data"]

    assert alice.get(f"{url}/{made['id']}").json() == made
    assert alice.delete(f"{url}/{made['id']}").json()["id"] == cid
    assert alice.get(f"{url}/{made['id']}").json()["error"]["code"] == "item_not_found"
    assert alice.delete(f"{url}/{made['id']}").status_code == 404


def test_items_reach_the_model_and_turns_are_items(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    picture = {"type": "input_image", "image_url": "https://example.com/cat.png", "detail": "low"}
    asked = {"role": "user", "content": [{"type": "input_text", "text": "What is it?"}, picture]}
    alice.send(f"{URL}/{cid}/items", {"items": [item("Be brief.", "system"), asked, item("A cat.", "assistant")]})

    alice.say(cid, "Thanks")

    assert upstream.requests[0]["body"]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": "https://example.com/cat.png", "detail": "low"}},
            ],
        },
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "Thanks"},
    ]
    newest = alice.get(f"{URL}/{cid}/items", {"limit": 2}).json()["data"]
    assert [entry["content"][0]["text"] for entry in newest] == ["echo: Thanks", "Thanks"]
    shown = alice.get(f"{URL}/{cid}/items", {"order": "asc"}).json()["data"][1]["content"]
    assert shown == [{"type": "input_text", "text": "What is it?"}, {**picture, "file_id": None}]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", ""),
        ("post", ""),
        ("delete", ""),
        ("get", "/items"),
        ("post", "/items"),
        ("get", "/items/{item}"),
        ("delete", "/items/{item}"),
    ],
)
def test_bob_sees_none_of_it(alice: ApiClient, bob: ApiClient, method: str, path: str) -> None:
    cid = alice.send(URL, {"items": [item("Hi")]}).json()["id"]
    made = f"msg_{Message.objects.get().pk}"
    url = f"{URL}/{cid}{path.format(item=made)}"

    answer = bob.send(url, {"metadata": {}}) if method == "post" else getattr(bob, method)(url)

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "conversation_not_found")
    assert (Conversation.objects.count(), Message.objects.count()) == (1, 1)
    own = bob.conversation()
    assert bob.get(f"{URL}/{own}/items/{made}").json()["error"]["code"] == "item_not_found"


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 101}, {"order": "up"}, {"after": "x"}, {"after": "msg_"}])
def test_bad_queries(alice: ApiClient, query: dict[str, Any]) -> None:
    answer = alice.get(f"{URL}/{alice.conversation()}/items", query)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(query)))


@pytest.mark.parametrize(
    "items",
    [None, [], [item("x")] * 21, [{"role": "user"}], [{"role": "tool", "content": "x"}], [{"type": "file"}], "x"],
)
def test_bad_items(alice: ApiClient, items: Any) -> None:
    answer = alice.send(f"{URL}/{alice.conversation()}/items", {"items": items})

    assert answer.status_code == 400
    assert Message.objects.count() == 0


def test_the_cost_of_a_deleted_conversation_stays(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    alice.say(cid, "Hi")

    alice.delete(f"{URL}/{cid}")

    assert UsageEvent.objects.get().conversation_id == cid


def test_queries(alice: ApiClient, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    cid = alice.conversation()
    alice.send(f"{URL}/{cid}/items", {"items": [item(str(n)) for n in range(20)]})
    with django_assert_num_queries(4):  # authenticate, throttle, conversation, page
        alice.get(f"{URL}/{cid}/items")
    with django_assert_num_queries(3):
        alice.get(f"{URL}/{cid}")


def test_a_model(alice: ApiClient) -> None:
    assert alice.get("/v1/models/gpt-4o").json()["id"] == "gpt-4o"
    assert alice.get("/v1/models/gpt-9").json()["error"]["code"] == "model_not_found"


def test_a_model_that_answers_to_every_name(alice: ApiClient, settings: Settings) -> None:
    settings.MODEL_ALIASES = {"*": "gpt-4o"}

    assert alice.get("/v1/models/gpt-9").json()["id"] == "gpt-9"
    assert "*" not in [model["id"] for model in alice.get("/v1/models").json()["data"]]
