"""What requests take of what all share: who is asked for it, what is answered past it, and that all is given back."""

import io
import json
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from typing import Any

import pytest
from django.test import Client, RequestFactory
from pytest_django import Settings

from analytics.fairness import Share
from analytics.processor import processor
from chat.api import sharing
from chat.api.sharing import LARGE, PROBE, STRANGER, owner_of, owner_of_head
from chat.models import ClientToken
from chat.turns.capacity import places
from conftest import ApiClient
from protos.chat_pb2 import Error

SHARES = (sharing.requests, sharing.large, sharing.memory, places)
HI = {"messages": [{"role": "user", "content": "Hi"}]}
COMPLETIONS = "/v1/chat/completions"


class Recorded(io.BytesIO):
    """What a socket received."""

    def makefile(self, _mode: str) -> "Recorded":
        return self


def held() -> list[dict[Any, int]]:
    return [dict(share._held) for share in SHARES]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for share in SHARES:
        monkeypatch.setattr(share, "patience", min(share.patience, 0.01))


@pytest.fixture
def full(hurried: None) -> Iterator[Callable[[Share], None]]:
    """`full(share)` lets others hold all of it until the test ends."""
    taken: list[tuple[Share, int]] = []

    def fill(share: Share) -> None:
        amount = share.capacity() - share._taken
        share.force("others", amount)
        taken.append((share, amount))

    yield fill
    for share, amount in taken:
        share.give_back("others", amount)


