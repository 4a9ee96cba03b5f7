"""The login refuses tries before it looks at their passwords, and keeps nobody out for long."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.hashers import MD5PasswordHasher
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from chat import sql
from chat.limits import buckets
from chat.models import RateLimit
from chat.retention import purge_expired
from llmapi.log_formats import LogfmtFormatter
from llmapi.login import devices, forms, hashing, tries
from llmapi.login.passwords import MAX_PASSWORD

PASSWORD = "a-very-long-password"
WRONG = "another-password"
URL = "/admin/login/"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """`clock(seconds)` moves the clock by which buckets get empty. It stands still otherwise."""
    now = 1_780_000_000.0

    def move(seconds: float) -> None:
        nonlocal now
        now += seconds
        monkeypatch.setitem(sql.DIALECT[connection.vendor], "epoch", f"CAST({now} AS double precision)")
        sql.written.cache_clear()

    move(0)
    yield move
    sql.written.cache_clear()


@pytest.fixture(autouse=True)
def lingered(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long answers were held back."""
    seconds: list[float] = []
    monkeypatch.setattr(forms, "time", SimpleNamespace(sleep=seconds.append))
    return seconds


@pytest.fixture
def boss(db: None) -> User:
    return User.objects.create_superuser("boss", password=PASSWORD)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was hashed: each is some 0.3 seconds of a core in production."""
    passwords: list[str] = []
    encode = MD5PasswordHasher.encode

    def noted(self: MD5PasswordHasher, password: str, salt: str) -> str:
        passwords.append(password)
        return encode(self, password, salt)

    monkeypatch.setattr(MD5PasswordHasher, "encode", noted)
    return passwords


def attempt(
    password: str = WRONG, name: str = "boss", address: str = "192.0.2.1", client: Client | None = None, **meta: Any
) -> Any:
    form = {"username": name, "password": password, "next": "/admin/"}
    return (client or Client()).post(URL, form, REMOTE_ADDR=address, **meta)


def test_the_right_password_logs_in(boss: User) -> None:
    client = Client()

    answer = attempt(PASSWORD, client=client)

    assert (answer.status_code, answer["Location"]) == (302, "/admin/")
    assert client.get("/admin/").status_code == 200


def test_wrong_tries_are_refused_before_they_are_hashed(boss: User, hashed: list[str]) -> None:
    answers = [attempt() for _ in range(tries.OF_NAME_AND_ADDRESS + 15)]
    hashed.clear()

    assert [answer.status_code for answer in answers].count(200) == tries.OF_NAME_AND_ADDRESS
    assert {answer.status_code for answer in answers[tries.OF_NAME_AND_ADDRESS :]} == {429}
    last = attempt(PASSWORD)
    assert (last.status_code, hashed) == (429, [])
    assert 1 <= int(last["Retry-After"]) <= 60
    assert f"try again in {last['Retry-After']} seconds" in last.content.decode()


@pytest.mark.parametrize("name", ["boss", "nobody", "BOSS", "ｂｏｓｓ"])
def test_a_refusal_tells_nothing_of_the_user(hashed: list[str], boss: User, name: str) -> None:
    answers = [attempt(name=name) for _ in range(tries.OF_NAME_AND_ADDRESS + 1)]

    assert [answer.status_code for answer in answers] == [200] * tries.OF_NAME_AND_ADDRESS + [429]
    # The first is that of the user.
    assert hashed[1:] == [WRONG] * tries.OF_NAME_AND_ADDRESS


def test_the_tries_of_an_address_are_limited_whatever_the_name(boss: User) -> None:
    answers = [attempt(name=f"name-{number}") for number in range(tries.OF_ADDRESS + 5)]

    assert [answer.status_code for answer in answers] == [200] * tries.OF_ADDRESS + [429] * 5


def test_the_tries_of_an_ipv6_network_are_limited(boss: User) -> None:
    answers = [attempt(name=f"n-{number}", address=f"2001:db8:1:2::{number}") for number in range(1, 30)]

    assert [answer.status_code for answer in answers].count(200) == tries.OF_ADDRESS
    assert attempt(address="2001:db8:1:3::1").status_code == 200


def test_the_tries_of_a_name_are_limited_from_all_addresses(boss: User) -> None:
    answers = [attempt(address=f"192.0.2.{number}") for number in range(tries.OF_NAME + 10)]

    assert [answer.status_code for answer in answers].count(200) == tries.OF_NAME


def test_a_browser_that_was_logged_in_is_not_kept_out_by_strangers(boss: User) -> None:
    client = Client()
    assert attempt(PASSWORD, client=client).status_code == 302
    client.cookies.pop("sessionid")
    for number in range(tries.OF_NAME):
        attempt(address=f"192.0.2.{number}")
        attempt()
    assert attempt(PASSWORD).status_code == 429

    assert attempt(PASSWORD, client=client).status_code == 302


def test_a_browser_that_was_logged_in_has_limited_tries_too(boss: User, hashed: list[str]) -> None:
    client = Client()
    attempt(PASSWORD, client=client)
    hashed.clear()

    answers = [attempt(client=client, address=f"192.0.2.{number}") for number in range(30)]

    assert [answer.status_code for answer in answers].count(200) == tries.OF_DEVICE
    assert len(hashed) == tries.OF_DEVICE


@pytest.mark.parametrize("cookie", ["", "x", "x:y:z", "[]:1:2", "a" * 5000])
def test_a_cookie_that_we_have_not_signed_is_worth_nothing(boss: User, cookie: str) -> None:
    client = Client()
    client.cookies[devices.COOKIE] = cookie

    answers = [attempt(client=client) for _ in range(tries.OF_NAME_AND_ADDRESS + 1)]

    assert [answer.status_code for answer in answers][-1] == 429


def test_the_cookie_of_one_user_gives_no_tries_for_another(boss: User) -> None:
    User.objects.create_superuser("other", password=PASSWORD)
    client = Client()
    attempt(PASSWORD, name="other", client=client)

    answers = [attempt(client=client) for _ in range(tries.OF_NAME_AND_ADDRESS + 1)]

    assert answers[-1].status_code == 429


def test_a_minute_later_all_may_try_again(boss: User, clock: Callable[[float], None]) -> None:
    for number in range(tries.OF_NAME + 10):
        attempt(address=f"192.0.2.{number % 20}")
    assert attempt(PASSWORD).status_code == 429

    clock(60)

    assert attempt(PASSWORD).status_code == 302


def test_success_costs_no_try(boss: User) -> None:
    answers = [attempt(PASSWORD) for _ in range(3 * tries.OF_ADDRESS)]

    assert {answer.status_code for answer in answers} == {302}


def test_wrong_tries_count_between_successes(boss: User) -> None:
    answers = []
    for _ in range(tries.OF_NAME_AND_ADDRESS + 1):
        attempt(PASSWORD)
        answers.append(attempt().status_code)

    assert answers[-1] == 429


def test_an_account_that_is_no_staff_tries_like_a_stranger(db: None) -> None:
    User.objects.create_user("guest", password=PASSWORD)

    answers = [attempt(PASSWORD, name="guest") for _ in range(tries.OF_NAME_AND_ADDRESS + 1)]

    assert [answer.status_code for answer in answers] == [200] * tries.OF_NAME_AND_ADDRESS + [429]


def test_the_tables_hold_little_of_strangers(boss: User) -> None:
    """A refused try leaves no row: so rows are bounded by the tries that are hashed, and they are deleted at rest."""
    for number in range(40):
        attempt(name=f"{number}" * 50)
    admitted = tries.OF_ADDRESS

    keys = list(RateLimit.objects.values_list("key", flat=True))
    assert len(keys) == 1 + 2 * admitted
    assert max(map(len, keys)) <= 60
    assert not any("boss" in key or "192.0.2" in key for key in keys)
    assert Session.objects.count() == 0
    purge_expired(datetime.fromtimestamp(1_780_000_061, UTC))
    assert not RateLimit.objects.exists()


def test_a_refused_try_only_reads(boss: User) -> None:
    for _ in range(tries.OF_NAME_AND_ADDRESS):
        attempt()

    with CaptureQueriesContext(connection) as queries:
        assert attempt().status_code == 429

    assert len(queries) <= 3
    assert all(query["sql"].lstrip().startswith("SELECT") for query in queries.captured_queries)


@pytest.mark.parametrize("field", ["username", "password"])
def test_long_texts_are_neither_hashed_nor_looked_up(boss: User, hashed: list[str], field: str) -> None:
    form = {"username": "boss", "password": PASSWORD, field: "x" * (MAX_PASSWORD + 1)}

    with CaptureQueriesContext(connection) as queries:
        answer = Client().post(URL, form)

    assert (answer.status_code, hashed, len(queries)) == (200, [], 0)
    assert "correct username and password" in answer.content.decode()


def test_a_login_is_refused_while_too_many_passwords_wait(boss: User, hashed: list[str]) -> None:
    for _ in range(hashing.PLACES // 2):
        hashing.places.take(hashing.STRANGERS)
    try:
        answer = attempt(PASSWORD)
    finally:
        for _ in range(hashing.PLACES // 2):
            hashing.places.give_back(hashing.STRANGERS)

    assert (answer.status_code, answer["Retry-After"], hashed) == (503, "2", [])
    # It has taken no place of a bucket.
    assert not RateLimit.objects.exists()


@pytest.mark.django_db
def test_a_try_takes_all_its_places_or_none() -> None:
    full, free = buckets.Bucket("login:a", 1), buckets.Bucket("login:b", 1)
    assert buckets.take([full])

    assert not buckets.take([full, free])

    assert list(RateLimit.objects.values_list("key", flat=True)) == ["login:a"]
    assert buckets.take([free])


@pytest.mark.django_db(transaction=True)
def test_tries_at_once_are_counted_exactly(hashed: list[str]) -> None:
    def one(_: int) -> int:
        try:
            return int(attempt(name="nobody").status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(12) as pool:
        statuses = [*pool.map(one, range(36)), *(one(0) for _ in range(6))]

    assert len(hashed) == statuses.count(200) == tries.OF_NAME_AND_ADDRESS
    assert set(statuses) <= {200, 429, 503}
    assert statuses[-1] == 429


def test_refused_tries_are_answered_late_while_few_are(boss: User, lingered: list[float]) -> None:
    for _ in range(tries.OF_NAME_AND_ADDRESS):
        attempt()
    assert lingered == []

    attempt()
    assert lingered == [forms.LINGER_SECONDS]
    with forms.LINGERING.held("others", forms.LINGERING.capacity()):
        assert attempt().status_code == 429

    assert (len(lingered), forms.LINGERING.taken) == (1, 0)


def test_a_failed_login_is_one_short_line_without_the_name(boss: User, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        attempt(name="my-password-by-mistake")

        attempt(name=boss.username)

    lines = [LogfmtFormatter().format(record) for record in caplog.records]
    failed = [line.partition('message="login failed" ')[2] for line in lines if "login failed" in line]
    assert failed == ["address=192.0.2.1", f"address=192.0.2.1 account={boss.username}"]
    assert not any("mistake" in line for line in lines)


def test_an_open_session_does_not_find_out_the_password(boss: User, hashed: list[str]) -> None:
    client = Client()
    client.force_login(boss)
    form = {"new_password1": "another-long-password", "new_password2": "another-long-password"}
    hashed.clear()

    answers = [client.post("/admin/password_change/", {**form, "old_password": "wrong"}) for _ in range(10)]

    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 5
    assert len(hashed) == 5
    assert client.post("/admin/password_change/", {**form, "old_password": PASSWORD}).status_code == 429
    RateLimit.objects.all().delete()
    assert client.post("/admin/password_change/", {**form, "old_password": PASSWORD}).status_code == 302


def test_no_new_password_is_longer_than_a_login_takes(boss: User) -> None:
    client, password = Client(), "x1!y" * MAX_PASSWORD
    client.force_login(boss)
    form = {"old_password": PASSWORD, "new_password1": password, "new_password2": password}

    answer = client.post("/admin/password_change/", form)

    assert f"at most {MAX_PASSWORD:,} characters" in answer.content.decode()


def test_addresses_come_from_a_trusted_proxy(boss: User, settings: Settings) -> None:
    settings.TRUSTED_PROXIES = 1

    answers = [
        attempt(name=f"n-{number}", address="10.0.0.1", HTTP_X_FORWARDED_FOR=f"1.2.3.{number}, 198.51.100.7")
        for number in range(20)
    ]

    assert [answer.status_code for answer in answers].count(200) == tries.OF_ADDRESS
    assert attempt(address="10.0.0.1", HTTP_X_FORWARDED_FOR="198.51.100.8").status_code == 200


def test_a_session_outlives_a_change_of_the_key_node_after_node(admin_client: Client, settings: Settings) -> None:
    """Where the new key is a fallback of all nodes first. A node with the new key signs the session anew."""
    old, new = settings.SECRET_KEY, "the-next-secret-key-that-is-long-enough-for-check"

    for key, fallbacks in ((old, [new]), (new, [old]), (old, [new]), (new, [old]), (new, [])):
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = key, fallbacks
        assert admin_client.get("/admin/password_change/").status_code == 200

    settings.SECRET_KEY = "of-somebody-who-has-named-no-fallback-0123456789"
    assert admin_client.get("/admin/password_change/").status_code == 302
