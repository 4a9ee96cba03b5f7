"""People of apps in the admin: who they are, blocking them, and the page of a publishable key."""

from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.urls import reverse

from bench.openai_double import OpenAIDouble
from chat.models import Attestation, ClientSession, ClientToken, IdentityProvider, Person, Plan
from chat.tests.test_sessions import App, code_of
from llmapi.tests.staff.forms import form_of


@pytest.fixture
def app(db: None) -> App:
    return App()


def test_staff_see_who_somebody_is(staff: Client, app: App, upstream: OpenAIDouble) -> None:
    someone = app.person()
    someone.say("Hello")
    listed = staff.get(reverse("admin:chat_person_changelist"), {"client": app.row.pk})
    assert listed.status_code == 200
    (row,) = listed.context["cl"].result_list
    assert row.pk == someone.id
    assert row.spent.total_tokens > 0
    page = staff.get(reverse("admin:chat_person_change", args=[someone.id])).content.decode()
    assert "anonymous" in page
    assert "https://app.example.com" in page
    assert f"user={someone.id}" in page
    user = staff.get(reverse("admin:analytics_usageevent_user"), {"user": someone.id})
    assert user.status_code == 200


def test_a_plan_limits_what_the_page_of_a_user_shows(staff: Client, app: App, upstream: OpenAIDouble) -> None:
    app.row.anonymous_plan = Plan.objects.create(name="trial", day_tokens=123_456)
    app.row.save()
    someone = app.person()
    someone.say("Hello")
    page = staff.get(reverse("admin:analytics_usageevent_user"), {"user": someone.id}).content.decode()
    assert "123,456" in page


def act(staff: Client, action: str, someone: Any) -> None:
    body = {"action": action, "_selected_action": [someone.id]}
    assert staff.post(reverse("admin:chat_person_changelist"), body).status_code == 302


def test_staff_block_and_unblock_at_once(staff: Client, app: App) -> None:
    someone = app.person()
    act(staff, "block", someone)
    assert code_of(someone.get("/v1/usage")) == (403, "person_blocked")
    act(staff, "unblock", someone)
    assert someone.get("/v1/usage").status_code == 200
    act(staff, "sign_out", someone)
    assert code_of(someone.get("/v1/usage")) == (401, "invalid_token")
    assert ClientSession.objects.get().revoked_at
    history = staff.get(reverse("admin:chat_person_history", args=[someone.id])).content.decode()
    for entry in ("Blocked the person.", "Unblocked the person.", "Revoked all sessions."):
        assert entry in history


def test_staff_change_a_plan(staff: Client, app: App) -> None:
    pro = Plan.objects.create(name="pro")
    someone = app.person()
    url = reverse("admin:chat_person_change", args=[someone.id])
    form = form_of(staff.get(url)) | {"plan": str(pro.pk)}
    assert staff.post(url, form).status_code == 302
    assert someone.get("/v1/sessions/current").json()["user"]["plan"] == "pro"


def test_nobody_makes_or_deletes_people_by_hand(staff: Client, app: App) -> None:
    someone = app.person()
    assert staff.get(reverse("admin:chat_person_add")).status_code == 403
    assert staff.post(reverse("admin:chat_person_delete", args=[someone.id])).status_code == 403


def test_staff_make_a_publishable_key(staff: Client) -> None:
    add = reverse("admin:chat_clienttoken_add")
    form = form_of(staff.get(add)) | {"name": "page", "is_publishable": "on", "origins": "https://app.example.com"}
    page = staff.post(add, form)
    assert page.status_code == 200
    assert page.context["token"].startswith("pk_")
    row = ClientToken.objects.get()
    assert (row.is_publishable, row.is_restricted, row.allowed_roles) == (True, True, "user")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"can_read_metrics": "on"}, "reads nothing"),
        ({"origins": "https://app.example.com/path"}, "without a path"),
        ({"origins": "app.example.com"}, "is no origin"),
        ({"origins": "chrome-extension://short"}, "is no origin"),
    ],
)
def test_a_key_that_could_do_harm_is_refused(staff: Client, fields: dict[str, str], problem: str) -> None:
    add = reverse("admin:chat_clienttoken_add")
    page = staff.post(add, form_of(staff.get(add)) | {"name": "page", "is_publishable": "on", **fields})
    assert problem in page.content.decode()
    assert not ClientToken.objects.exists()


def test_the_page_of_a_key_tells_what_became_of_it(staff: Client, app: App) -> None:
    from analytics import ledger

    app.person()
    app.person()
    app.start(origin="https://evil.example.org")
    ledger.flush_refusals()
    page = staff.get(reverse("admin:chat_clienttoken_change", args=[app.row.pk])).content.decode()
    assert "Today: 2 new." in page
    assert "1 × origin_not_allowed" in page


