"""Client tokens: who is let in, and what is kept of a token."""

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from chat.models import ClientToken
from conftest import ApiClient

URL = "/v1/conversations"


def post(token: str | None, **headers: str) -> tuple[int, dict[str, str]]:
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    answer = Client(raise_request_exception=False).post(URL, "{}", content_type="application/json", headers=headers)
    if answer.status_code == 401:
        assert answer.json()["error"]["code"] == "invalid_token"
        assert answer["WWW-Authenticate"].startswith("Bearer")
    return answer.status_code, answer.json()


def test_it_works(alice: ApiClient) -> None:
    assert post(alice.token)[0] == 201
    assert alice.token not in str(ClientToken.objects.values())


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer nobody", "Bearer \xff\xfe", "Bearer a b"]
)
def test_anything_else_is_401(db: None, header: str) -> None:
    assert post(None, authorization=header)[0] == 401


@pytest.mark.parametrize("header", ["api-key", "x-api-key"])
def test_headers_of_other_sdks(alice: ApiClient, header: str) -> None:
    assert post(None, **{header: alice.token})[0] == 201
    assert post(None, **{header: "nobody"})[0] == 401
    assert post("nobody", **{header: alice.token})[0] == 401


def test_no_header_is_401(db: None) -> None:
    assert post(None)[0] == 401


def test_revocation_and_expiry_act_at_once(alice: ApiClient) -> None:
    rows = ClientToken.objects.filter(pk=alice.token_row.pk)

    rows.update(expires_at=timezone.now() + timedelta(minutes=1))
    assert post(alice.token)[0] == 201
    rows.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert post(alice.token)[0] == 401
    rows.update(expires_at=None, is_active=False)
    assert post(alice.token)[0] == 401


def test_the_setting_is_a_token_and_only_what_it_says_now(db: None, settings: Settings) -> None:
    before = settings.CLIENT_API_TOKEN
    assert post(before)[0] == 201

    settings.CLIENT_API_TOKEN = "another-token-0123456789"

    assert post(before)[0] == 401
    assert post("another-token-0123456789")[0] == 201
    assert ClientToken.objects.filter(is_setting=True).count() == 1
    ClientToken.objects.update(is_active=False)
    assert post("another-token-0123456789")[0] == 401


def test_fallbacks_are_the_same_client_while_the_setting_changes(db: None, settings: Settings) -> None:
    before, after = settings.CLIENT_API_TOKEN, "another-token-0123456789"
    settings.CLIENT_API_TOKEN, settings.CLIENT_API_TOKEN_FALLBACKS = after, ["a-third-token-0123456789", before]

    assert [post(token)[0] for token in (before, after, "", "a-fourth-token-0123456789")] == [201, 201, 401, 401]
    assert ClientToken.objects.count() == 1

    settings.CLIENT_API_TOKEN_FALLBACKS = []
    assert [post(token)[0] for token in (before, after)] == [401, 201]


def test_an_empty_setting_is_no_token(db: None, settings: Settings) -> None:
    settings.CLIENT_API_TOKEN = ""

    assert post("")[0] == 401


def test_the_command_shows_a_token_that_works(db: None) -> None:
    out = StringIO()

    call_command("create_client_token", "web", "--rate-limit=7", "--expires-in-days=1", stdout=out, stderr=StringIO())

    assert post(out.getvalue().strip())[0] == 201
    assert ClientToken.objects.get().rate_limit_per_min == 7


def test_digests_are_compared_in_constant_time(
    alice: ApiClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: False)

    assert post(alice.token)[0] == 401
    assert post(settings.CLIENT_API_TOKEN)[0] == 401
