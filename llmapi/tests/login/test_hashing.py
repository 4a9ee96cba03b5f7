"""Passwords are hashed beside the event loop, one at a time, and few of them wait."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher, check_password, make_password
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from pytest_django import Settings

from conftest import wait_until
from llmapi.launch import ROOT
from llmapi.login import hashing

BESIDE = ["llmapi.login.hashing.BesideHasher"]

# The hash reads a pipe that only another greenlet writes to: a hash that stopped the event loop would wait for ever.
GREENLETS_GO_ON = """
from gevent import monkey
monkey.patch_all()
import os
import gevent
from django.contrib.auth.hashers import PBKDF2PasswordHasher, make_password
from django.conf import settings
settings.PASSWORD_HASHERS = ["llmapi.login.hashing.BesideHasher"]
reading, writing = os.pipe()
running, begun = [], []
def encode(self, password, salt, iterations=None):
    running.append(password)
    begun.append(password)
    assert len(running) == 1, "two hashes run at once"
    assert os.read(reading, 1) == b"."
    running.remove(password)
    return "hashed " + password
PBKDF2PasswordHasher.encode = encode
hashes = [gevent.spawn(make_password, password) for password in ("one", "two", "three")]
for number in (1, 2, 3):
    while len(begun) < number:
        gevent.sleep(0.001)
    os.write(writing, b".")
print(sorted(hash.get() for hash in hashes))
"""


@pytest.fixture
def is_slow(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let hashes wait for this event."""
    settings.PASSWORD_HASHERS = BESIDE
    event = threading.Event()

    def encode(self: PBKDF2PasswordHasher, password: str, salt: str, iterations: int | None = None) -> str:
        assert event.wait(30)
        return f"pbkdf2_sha256$1${salt}${password}"

    monkeypatch.setattr(PBKDF2PasswordHasher, "encode", encode)
    yield event
    event.set()


def test_greenlets_go_on_while_passwords_are_hashed_one_by_one() -> None:
    env = {"DJANGO_SETTINGS_MODULE": "llmapi.settings_test", "PATH": ""}

    done = subprocess.run(
        [sys.executable, "-c", GREENLETS_GO_ON], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
    )

    assert (done.stdout, done.stderr[-500:]) == ("['hashed one', 'hashed three', 'hashed two']\n", "")


def test_hashes_are_those_of_django(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PBKDF2PasswordHasher, "iterations", 1000)
    stored = PBKDF2PasswordHasher().encode("a-long-password", "salt")
    settings.PASSWORD_HASHERS = BESIDE

    assert check_password("a-long-password", stored)
    assert not check_password("another-password", stored)
    assert hashing.BesideHasher().encode("a-long-password", "salt") == stored


def test_strangers_leave_places_to_staff(is_slow: threading.Event) -> None:
    def hash_as(owner: str) -> None:
        with hashing.place(owner):
            make_password("a-long-password")

    threads = [threading.Thread(target=hash_as, args=(hashing.STRANGERS,)) for _ in range(hashing.PLACES // 2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: hashing.places.taken == hashing.PLACES // 2)

    with pytest.raises(hashing.HashingBusy), hashing.place(hashing.STRANGERS):
        pass
    with hashing.place():
        assert hashing.places.taken == hashing.PLACES // 2 + 1

    is_slow.set()
    for thread in threads:
        thread.join()
    assert hashing.places.taken == 0


@pytest.mark.django_db(transaction=True)
def test_no_connection_is_held_while_a_password_is_hashed(is_slow: threading.Event) -> None:
    User.objects.count()
    is_slow.set()

    make_password("a-long-password")

    assert connection.connection is None


@pytest.mark.django_db(transaction=True)
def test_an_account_is_made_without_hashing_in_a_transaction(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PASSWORD_HASHERS = BESIDE
    client, password = Client(), "a-very-long-password"
    client.force_login(User.objects.create_superuser("boss"))
    in_transaction = []
    encode = PBKDF2PasswordHasher.encode

    def noted(self: PBKDF2PasswordHasher, password: str, salt: str, iterations: int | None = None) -> str:
        in_transaction.append(connection.in_atomic_block)
        return encode(self, password, salt, 1)

    monkeypatch.setattr(PBKDF2PasswordHasher, "encode", noted)
    form = {"username": "new", "usable_password": "true", "password1": password, "password2": password}

    answer = client.post("/admin/auth/user/add/", form)
    made = User.objects.get(username="new")

    assert (answer.status_code, in_transaction) == (302, [False])
    assert made.check_password(password)

    answer = client.post(
        f"/admin/auth/user/{made.pk}/password/", {**form, "password1": password + "2", "password2": password + "2"}
    )

    assert (answer.status_code, set(in_transaction)) == (302, {False})
    made.refresh_from_db()
    assert made.check_password(password + "2")


def test_an_account_may_be_made_without_a_password(client: Client, db: None) -> None:
    client.force_login(User.objects.create_superuser("boss"))

    client.post("/admin/auth/user/add/", {"username": "new", "usable_password": "false"})

    assert not User.objects.get(username="new").has_usable_password()


def test_a_page_that_hashes_is_refused_while_too_many_do(client: Client, db: None) -> None:
    client.force_login(User.objects.create_superuser("boss", password="a-very-long-password"))
    for owner in range(hashing.PLACES):
        hashing.places.take(owner)
    try:
        form = {
            "old_password": "a-very-long-password",
            "new_password1": "another-password",
            "new_password2": "another-password",
        }
        answer = client.post("/admin/password_change/", form)
    finally:
        for owner in range(hashing.PLACES):
            hashing.places.give_back(owner)

    assert (answer.status_code, answer["Retry-After"]) == (503, "2")
