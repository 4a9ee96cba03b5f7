"""Sessions of people: how they are started, refreshed and revoked, and what they may touch."""

import base64
import json
import time
import uuid
from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.core.management import call_command
from django.db.models.functions import Now
from django.test import Client

from bench.openai_double import OpenAIDouble
from chat.identity import tokens
from chat.identity.origins import published
from chat.models import ClientSession, ClientToken, Conversation, Person, Plan, SigningKey
from conftest import ApiClient

ORIGIN, OTHER = "https://app.example.com", "https://evil.example.org"
COMPLETIONS = "/v1/chat/completions"


class App(Client):
    """A publishable key at one origin, and the people who use it."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(raise_request_exception=False)
        self.row = ClientToken(name="app", is_publishable=True, is_restricted=True, **{"origins": ORIGIN, **fields})
        self.key = self.row.renew()
        self.row.save()
        published.forget()

    def call(self, path: str, body: Any, *, token: str = "", origin: str | None = ORIGIN, **more: Any) -> Any:
        headers = {"authorization": f"Bearer {token or self.key}", **({"origin": origin} if origin else {})}
        return self.post(path, json.dumps(body), content_type="application/json", headers=headers, **more)

    def start(self, **more: Any) -> Any:
        return self.call("/v1/sessions", {"install_id": str(uuid.uuid4())}, **more)

    def person(self, **more: Any) -> "Someone":
        answer = self.start(**more)
        assert answer.status_code == 201, answer.content
        return Someone(self, answer.json())

    def refresh(self, refresh_token: str, **more: Any) -> Any:
        return self.call("/v1/sessions/refresh", {"refresh_token": refresh_token}, **more)


class Someone:
    """A person with an open session."""

    def __init__(self, app: App, granted: dict[str, Any]) -> None:
        self.app, self.granted = app, granted
        self.token: str = granted["access_token"]
        self.id: str = granted["user"]["id"]

    def headers(self, origin: str | None, key: str = "") -> dict[str, str]:
        named = {"authorization": f"Bearer {self.token}", **({"origin": origin} if origin else {})}
        return named | ({"idempotency-key": key} if key else {})

    def get(self, path: str, origin: str | None = ORIGIN) -> Any:
        return self.app.get(path, headers=self.headers(origin))

    def delete(self, path: str, origin: str | None = ORIGIN) -> Any:
        return self.app.delete(path, headers=self.headers(origin))

    def post(self, path: str, body: Any, origin: str | None = ORIGIN, key: str = "") -> Any:
        return self.app.post(path, json.dumps(body), content_type="application/json", headers=self.headers(origin, key))

    def conversation(self) -> str:
        return str(self.post("/v1/conversations", {}).json()["id"])

    def say(self, text: str, conversation_id: str = "", key: str = "", **fields: Any) -> Any:
        body = {"conversation_id": conversation_id or self.conversation(), "message": text, **fields}
        return self.post(COMPLETIONS, body, key=key)


@pytest.fixture
def app(db: None) -> App:
    return App()


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_starts_an_anonymous_person(app: App, upstream: OpenAIDouble) -> None:
    answer = app.start()
    body = answer.json()
    assert answer.status_code == 201
    person = Person.objects.get()
    assert body == {
        "object": "session",
        "id": ClientSession.objects.get().pk,
        "access_token": body["access_token"],
        "token_type": "Bearer",
        "expires_in": 600,
        "refresh_token": body["refresh_token"],
        "user": {"id": person.pk, "is_anonymous": True, "plan": None},
    }
    assert answer.headers["Cache-Control"] == "no-store"
    said = Someone(app, body).say("Hello")
    assert said.status_code == 200, said.content
    assert said.json()["reply"]


def test_stores_no_token(app: App) -> None:
    someone = app.person()
    stored = json.dumps([list(model.objects.values()) for model in (ClientSession, Person, SigningKey)], default=str)
    for token in (someone.token, someone.granted["refresh_token"], app.key):
        assert token not in stored
        assert token.rpartition(".")[2] not in stored


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("path", [COMPLETIONS, "/v1/models", "/v1/usage", "/v1/sessions/current", "/v1/conversations"])
def test_a_publishable_key_can_only_start_sessions(app: App, method: str, path: str) -> None:
    answer = getattr(app, method)(path, headers={"authorization": f"Bearer {app.key}", "origin": ORIGIN})
    assert code_of(answer) == (403, "publishable_key")
    assert "POST /v1/sessions" in answer.json()["error"]["message"]


def test_a_secret_token_starts_no_session(alice: ApiClient) -> None:
    assert code_of(alice.send("/v1/sessions", {"install_id": str(uuid.uuid4())})) == (403, "secret_key")
    assert code_of(alice.get("/v1/sessions/current")) == (403, "not_allowed")


def test_a_session_starts_no_session(app: App) -> None:
    assert code_of(app.start(token=app.person().token))[0] == 401


def test_tells_of_itself_and_ends(app: App) -> None:
    someone = app.person()
    assert someone.get("/v1/sessions/current").json()["user"]["id"] == someone.id
    assert someone.delete("/v1/sessions/current").json()["deleted"] is True
    assert code_of(someone.get("/v1/sessions/current")) == (401, "invalid_token")
    assert code_of(app.refresh(someone.granted["refresh_token"])) == (401, "invalid_token")


# --- what is refused ---


def forged(someone: Someone, key: str | bytes, algorithm: str | None, **changed: Any) -> str:
    claims = jwt.decode(someone.token, options={"verify_signature": False}) | changed
    kid = jwt.get_unverified_header(someone.token)["kid"]
    return jwt.encode(claims, key, algorithm, headers={"kid": kid})


def signed(someone: Someone, **changed: Any) -> str:
    """A token under the right key, as only we can make it."""
    from django.conf import settings

    kid = jwt.get_unverified_header(someone.token)["kid"]
    return forged(someone, tokens.key_of(kid, settings.SECRET_KEY), "HS256", **changed)


def test_takes_what_is_signed_right(app: App) -> None:
    someone = app.person()
    someone.token = signed(someone)
    assert someone.get("/v1/sessions/current").status_code == 200


@pytest.mark.parametrize(
    "make",
    [
        lambda someone: forged(someone, "", "none"),
        lambda someone: forged(someone, b"k" * 32, "HS256"),
        lambda someone: signed(someone, iss="https://evil.example.org"),
        lambda someone: signed(someone, aud="other"),
        lambda someone: signed(someone, sid="s_" + "0" * 24),
        lambda someone: someone.token.rpartition(".")[0] + ".",
        lambda someone: someone.token + "x" * 9000,
        lambda someone: "eyJ" + "." * 5,
        lambda someone: base64.urlsafe_b64encode(b'{"a":' * 1200).decode() + ".e30.AA",
    ],
)
def test_refuses_a_forged_token(app: App, make: Any) -> None:
    someone = app.person()
    someone.token = make(someone)
    assert code_of(someone.get("/v1/sessions/current")) == (401, "invalid_token")


def test_refuses_a_token_that_is_over(app: App) -> None:
    someone = app.person()
    someone.token = signed(someone, exp=int(time.time()) - 1)
    answer = someone.get("/v1/sessions/current")
    assert code_of(answer) == (401, "session_expired")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="llmapi"'


def test_another_key_signs_after_a_rotation(app: App) -> None:
    old = app.person()
    call_command("rotate_session_key")
    new = app.person()
    assert jwt.get_unverified_header(old.token)["kid"] != jwt.get_unverified_header(new.token)["kid"]
    assert old.get("/v1/sessions/current").status_code == 200
    call_command("rotate_session_key", "--at-once")
    assert code_of(old.get("/v1/sessions/current")) == (401, "invalid_token")
    assert code_of(new.get("/v1/sessions/current")) == (401, "invalid_token")
    assert app.refresh(new.granted["refresh_token"]).status_code == 200


def test_sessions_outlive_a_change_of_the_secret_key(app: App, settings: Any) -> None:
    someone = app.person()
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another-" * 8
    assert someone.get("/v1/sessions/current").status_code == 200
    assert app.refresh(someone.granted["refresh_token"]).status_code == 200
    settings.SECRET_KEY_FALLBACKS = []
    assert code_of(someone.get("/v1/sessions/current")) == (401, "invalid_token")


def test_acts_for_its_own_person_alone(app: App, upstream: OpenAIDouble) -> None:
    ann, ben = app.person(), app.person()
    conversation = ann.conversation()
    said = ann.say("Hello", conversation, key="one")
    items = ann.get(f"/v1/conversations/{conversation}/items").json()["data"]
    assert said.status_code == 200
    assert len(items) == 2
    path = f"/v1/conversations/{conversation}"
    refused = [
        ben.get(path),
        ben.post(path, {"metadata": {"a": "b"}}),
        ben.delete(path),
        ben.get(f"{path}/items"),
        ben.post(f"{path}/items", {"items": [{"role": "user", "content": "x"}]}),
        ben.get(f"{path}/items/{items[0]['id']}"),
        ben.delete(f"{path}/items/{items[0]['id']}"),
        ben.say("Hello", conversation),
        ben.post(f"{COMPLETIONS}/{said.json()['id']}/cancel", {}),
        ben.post("/v1/events", {"events": [{"name": "thumbs_up", "request_id": said.json()["id"]}]}),
        ben.post("/v1/events", {"events": [{"name": "opened", "conversation_id": conversation}]}),
    ]
    assert {answer.status_code for answer in refused} == {404}
    assert Conversation.objects.get(pk=conversation).user_id == ann.id


def test_a_key_of_one_person_is_none_of_another(app: App, upstream: OpenAIDouble) -> None:
    ann, ben = app.person(), app.person()
    first, mine = ann.conversation(), ben.conversation()
    said = ann.say("Hello", first, key="same")
    assert ann.say("Hello", first, key="same").headers["Idempotent-Replayed"] == "true"
    other = ben.say("Hello", mine, key="same")
    assert other.status_code == 200
    assert "Idempotent-Replayed" not in other.headers
    assert other.json()["id"] != said.json()["id"]
    long = "k" * 255
    assert ben.say("Hi", mine, key=long).status_code == 200
    assert ben.say("Hi", mine, key=long).headers["Idempotent-Replayed"] == "true"


def test_an_event_of_one_person_is_none_of_another(app: App) -> None:
    for someone in (app.person(), app.person()):
        for stored in (1, 0):
            answer = someone.post("/v1/events", {"events": [{"name": "opened", "id": "e" * 64}]})
            assert answer.json()["stored"] == stored


@pytest.mark.parametrize("body", [{"user": "somebody"}, {"user": "token:1"}])
def test_names_nobody(app: App, body: dict[str, Any]) -> None:
    answer = app.person().say("Hello", **body)
    assert code_of(answer) == (400, "invalid_request")
    assert answer.json()["error"]["param"] == "user"


def test_events_name_nobody(app: App) -> None:
    answer = app.person().post("/v1/events", {"events": [{"name": "opened", "user": "somebody"}]})
    assert code_of(answer) == (400, "invalid_request")


# --- where from ---


@pytest.mark.parametrize(
    "origin", [OTHER, "null", "https://app.example.com.evil.example.org", "http://app.example.com"]
)
def test_is_started_at_a_listed_origin_alone(app: App, origin: str) -> None:
    assert code_of(app.start(origin=origin)) == (403, "origin_not_allowed")
    assert not Person.objects.exists()


def test_a_key_for_browsers_needs_an_origin(app: App) -> None:
    assert code_of(app.start(origin=None)) == (403, "origin_not_allowed")


def test_a_key_without_origins_is_for_programs(db: None) -> None:
    app = App(origins="")
    assert app.start(origin=None).status_code == 201
    assert code_of(app.start(origin=ORIGIN)) == (403, "origin_not_allowed")


def test_a_session_stays_at_its_origin(db: None, upstream: OpenAIDouble) -> None:
    app = App(origins=f"{ORIGIN}\nhttps://two.example.com")
    someone = app.person()
    assert code_of(someone.get("/v1/usage", origin="https://two.example.com")) == (403, "origin_not_allowed")
    assert code_of(someone.get("/v1/usage", origin=OTHER)) == (403, "origin_not_allowed")
    refused = someone.post(COMPLETIONS, {"messages": []}, origin=None)
    assert code_of(refused) == (403, "origin_not_allowed")
    # A page of our own reads without an Origin.
    assert someone.get("/v1/usage", origin=None).status_code == 200
    renewed = app.refresh(someone.granted["refresh_token"], origin="https://two.example.com")
    assert code_of(renewed) == (403, "origin_not_allowed")


@pytest.mark.parametrize(
    ("listed", "sent", "is_allowed"),
    [
        ("chrome-extension://" + "a" * 32, "chrome-extension://" + "a" * 32, True),
        ("chrome-extension://" + "a" * 32, "chrome-extension://" + "b" * 32, False),
        ("moz-extension://", "moz-extension://1c0b9a3e-0000-4000-8000-000000000000", True),
        ("https://app.example.com", "moz-extension://1c0b9a3e-0000-4000-8000-000000000000", False),
    ],
)
def test_extensions(db: None, listed: str, sent: str, is_allowed: bool) -> None:
    assert (App(origins=listed).start(origin=sent).status_code == 201) is is_allowed


def preflight(client: Client, origin: str) -> Any:
    headers = {"origin": origin, "access-control-request-method": "POST"}
    headers["access-control-request-headers"] = "authorization,user-agent,x-stainless-lang"
    return client.options("/v1/sessions", headers=headers)


def test_preflights_are_answered_for_listed_origins_alone(app: App) -> None:
    allowed = preflight(app, ORIGIN)
    assert allowed.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "user-agent" in allowed.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in allowed.headers
    assert "Access-Control-Allow-Origin" not in preflight(app, OTHER).headers
    assert app.start().headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Access-Control-Allow-Origin" not in app.start(origin=OTHER).headers


def test_preflights_ask_the_database_rarely(app: App, django_assert_max_num_queries: Any) -> None:
    preflight(app, ORIGIN)
    with django_assert_max_num_queries(0):
        for number in range(10):
            preflight(app, f"https://{number}.example.com")


# --- refresh ---


def test_a_refresh_rotates_both(app: App) -> None:
    someone = app.person()
    renewed = app.refresh(someone.granted["refresh_token"]).json()
    assert renewed["id"] == someone.granted["id"]
    assert renewed["user"] == someone.granted["user"]
    assert renewed["refresh_token"] != someone.granted["refresh_token"]
    assert Someone(app, renewed).get("/v1/sessions/current").status_code == 200
    assert app.refresh(renewed["refresh_token"]).status_code == 200


def test_two_tabs_and_a_lost_answer_get_the_same_token(app: App) -> None:
    old = app.person().granted["refresh_token"]
    first, second = app.refresh(old).json(), app.refresh(old).json()
    assert first["refresh_token"] == second["refresh_token"]
    assert app.refresh(second["refresh_token"]).status_code == 200


def grow_old(seconds: float) -> None:
    session = ClientSession.objects.get()
    session.refreshed_at -= timedelta(seconds=seconds)
    session.save()


def test_a_token_that_is_used_again_later_revokes_the_session(app: App) -> None:
    old = app.person().granted["refresh_token"]
    renewed = app.refresh(old).json()
    grow_old(11)
    assert code_of(app.refresh(old)) == (401, "invalid_token")
    # Whoever stole it, and whoever it was stolen from.
    assert code_of(app.refresh(renewed["refresh_token"])) == (401, "invalid_token")
    assert code_of(Someone(app, renewed).get("/v1/sessions/current")) == (401, "invalid_token")


def test_a_token_before_the_last_revokes_at_once(app: App) -> None:
    old = app.person().granted["refresh_token"]
    renewed = app.refresh(app.refresh(old).json()["refresh_token"]).json()
    assert code_of(app.refresh(old)) == (401, "invalid_token")
    assert code_of(app.refresh(renewed["refresh_token"])) == (401, "invalid_token")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-1] + ("0" if t[-1] != "0" else "1"),
        lambda t: t.replace(".0.", ".1."),
        lambda t: "rt_x",
        lambda t: "rt_..",
        lambda t: "é",
    ],
)
def test_a_made_up_token_revokes_nothing(app: App, change: Any) -> None:
    someone = app.person()
    assert code_of(app.refresh(change(someone.granted["refresh_token"]))) == (401, "invalid_token")
    assert someone.get("/v1/sessions/current").status_code == 200
    assert app.refresh(someone.granted["refresh_token"]).status_code == 200


def test_a_refresh_needs_the_key_of_its_own_app(app: App) -> None:
    refresh_token = app.person().granted["refresh_token"]
    assert code_of(App().refresh(refresh_token)) == (401, "invalid_token")


def test_a_session_ends_unless_it_is_refreshed(app: App) -> None:
    someone = app.person()
    ClientSession.objects.update(expires_at=Now() - timedelta(seconds=1))
    assert code_of(app.refresh(someone.granted["refresh_token"])) == (401, "invalid_token")
    assert code_of(someone.get("/v1/usage")) == (401, "invalid_token")
    call_command("purge_expired")
    assert not ClientSession.objects.exists()


# --- at once ---


def test_what_is_revoked_ends_with_the_next_request(app: App) -> None:
    someone = app.person()
    Person.objects.update(is_blocked=True)
    assert code_of(someone.get("/v1/usage")) == (403, "person_blocked")
    assert code_of(app.refresh(someone.granted["refresh_token"])) == (403, "person_blocked")
    Person.objects.update(is_blocked=False)
    assert someone.get("/v1/usage").status_code == 200
    ClientToken.objects.update(is_active=False)
    assert code_of(someone.get("/v1/usage"))[0] == 401
    assert code_of(app.start())[0] == 401
    ClientToken.objects.update(is_active=True, sessions_per_min=0)
    assert someone.get("/v1/usage").status_code == 200
    assert code_of(app.start()) == (429, "session_limit_exceeded")


# --- plans ---


def test_a_plan_limits_each_person(app: App, upstream: OpenAIDouble) -> None:
    app.row.anonymous_plan = Plan.objects.create(name="trial", requests_per_min=3, day_tokens=10**6)
    app.row.save()
    ann, ben = app.person(), app.person()
    assert ann.granted["user"]["plan"] == "trial"
    for _ in range(3):
        assert ann.get("/v1/models").status_code == 200
    assert code_of(ann.get("/v1/models")) == (429, "rate_limit_exceeded")
    assert ben.say("Hello").status_code == 200
    limits = {limit["name"]: limit for limit in ben.get("/v1/usage").json()["limits"]}
    assert limits["user_day_tokens"]["most"] == 10**6
    assert limits["user_day_tokens"]["left"] < 10**6
    assert limits["requests_per_min"]["most"] == 3


def test_a_plan_names_models(app: App, settings: Any, upstream: OpenAIDouble) -> None:
    settings.OPENAI_MODELS = ["gpt-4o-mini", "gpt-5.4"]
    settings.OPENAI_MODEL = "gpt-4o-mini"
    app.row.anonymous_plan = Plan.objects.create(name="trial", allowed_models="gpt-5.4")
    app.row.save()
    someone = app.person()
    assert [model["id"] for model in someone.get("/v1/models").json()["data"]] == ["gpt-5.4"]
    assert code_of(someone.say("Hello", model="gpt-4o-mini")) == (403, "not_allowed")
    assert someone.say("Hello").status_code == 200
    assert upstream.requests[-1]["body"]["model"] == "gpt-5.4"


def test_a_plan_bounds_turns_at_once(app: App) -> None:
    from django.utils import timezone

    from chat.limits import budgets

    plan = Plan.objects.create(name="trial", concurrent_turns=2)
    session = ClientSession(person=Person.objects.create(client_token=app.row))
    client = app.row.as_used_by(session, session.person, plan)
    found = budgets.budgets_of(client, client.default_user_id, timezone.now())
    assert [(row.unit, row.user_id, row.most) for row in found] == [
        ("turns", "", None),
        ("turns", session.person.pk, 2),
    ]


# --- cost ---


def test_costs_no_statement_more_than_a_token(app: App, alice: ApiClient, django_assert_num_queries: Any) -> None:
    someone = app.person()
    alice.get("/v1/models")
    someone.get("/v1/models")
    with django_assert_num_queries(2):
        assert alice.get("/v1/models").status_code == 200
    with django_assert_num_queries(2):
        assert someone.get("/v1/models").status_code == 200