REQUESTS: dict[str, Callable[[ApiClient], Any]] = {
    "a turn": lambda client: client.send(COMPLETIONS, HI),
    "a large turn": lambda client: client.send(
        COMPLETIONS, {**HI, "messages": [{**HI["messages"][0], "content": "x" * 40_000}]}
    ),
    "a very large body": lambda client: client.send("/v1/conversations", {"metadata": {"a": "x" * 2 * LARGE}}),
    "a stream": lambda client: b"".join(client.send(COMPLETIONS, {**HI, "stream": True})),
    "a refusal": lambda client: client.send(COMPLETIONS, {}),
    "no JSON": lambda client: client.send(COMPLETIONS, b"{" + b" " * 2 * LARGE),
    "a list": lambda client: client.get("/v1/models"),
    "an unknown route": lambda client: client.get("/nowhere"),
    "a page": lambda client: client.get("/"),
    "a probe": lambda client: client.get("/health"),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", REQUESTS)
def test_all_is_given_back(upstream: object, name: str) -> None:
    before = held()

    REQUESTS[name](ApiClient("alice"))

    assert held() == before


@pytest.fixture
def overloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The turn of each request comes too late."""
    monkeypatch.setattr(processor, "take_turn", lambda owner: False)


def test_past_what_can_be_held_a_client_is_told_so(alice: ApiClient, full: Callable[..., None]) -> None:
    full(sharing.requests)

    answer = alice.send(COMPLETIONS, HI)

    assert (answer.status_code, answer["Retry-After"]) == (503, "1")


def test_a_request_whose_turn_comes_too_late_is_told_so(alice: ApiClient, overloaded: None) -> None:
    answer = alice.send(COMPLETIONS, HI)

    assert (answer.status_code, answer["Retry-After"]) == (503, "1")
    assert answer.json()["error"]["code"] == "unavailable"


def head(*lines: str) -> bytes:
    return "\r\n".join(["POST /v1/chat/completions HTTP/1.1", "Host: x", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("sent", "owner"),
    [
        (head("Authorization: Bearer llm_known"), "alice"),
        (head("authorization:bearer  llm_known"), "alice"),
        (head("AUTHORIZATION: BEARER llm_known", "api-key: llm_other"), "alice"),
        (head("Api-Key: llm_known"), "alice"),
        (head("X-Api-Key:llm_known"), "alice"),
        (head("Cookie: theme=dark; sessionid=of-staff; x=y"), "staff"),
        (head("Authorization: Bearer llm_other"), STRANGER),
        (head("X-Note: Authorization: Bearer llm_known"), STRANGER),
        (head("Authorization: Basic llm_known"), STRANGER),
        (head("Authorization: Bearer \u00e9"), STRANGER),
        (head(), STRANGER),
        (b"POST /v1/chat/comple", STRANGER),
        (b"\x16\x03\x01", STRANGER),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", PROBE),
        (b"GET /healthy HTTP/1.1\r\nHost: x\r\n\r\n", STRANGER),
    ],
)
def test_whose_turn_it_is_to_be_parsed_stands_in_the_head(
    monkeypatch: pytest.MonkeyPatch, sent: bytes, owner: str
) -> None:
    credentials = sharing.Credentials()
    credentials.accept(ClientToken.digest_of("llm_known"), "alice")
    credentials.accept(ClientToken.digest_of("of-staff"), "staff")
    monkeypatch.setattr(sharing, "credentials", credentials)

    assert owner_of_head(sent) == owner


def test_the_answer_to_a_head_is_whole() -> None:
    """What it wants is not known, so that it is JSON."""
    answer = HTTPResponse(Recorded(sharing.busy_answer()))  # type: ignore[arg-type]
    answer.begin()

    assert (answer.status, answer.headers["Retry-After"], answer.headers["Connection"]) == (503, "1", "close")
    assert json.loads(answer.read())["error"]["code"] == "unavailable"


@pytest.mark.parametrize("asked", [{"accept": "application/x-protobuf"}, {"content-type": "application/x-protobuf"}])
def test_a_protobuf_client_is_told_so_in_protobuf(overloaded: None, asked: dict[str, str]) -> None:
    answer = Client().post(COMPLETIONS, b"", content_type=asked.get("content-type", "application/json"), headers=asked)

    assert answer["Content-Type"] == "application/x-protobuf"
    assert Error.FromString(answer.content).code == "unavailable"


def test_a_browser_may_read_that_it_is_busy(overloaded: None, settings: Settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example.com"]

    answer = Client().get("/v1/models", headers={"origin": "https://app.example.com"})

    assert (answer.status_code, answer["Access-Control-Allow-Origin"]) == (503, "https://app.example.com")


@pytest.mark.parametrize("share", [sharing.memory, sharing.large])
def test_a_large_body_waits_for_its_place(alice: ApiClient, full: Callable[..., None], share: Share) -> None:
    full(share)

    answer = alice.send("/v1/conversations", {"metadata": {"a": "x" * 2 * LARGE}})

    assert (answer.status_code, answer["Retry-After"]) == (503, "1")


def test_small_requests_do_not_wait_for_large_ones(alice: ApiClient, full: Callable[..., None]) -> None:
    full(sharing.large)

    assert alice.send("/v1/conversations", {}).status_code == 201


def large_list(client: ApiClient) -> str:
    conversation_id = client.conversation()
    items = [{"role": "user", "content": "x" * 2 * LARGE}]
    assert client.send(f"/v1/conversations/{conversation_id}/items", {"items": items}).status_code == 200
    return f"/v1/conversations/{conversation_id}/items"


def test_a_large_answer_is_counted_until_it_is_sent(alice: ApiClient, full: Callable[..., None]) -> None:
    url = large_list(alice)
    assert alice.get(url).status_code == 200
    full(sharing.memory)

    assert alice.get(url).status_code == 503
    assert alice.get("/v1/models").status_code == 200


def test_probes_are_nobodys_flood(full: Callable[..., None]) -> None:
    assert owner_of(RequestFactory().get("/health")) == owner_of(RequestFactory().get("/ready"))
    assert owner_of(RequestFactory().get("/health")) != STRANGER


HEADERS: list[dict[str, str]] = [
    {},
    {"authorization": "Bearer nobody"},
    {"authorization": "Basic nobody"},
    {"authorization": "Bearer"},
    {"api-key": "nobody"},
    {"x-api-key": "nobody"},
    {"cookie": "sessionid=nobody"},
]


@pytest.mark.parametrize("headers", HEADERS)
def test_whoever_is_not_known_is_one_stranger_with_all_others(headers: dict[str, str]) -> None:
    assert owner_of(RequestFactory().get("/v1/models", headers=headers)) == STRANGER


@pytest.mark.parametrize("name", ["authorization", "api-key", "x-api-key"])
def test_a_client_is_known_by_its_token_once_it_was_accepted(alice: ApiClient, name: str) -> None:
    value = f"Bearer {alice.token}" if name == "authorization" else alice.token
    request = RequestFactory().get("/v1/models", headers={name: value})
    assert owner_of(request) == STRANGER

    alice.get("/v1/models")
    assert owner_of(request) == alice.token_row.pk

    alice.token_row.is_active = False
    alice.token_row.save()
    alice.get("/v1/models")
    assert owner_of(request) == STRANGER


@pytest.mark.django_db
def test_staff_are_known_by_their_session(admin_client: Client) -> None:
    request = RequestFactory().get("/admin/")
    request.COOKIES = {"sessionid": admin_client.cookies["sessionid"].value}
    assert owner_of(request) == STRANGER

    admin_client.get("/admin/")

    assert str(owner_of(request)).startswith("staff:")


def test_no_more_credentials_are_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "MAX_KNOWN", 2)
    known = sharing.Credentials()
    for digest in ("a", "b"):
        known.accept(digest, digest)
    known.owner_of("a")

    known.accept("c", "c")

    assert [known.owner_of(digest) for digest in "abc"] == ["a", STRANGER, "c"]


def test_a_body_without_an_end_is_a_400(alice: ApiClient) -> None:
    answer = alice.send(COMPLETIONS, json.dumps(HI)[:-1])

    assert answer.status_code == 400


def test_a_body_is_let_go_of_with_its_answer(alice: ApiClient) -> None:
    answer = alice.send("/v1/conversations", {"metadata": {"a": "x" * 2 * LARGE}})

    assert answer.wsgi_request._body == b""
    assert answer.wsgi_request._stream.read() == b""


def test_what_a_large_answer_was_written_from_is_let_go_of(alice: ApiClient) -> None:
    """An answer that nobody reads is held once, and not twice."""
    conversation = alice.conversation()
    items = [{"role": "user", "content": "x" * 2 * LARGE}]
    assert alice.send(f"/v1/conversations/{conversation}/items", {"items": items}).status_code == 200

    page: Any = alice.get(f"/v1/conversations/{conversation}/items")

    assert page.data is None
    assert len(page.json()["data"]) == 1
