"""How many pages, exports and figures a process makes at once, and for one member of the staff."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.signals import request_finished
from django.db import close_old_connections
from django.test import Client

from analytics.api.views import FIGURES
from analytics.fairness import Busy, Share
from chat.models import AuditRecord
from conftest import ApiClient
from llmapi.staff.lists.export import EXPORTS
from llmapi.staff.site import PAGES

PAGE = "/admin/chat/conversation/"
EXPORT = f"{PAGE}export/"


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for share in (PAGES, FIGURES):
        monkeypatch.setattr(share, "patience", 0.01)


@pytest.fixture
def other(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("other"))
    return client


def key_of(client: Client) -> int:
    return int(client.session["_auth_user_id"])


@contextmanager
def taken(share: Share, owner: object, count: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(share.held(owner))
        yield


@pytest.mark.parametrize("path", ["/admin/", PAGE, "/admin/analytics/usageevent/breakdown/", "/admin/auth/user/"])
def test_one_member_of_the_staff_takes_few_pages_at_once(staff: Client, other: Client, path: str) -> None:
    with taken(PAGES, key_of(staff), 2):
        answer = staff.get(path)

        assert (answer.status_code, answer["Retry-After"]) == (503, "1")
        assert "open this one again in a moment" in answer.content.decode()
        assert other.get(path).status_code == 200
    assert staff.get(path).status_code == 200
    assert PAGES.taken == 0


def test_all_of_the_staff_take_few_pages_at_once(staff: Client) -> None:
    with taken(PAGES, "a", 2), taken(PAGES, "b", 1), taken(PAGES, "c", 1):
        assert staff.get(PAGE).status_code == 503
    assert staff.get(PAGE).status_code == 200


def test_a_page_that_fails_frees_its_place(staff: Client) -> None:
    for _ in range(5):
        assert staff.get("/admin/chat/conversation/%00/change/").status_code in {302, 404}

    assert PAGES.taken == 0


def test_who_logs_out_frees_their_place(staff: Client) -> None:
    assert staff.post("/admin/logout/").status_code == 200

    assert PAGES.taken == 0


def close(answer: Any) -> None:
    """Close an answer as a server does, without the end of the request, at which Django closes connections."""
    with ExitStack() as stack:
        request_finished.disconnect(close_old_connections)
        stack.callback(request_finished.connect, close_old_connections)
        answer.close()


def test_exports_are_few_until_they_are_closed(staff: Client, other: Client) -> None:
    begun = [staff.get(EXPORT) for _ in range(2)]
    refused = staff.get(EXPORT)

    assert [answer.status_code for answer in (*begun, refused)] == [200, 200, 302]
    assert "Too many exports run at once" in staff.get(refused["Location"]).content.decode()
    others = other.get(EXPORT)
    assert others.status_code == 200
    # What is refused is not recorded as read.
    assert AuditRecord.objects.count() == 3
    for answer in begun:
        close(answer)
    close(others)
    assert EXPORTS.taken == 0
    close(staff.get(EXPORT))


def test_an_export_whose_client_goes_before_it_begins_frees_its_place(staff: Client) -> None:
    before = EXPORTS.taken

    close(staff.get(EXPORT))

    assert EXPORTS.taken == before


@pytest.mark.parametrize("path", ["/metrics", "/metrics/dau", "/metrics/dau.csv", "/metrics?format=prometheus"])
def test_few_figures_are_computed_at_once_for_one_token(alice: ApiClient, bob: ApiClient, path: str) -> None:
    for client in (alice, bob):
        client.token_row.can_read_metrics = True
        client.token_row.save()
    with taken(FIGURES, alice.token_row, 2):
        answer = alice.get(path)

        assert (answer.status_code, answer["Retry-After"]) == (503, "1")
        assert answer.json()["error"]["type"] == "server_error"
        assert bob.get(path).status_code == 200
    assert alice.get(path).status_code == 200
    assert FIGURES.taken == 0


def test_nobody_takes_all_figures(alice: ApiClient) -> None:
    with taken(FIGURES, "a", 2), taken(FIGURES, "b", 1):
        assert alice.get("/metrics").status_code == 403
        FIGURES.take("c")
        with pytest.raises(Busy):
            FIGURES.take("d")
        FIGURES.give_back("c")
