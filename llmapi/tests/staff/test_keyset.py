"""Pages of lists: each row is on exactly one page, and each page compares a limited number of rows."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client

from analytics.models import UsageEvent
from analytics.tests.sample_week import ANN, TODAY, at, row
from chat.models import Conversation
from llmapi.staff.lists import keyset
from llmapi.staff.lists.keyset import Cursor, Key, KeysetQuery, parse_value
from llmapi.tests.staff.test_lists import USAGE, url, write


def all_pages(client: Client, name: str, first: str = "", **query: Any) -> list[list[Any]]:
    """Follow the links from the first page to the last and back. The way back must have the same rows."""
    pages, links = [], [first or url(name) + "?" + "&".join(f"{key}={value}" for key, value in query.items())]
    while True:
        page = client.get(links[-1]).context["cl"]
        pages.append([row.pk for row in page.result_list])
        if not page.older_link:
            break
        links.append(url(name) + page.older_link)
    back = [pages[-1]]
    while page.newer_link:
        page = client.get(url(name) + page.newer_link).context["cl"]
        back.append([row.pk for row in page.result_list])
    assert [pk for rows in reversed(back) for pk in rows] == [pk for rows in pages for pk in rows]
    return pages


@pytest.mark.parametrize("name", [USAGE, "chat_conversation", "chat_budget"])
def test_every_row_is_on_exactly_one_page(staff: Client, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmapi.staff.base.KeysetAdmin.list_per_page", 2)
    write(5)

    pages = all_pages(staff, name)

    assert [len(rows) for rows in pages] == [2, 2, 1]
    assert len({pk for rows in pages for pk in rows}) == 5


def test_rows_of_one_instant_are_all_listed(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmapi.staff.base.KeysetAdmin.list_per_page", 2)
    for _ in range(5):
        row(ANN, TODAY)

    pages = all_pages(staff, USAGE)

    newest = list(UsageEvent.objects.order_by("-pk").values_list("pk", flat=True))
    assert pages == [newest[:2], newest[2:4], newest[4:]]


def test_a_new_row_moves_no_page(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmapi.staff.base.KeysetAdmin.list_per_page", 2)
    for minute in range(4):
        row(ANN, at(TODAY, 1, minute))
    older = staff.get(url(USAGE)).context["cl"].older_link
    row(ANN, at(TODAY, 2))

    page = staff.get(url(USAGE) + older).context["cl"]

    assert [found.created_at.minute for found in page.result_list] == [1, 0]
    newer = staff.get(url(USAGE) + page.newer_link).context["cl"]
    assert [found.created_at.minute for found in newer.result_list] == [3, 2]
    assert newer.newer_link
    assert staff.get(url(USAGE) + newer.newer_link).context["cl"].result_list[0].created_at.hour == 2


@pytest.mark.parametrize("key", ["user", "model", "status", "conversation", "nothing"])
def test_a_page_with_few_matches_ends_early_and_goes_on(
    staff: Client, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(keyset, "SCAN_LIMIT", 3)
    for minute in range(19):
        version = "2.0" if minute in (0, 9) else "1.0"
        row({**ANN, "app_version": version}, at(TODAY, 1, minute), "failed", conversation_id="c_1")
    leading = {
        "user": {"user": "ann"},
        "model": {"model": "gpt"},
        "status": {"status": "failed"},
        "conversation": {"conversation": "c_1"},
    }

    pages = all_pages(staff, USAGE, app_version="2.0", **leading.get(key, {}))

    minutes = UsageEvent.objects.in_bulk([pk for rows in pages for pk in rows])
    assert [minutes[pk].created_at.minute for rows in pages for pk in rows] == [9, 0]
    assert len(pages) == 5


@pytest.mark.parametrize(
    "query",
    [
        "before=x",
        "before=.",
        "before=1.x",
        "before=.1",
        "after=-99999999999999999.1",
        "before=1.99999999999999999999",
        "before=%00",
        "after=1.%00",
    ],
)
def test_a_bad_cursor_shows_the_newest_page(staff: Client, query: str) -> None:
    row(ANN, TODAY)
    answer = staff.get(f"{url(USAGE)}?{query}")

    assert answer.status_code == 200
    assert b"Page not found; showing the newest rows" in answer.content
    assert len(answer.context["cl"].result_list) == 1


def test_cursors_are_parsed_back() -> None:
    by_time, by_pk = Key(), Key(by_time=False)
    for cursor in (Cursor(TODAY, 7), Cursor(TODAY + timedelta(microseconds=3), None)):
        assert Cursor.parse(str(cursor), by_time, UsageEvent) == cursor
    assert Cursor.parse(".7", by_pk, UsageEvent) == Cursor(None, 7)
    assert Cursor.parse(".c_1.2", by_pk, Conversation) == Cursor(None, "c_1.2")
    for text in (".7", "7", "", ".", "7.x"):
        with pytest.raises(ValueError):
            Cursor.parse(text, by_time, UsageEvent)
    with pytest.raises(ValueError):
        Cursor.parse("7.7", by_pk, UsageEvent)
    with pytest.raises(ValidationError):
        parse_value(UsageEvent, "user_id", "x" * 256)


def test_a_page_beyond_all_rows_links_back(staff: Client) -> None:
    row(ANN, TODAY)
    for query in ("before=1.", "after=99999999999999999.1"):
        page = staff.get(f"{url(USAGE)}?{query}").context["cl"]
        assert page.result_list == []
        back = page.newer_link if query[0] == "b" else page.older_link
        assert len(staff.get(url(USAGE) + back).context["cl"].result_list) == 1


def test_the_most_selective_key_is_chosen() -> None:
    keys = [Key("user_id"), Key("status", only=frozenset({"failed"})), Key()]

    def led(**values: str) -> str:
        return KeysetQuery.for_filters(UsageEvent.objects.all(), keys, values).key.column

    assert led(status="failed", user_id="ann", model="gpt") == "user_id"
    assert led(status="failed", model="gpt") == "status"
    assert led(status="completed", model="gpt") == ""