def test_sign_in_is_set_by_a_preset_and_its_secret_is_not_shown(staff: Client, app: App) -> None:
    url = reverse("admin:chat_clienttoken_change", args=[app.row.pk])
    form = form_of(staff.get(url))
    form |= {"identity_provider-0-preset": "firebase", "identity_provider-0-preset_of": "shop-1"}
    assert staff.post(url, form).status_code == 302
    row = IdentityProvider.objects.get()
    assert (row.issuer, row.audience, row.algorithm) == ("https://securetoken.google.com/shop-1", "shop-1", "RS256")

    form = form_of(staff.get(url)) | {"attestation-0-kind": "turnstile", "attestation-0-secret": "s3cret-of-the-widget"}
    assert staff.post(url, form).status_code == 302
    assert "s3cret-of-the-widget" not in staff.get(url).content.decode()
    # Left empty it stays.
    assert staff.post(url, form_of(staff.get(url)) | {"attestation-0-hostnames": "app.example.com"}).status_code == 302
    found = Attestation.objects.get()
    assert (found.secret, found.hostnames) == ("s3cret-of-the-widget", "app.example.com")


def test_a_sign_in_that_takes_any_token_is_refused(staff: Client, app: App) -> None:
    url = reverse("admin:chat_clienttoken_change", args=[app.row.pk])
    form = form_of(staff.get(url))
    form |= {
        "identity_provider-0-issuer": "https://id.example.com",
        "identity_provider-0-jwks_url": "https://id.example.com/k",
    }
    assert "any other app" in staff.post(url, form).content.decode()
    form |= {"identity_provider-0-audience": "shop", "identity_provider-0-algorithm": "HS256"}
    assert "32 bytes or more" in staff.post(url, form).content.decode()
    assert not IdentityProvider.objects.exists()


# --- commands ---


def test_a_command_makes_a_publishable_key(db: None, capsys: pytest.CaptureFixture[str]) -> None:
    call_command(
        *("create_client_token", "page", "--publishable", "--origin", "https://a.example.com"),
        *("--origin", "chrome-extension://" + "a" * 32, "--anonymous-day-usd", "5"),
    )
    assert capsys.readouterr().out.startswith("pk_")
    row = ClientToken.objects.get()
    assert row.origins.split() == ["https://a.example.com", "chrome-extension://" + "a" * 32]
    assert (row.is_restricted, str(row.anonymous_day_usd)) == (True, "5.0000")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--origin", "https://a.example.com"], "--publishable"),
        (["--anonymous-day-usd", "5"], "--publishable"),
        (["--publishable", "--can-read-metrics"], "reads nothing"),
        (["--publishable", "--origin", "https://a.example.com/x"], "--origin"),
        (["--publishable", "--origin", "*"], "--origin"),
    ],
)
def test_a_command_refuses(db: None, arguments: list[str], problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        call_command("create_client_token", "page", *arguments)
    assert not ClientToken.objects.exists()


@pytest.mark.parametrize(
    ("preset", "own", "issuer"),
    [
        ("firebase", "shop-1", "https://securetoken.google.com/shop-1"),
        ("supabase", "https://abc.supabase.co/", "https://abc.supabase.co/auth/v1"),
        ("clerk", "https://clerk.example.com", "https://clerk.example.com"),
        ("google", "1.apps.googleusercontent.com", "https://accounts.google.com"),
    ],
)
def test_a_command_sets_a_sign_in(app: App, preset: str, own: str, issuer: str) -> None:
    call_command("set_sign_in", "app", "--preset", preset, "--of", own)
    assert IdentityProvider.objects.get().issuer == issuer
    # Again, for another provider.
    call_command("set_sign_in", "app", "--preset", "auth0", "--of", "https://shop.eu.auth0.com", "--audience", "api")
    row = IdentityProvider.objects.get()
    assert (row.issuer, row.audience) == ("https://shop.eu.auth0.com/", "api")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nobody", "--preset", "google", "--of", "x"], "no active publishable key"),
        (["app", "--preset", "google"], "go together"),
        (["app", "--preset", "supabase", "--of", "abc"], "--of"),
        (["app", "--preset", "auth0", "--of", "https://shop.eu.auth0.com"], "--audience"),
        (["app", "--issuer", "https://id.example.com", "--audience", "shop"], "--jwks-url"),
        (["app", "--issuer", "x", "--audience", "shop", "--jwks-url", "ftp://x"], "--jwks-url"),
    ],
)
def test_a_command_refuses_a_sign_in(app: App, arguments: list[str], problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        call_command("set_sign_in", *arguments)
    assert not IdentityProvider.objects.exists()


def test_people_are_listed_by_an_index(staff: Client, app: App, django_assert_max_num_queries: Any) -> None:
    for _ in range(3):
        app.person()
    url = reverse("admin:chat_person_changelist")
    staff.get(url)
    with django_assert_max_num_queries(11):
        assert staff.get(url).status_code == 200
    assert Person.objects.count() == 3
