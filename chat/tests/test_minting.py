"""How many sessions may be started, and what all anonymous people may spend together."""

import threading
import time
import uuid
from typing import Any

import jwt
import pytest
from django.db import connection

from bench.openai_double import Behaviour, OpenAIDouble
from chat.api.sessions import JWT_TYPE
from chat.models import Budget, ClientToken, IdentityProvider, Person
from chat.tests.test_sessions import App, code_of
from conftest import wait_until


@pytest.fixture
def app(db: None) -> App:
    return App(sessions_per_min=100_000)


def mint(app: App, address: str, install_id: str = "") -> Any:
    body = {"install_id": install_id or str(uuid.uuid4())}
    return app.call("/v1/sessions", body, REMOTE_ADDR=address)


def test_an_address_starts_thirty_an_hour(app: App) -> None:
    statuses = [mint(app, "192.0.2.7").status_code for _ in range(40)]
    assert statuses == [201] * 30 + [429] * 10
    refused = mint(app, "192.0.2.7")
    assert code_of(refused) == (429, "session_limit_exceeded")
    # One of thirty an hour is free again after two minutes.
    assert 100 < int(refused.headers["Retry-After"]) <= 120
    assert mint(app, "192.0.2.8").status_code == 201


def test_a_network_of_ipv6_is_one_address(app: App) -> None:
    statuses = [mint(app, f"2001:db8:0:7::{number:x}").status_code for number in range(1, 200)]
    assert statuses.count(201) == 30
    assert Person.objects.count() == 30
    assert mint(app, "2001:db8:0:8::1").status_code == 201


def test_an_office_signs_in_from_one_address(app: App) -> None:
    """Known people have places of their own, each of them thirty an hour."""
    IdentityProvider.objects.create(
        client_token=app.row, issuer="i", audience="a", algorithm="HS256", shared_secret="s" * 32
    )

    def sign_in(subject: str) -> int:
        now = int(time.time())
        claims = {"iss": "i", "aud": "a", "sub": subject, "iat": now, "exp": now + 60}
        body = {"subject_token": jwt.encode(claims, "s" * 32), "subject_token_type": JWT_TYPE}
        return int(app.call("/v1/sessions", body, REMOTE_ADDR="192.0.2.7").status_code)

    assert {sign_in(f"person-{number}") for number in range(40)} == {201}
    assert [sign_in("ann") for _ in range(32)] == [201] * 30 + [429] * 2


def test_an_install_starts_ten_an_hour(app: App) -> None:
    install_id = str(uuid.uuid4())
    statuses = [mint(app, f"192.0.2.{number}", install_id).status_code for number in range(12)]
    assert statuses == [201] * 10 + [429] * 2


def test_an_app_starts_so_many_a_minute(db: None) -> None:
    app = App(sessions_per_min=5)
    statuses = [mint(app, f"192.0.2.{number}").status_code for number in range(7)]
    assert statuses == [201] * 5 + [429] * 2


def test_what_is_refused_takes_no_place(app: App) -> None:
    """Else one address could use up the minute of the whole app."""
    app.row.sessions_per_min = 40
    app.row.save()
    for _ in range(60):
        mint(app, "192.0.2.7")
    assert mint(app, "192.0.2.8").status_code == 201


def test_wrong_keys_of_an_address_are_limited(app: App) -> None:
    codes = [code_of(app.start(token=f"pk_{number}")) for number in range(25)]
    assert codes == [(401, "invalid_token")] * 20 + [(429, "session_limit_exceeded")] * 5
    # The right one too: what tries so often is told nothing.
    assert code_of(app.start()) == (429, "session_limit_exceeded")


def test_made_up_refresh_tokens_are_limited(app: App) -> None:
    codes = [code_of(app.refresh(f"rt_{number:024}.0.{'0' * 64}")) for number in range(22)]
    assert codes == [(401, "invalid_token")] * 20 + [(429, "session_limit_exceeded")] * 2


def test_a_session_is_not_refreshed_without_end(app: App) -> None:
    token, statuses = app.person().granted["refresh_token"], []
    for _ in range(22):
        answer = app.refresh(token)
        statuses.append(answer.status_code)
        token = answer.json().get("refresh_token", token)
    assert statuses == [200] * 20 + [429] * 2


def test_refusals_are_told_by_reason(app: App) -> None:
    from analytics import ledger
    from analytics.models import Refusals

    app.start(origin="https://evil.example.org")
    app.get("/v1/models", headers={"authorization": f"Bearer {app.key}"})
    app.person().post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})
    ledger.flush_refusals()
    found = dict(Refusals.objects.filter(client_token_id=app.row.pk).values_list("code", "count"))
    assert found == {"origin_not_allowed": 1, "publishable_key": 1, "not_allowed": 1}


# --- the pool ---

NANOS = 1_000_000_000


def test_anonymous_people_share_a_pool(app: App, upstream: OpenAIDouble) -> None:
    """However many are made, they spend no more than that together."""
    ClientToken.objects.update(anonymous_day_tokens=3000, most_output_tokens=500)
    spent, refused = 0, 0
    for _ in range(12):
        answer = app.person().say("Hello")
        if answer.status_code == 200:
            spent += answer.json()["usage"]["total_tokens"]
        else:
            assert code_of(answer) == (429, "budget_exceeded")
            assert "has not signed in" in answer.json()["error"]["message"]
            refused += 1
    pool = Budget.objects.get(user_id="people:anonymous", unit="tokens")
    assert pool.used == spent <= 3000
    assert refused or spent < 3000


@pytest.mark.django_db(transaction=True)
def test_parallel_people_never_pass_the_pool(upstream: OpenAIDouble) -> None:
    app = App(sessions_per_min=100_000, anonymous_day_tokens=2000, most_output_tokens=400)
    people = [app.person() for _ in range(8)]
    conversations = [someone.conversation() for someone in people]
    answers: list[int] = []
    gate = threading.Event()
    upstream.default = Behaviour(text="Hello", gate=gate)

    def talk(index: int) -> None:
        try:
            answers.append(people[index].say("Hello", conversations[index]).status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=talk, args=[index]) for index in range(8)]
    for thread in threads:
        thread.start()
    # All have asked: some run, and what they may take is reserved.
    wait_until(lambda: len(answers) + len(upstream.requests) == 8)
    gate.set()
    for thread in threads:
        thread.join()
    assert set(answers) <= {200, 429}
    assert 429 in answers
    assert Budget.objects.get(user_id="people:anonymous", unit="tokens").used <= 2000


def test_places_are_named_without_addresses(app: App) -> None:
    from chat.models import RateLimit

    mint(app, "192.0.2.7", "0e984725-c51c-4bf4-9960-e1c80e27aba0")
    keys = " ".join(RateLimit.objects.values_list("key", flat=True))
    assert "mint:address:" in keys
    assert "192.0.2.7" not in keys
    assert "0e984725" not in keys
    assert all(len(key) <= 100 for key in keys.split())
