"""manage.py list_client_tokens and revoke_client_token."""

import json
import sys
import urllib.error
import urllib.request
from datetime import timedelta
from decimal import Decimal
from io import StringIO

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from analytics.models import UsageEvent
from bench.openai_double import OpenAIDouble
from chat.models import ClientToken
from conftest import ApiClient, Server


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_lists_what_is_known_of_each_token(alice: ApiClient, bob: ApiClient, upstream: OpenAIDouble) -> None:
    alice.say(alice.conversation(), "Hi")
    past = timezone.now() - timedelta(days=1)
    ClientToken.objects.filter(pk=alice.token_row.pk).update(day_tokens=5000, month_usd=Decimal("2.5"))
    ClientToken.objects.filter(pk=bob.token_row.pk).update(expires_at=past, rate_limit_per_min=0)

    first, second = json.loads(run("list_client_tokens", "--json"))

    last_turn = UsageEvent.objects.get().created_at.isoformat(timespec="seconds")
    assert (first["name"], first["status"], first["last_turn_at"]) == ("alice", "active", last_turn)
    limits = {"requests_per_min": settings.RATE_LIMIT_PER_MIN, "day_tokens": 5000, "month_usd": "2.5000"}
    assert first["limits"] == limits
    assert (second["name"], second["status"], second["last_turn_at"]) == ("bob", "expired", None)
    assert second["limits"] == {}
    assert alice.token not in json.dumps(first)


def test_lists_a_table_in_two_queries_at_most(
    alice: ApiClient, bob: ApiClient, django_assert_max_num_queries: object
) -> None:
    with django_assert_max_num_queries(1):  # type: ignore[operator]
        printed = run("list_client_tokens")

    assert [line.split()[1] for line in printed.splitlines() if "llm_" in line] == ["alice", "bob"]


def test_says_that_there_is_no_token_yet(db: None) -> None:
    assert "create_client_token" in run("list_client_tokens")


def test_names_steer_no_terminal(db: None) -> None:
    ClientToken.objects.create(name="[red]a\x1b[2J", digest="d")

    assert "[red]a�[2J" in run("list_client_tokens")


@pytest.mark.parametrize("by", ["name", "id"])
def test_revokes_by_name_or_id_and_records_it(alice: ApiClient, bob: ApiClient, staff: Client, by: str) -> None:
    wanted = {"name": "alice", "id": str(alice.token_row.pk)}[by]

    assert "is revoked" in run("revoke_client_token", wanted, "--yes")
    assert "revoked already" in run("revoke_client_token", wanted, "--noinput")

    assert alice.get("/v1/models").status_code == 401
    assert bob.get("/v1/models").status_code == 200
    entry = LogEntry.objects.get()
    assert (entry.object_id, str(entry)) == (str(alice.token_row.pk), "Changed “alice” — Revoked the token.")
    assert (entry.user.get_username(), entry.user.is_active, entry.user.has_usable_password()) == (
        "manage.py",
        False,
        False,
    )
    assert "manage.py" in staff.get(f"/admin/chat/clienttoken/{alice.token_row.pk}/history/").content.decode()


def test_the_command_line_has_one_name_in_the_history(alice: ApiClient, bob: ApiClient) -> None:
    run("revoke_client_token", "alice", "--yes")
    run("revoke_client_token", "bob", "--yes")

    assert LogEntry.objects.count() == 2
    assert get_user_model().objects.count() == 1


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("nobody", "no token has the name 'nobody'; choose from: alice"),
        ("9999999", "no token has the id 9999999; manage.py list_client_tokens"),
        (" ", "NAME takes the name or the id"),
    ],
)
def test_an_unknown_token_is_said(alice: ApiClient, wanted: str, said: str) -> None:
    with pytest.raises(CommandError, match=said):
        run("revoke_client_token", wanted, "--yes")
    assert ClientToken.objects.get().is_active


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "is_active"), [("y\n", False), ("Yes\n", False), ("\n", True), ("n\n", True)])
def test_asks_before_it_revokes(alice: ApiClient, monkeypatch: pytest.MonkeyPatch, typed: str, is_active: bool) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    if is_active:
        with pytest.raises(CommandError, match="Nothing is revoked"):
            run("revoke_client_token", "alice")
    else:
        run("revoke_client_token", "alice")

    assert ClientToken.objects.get().is_active is is_active


def test_asks_nobody_where_nobody_is(alice: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("y\n"))
    with pytest.raises(CommandError, match="add --yes"):
        run("revoke_client_token", "alice")
    assert ClientToken.objects.get().is_active


def test_all_processes_refuse_a_revoked_token_at_once(server: Server) -> None:
    """Each process has read the token before, and keeps nothing of it that a request could be let in by."""
    token = ClientToken(name="leaked")
    request = urllib.request.Request(f"{server.url}/v1/models", headers={"Authorization": f"Bearer {token.renew()}"})
    token.save()

    def status() -> int:
        """On a new connection, so that the kernel deals requests to both processes."""
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code

    assert {status() for _ in range(12)} == {200}

    run("revoke_client_token", "leaked", "--yes")

    assert {status() for _ in range(12)} == {401}
