"""Requests per minute, by GCRA."""

from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from chat.models import ClientToken, RateLimit
from conftest import ApiClient

URL = "/v1/models"


def test_it_works(alice: ApiClient, settings: Settings) -> None:
    settings.RATE_LIMIT_PER_MIN = 3

    answers = [alice.get(URL) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0", "0", "0"]
    refused = answers[-1]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 18 <= int(refused["Retry-After"]) <= 20
    assert refused["RateLimit-Policy"] == '"rpm";q=3;w=60'
    assert refused["RateLimit"] == f'"rpm";r=0;t={refused["Retry-After"]}'
    assert refused["x-ratelimit-limit-requests"] == "3"
    assert 59 < float(refused["x-ratelimit-reset-requests"].removesuffix("s")) <= 60


def test_a_place_comes_back_with_time(alice: ApiClient, settings: Settings) -> None:
    settings.RATE_LIMIT_PER_MIN = 3
    for _ in range(4):
        alice.get(URL)

    RateLimit.objects.update(theoretical_arrival=F("theoretical_arrival") - 20)

    assert [alice.get(URL).status_code for _ in range(2)] == [200, 429]


def test_a_token_has_its_own_limit(alice: ApiClient, bob: ApiClient, settings: Settings) -> None:
    settings.RATE_LIMIT_PER_MIN = 1
    ClientToken.objects.filter(pk=alice.token_row.pk).update(rate_limit_per_min=2)

    assert [alice.get(URL).status_code for _ in range(3)] == [200, 200, 429]
    assert [bob.get(URL).status_code for _ in range(2)] == [200, 429]


def test_zero_is_no_limit(alice: ApiClient, settings: Settings) -> None:
    settings.RATE_LIMIT_PER_MIN = 0

    answer = alice.get(URL)

    assert answer.status_code == 200
    assert "RateLimit" not in answer


def test_errors_carry_the_headers_too(alice: ApiClient) -> None:
    assert alice.send("/v1/chat/completions", {})["x-ratelimit-limit-requests"] == "1000"


def test_a_clock_that_was_set_back_starts_the_minute_anew(alice: ApiClient, settings: Settings) -> None:
    settings.RATE_LIMIT_PER_MIN = 2
    alice.get(URL)
    RateLimit.objects.update(theoretical_arrival=F("theoretical_arrival") + 24 * 3600)

    assert [alice.get(URL).status_code for _ in range(3)] == [200, 200, 429]


def test_a_request_is_admitted_by_one_statement(alice: ApiClient) -> None:
    """With two, requests at once could both take the last place."""
    with CaptureQueriesContext(connection) as queries:
        alice.get(URL)

    assert len([query for query in queries if "rate_limits" in query["sql"]]) == 1
