"""The dashboard at the top of the admin, as staff see it."""

import re
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.staticfiles import finders
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings

from analytics.models import UserDay
from analytics.query import today
from analytics.tests.sample_week import (
    ANN,
    BOB,
    CID,
    MON,
    TODAY,
    TUE,
    at,
    event,
    make_current,
    turn,
    write_built_week,
    write_week,
)
from chat.models import ClientToken

WEEK = f"/admin/?from={MON.date()}&to={TODAY.date()}"
# Classes without a style of their own.
PLAIN = {"dash-neutral"}
RUDE = "<script>alert('x')</script>\"&"


class Page(HTMLParser):
    """Collects tags, attributes and texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    def after(self, text: str) -> str:
        return self.texts[self.texts.index(text) + 1]

    def links(self, text: str) -> list[str]:
        return [attrs["href"] or "" for tag, attrs in self.tags if tag == "a" and text in (attrs["href"] or "")]


def login(*permissions: str, is_staff: bool = True) -> Client:
    user = get_user_model().objects.create_user("reader", is_staff=is_staff)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def staff(db: None) -> Client:
    return login("view_usageevent")


def page_of(staff: Client, url: str) -> Page:
    answer = staff.get(url)
    assert answer.status_code == 200
    return Page(answer.content.decode())


def test_shows_the_figures_of_the_period(staff: Client) -> None:
    write_week()
    event(ANN, at(MON, 11), "client.thumbs_up")

    page = page_of(staff, WEEK)

    assert page.after("Turns") == "14"
    assert page.after("Thumbs up") == "100 %"
    assert page.after("Success rate") == "85.7 %"
    assert page.after("Tokens") == "1,200"
    assert page.after("Cost") == "–"
    assert "Price unknown: local" in page.texts
    assert "Completed turns as a share of those that ended (completed, failed or abandoned); null when none did." in (
        page.texts
    )
    assert "Nothing in this period." not in page.texts
    # In the tables of the plots.
    assert page.texts.count(MON.date().isoformat()) >= 4
    # The list of apps stays below it.
    assert page.texts.index("Turns") < page.texts.index("Usage events") < page.texts.index("Recent actions")


def test_changes_are_against_the_period_before(staff: Client) -> None:
    write_built_week()

    page = page_of(staff, f"/admin/?from={TUE.date()}&to={TUE.date()}")

    # Four on Monday, and four on Tuesday of which one failed.
    turns = page.texts.index("Turns")
    assert page.texts[turns : turns + 5] == ["Turns", "4", "±0 %", "from 4", "1 failed or abandoned"]
    rate = page.texts.index("Success rate")
    assert page.texts[rate : rate + 5] == ["Success rate", "75 %", "−25 points", ", worse", "from 100 %"]


@pytest.mark.parametrize(("query", "days"), [("", 30), ("?days=7", 7), ("?days=90", 90), ("?days=365", 365)])
def test_a_period_ends_today(staff: Client, query: str, days: int) -> None:
    page = page_of(staff, f"/admin/{query}")

    (link,) = page.links("/metrics/turns_by_day.csv")
    asked = parse_qs(urlsplit(link).query)
    assert asked == {"from": [(today() - timedelta(days=days - 1)).isoformat()], "to": [today().isoformat()]}
    current = [attrs for tag, attrs in page.tags if "aria-current" in attrs]
    assert [attrs["href"] for attrs in current] == [f"?days={days}"]


def test_filters_narrow_the_figures_and_are_kept_by_links(staff: Client) -> None:
    token = ClientToken(pk=2, name="Web page")
    token.renew()
    token.save()
    write_built_week()

    page = page_of(staff, f"{WEEK}&client=2&model=local&app_version=")

    assert page.after("Turns") == "4"
    chosen = [attrs for tag, attrs in page.tags if tag == "option" and "selected" in attrs]
    assert [attrs.get("value") for attrs in chosen] == ["2", None]
    assert "Web page" in page.texts
    (link,) = page.links("/metrics/failures.csv")
    assert "&client=2&model=local" in link
    assert "?days=7&client=2&model=local" in page.links("days=7")
    # A period keeps to the filters, and is not the days that were named.
    assert not any("aria-current" in attrs for _, attrs in page.tags)
    assert page_of(staff, f"{WEEK}&app_version=2.0").after("Turns") == "4"


def test_a_deleted_client_can_still_be_chosen(staff: Client) -> None:
    write_built_week()

    page = page_of(staff, f"{WEEK}&client=1")

    assert "client 1" in page.texts
    assert page.after("Turns") == "10"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("from=yesterday", "from: takes a UTC day as YYYY-MM-DD"),
        ("from=2026-02-02&to=2026-02-01", "from: takes a day"),
        ("from=2020-01-01&to=2024-01-01", "from: takes a day that is 0 to 730 days before"),
        ("to=9999-12-31", "to: takes a day of this century"),
        ("to=0001-01-01", "to: takes a day of this century"),
        ("days=8", "days: takes 7, 30, 90, 365."),
        ("days=-1", "days: takes"),
        ("days=٣٠", "days: takes"),
        ("client=ann", "client: takes the id of a client token"),
        ("client=99999999999999999999", "client: takes the id"),
        ("model=a%00b", "model: takes 1 to 100 characters"),
        ("app_version=" + "1" * 65, "app_version: takes 1 to 64 characters"),
    ],
)
def test_a_bad_query_is_reported(staff: Client, query: str, said: str) -> None:
    page = page_of(staff, f"/admin/?{query}")

    assert any(text.startswith(said) and text.endswith("Showing the last 30 days.") for text in page.texts)
    (link,) = page.links("/metrics/turns_by_day.csv")
    assert f"from={today() - timedelta(days=29)}&to={today()}" in link


def test_only_staff_who_may_read_metrics_see_it(db: None, settings: Settings) -> None:
    write_week()
    clerk = login("view_conversation")

    page = page_of(clerk, WEEK)
    assert "Conversations" in page.texts
    assert "Turns" not in page.texts
    assert not page.links("/metrics/")
    assert clerk.get("/metrics/failures.csv").status_code == 403

    # Where /metrics is for everybody, the names of clients are not.
    settings.METRICS_PUBLIC = True
    assert "Turns" not in page_of(clerk, WEEK).texts


def test_others_must_log_in(db: None) -> None:
    for client in (Client(), login("view_usageevent", is_staff=False)):
        answer = client.get(WEEK)
        assert answer.status_code == 302
        assert answer["Location"].startswith("/admin/login/?next=/admin/")


def test_each_table_has_a_csv(staff: Client, settings: Settings) -> None:
    write_built_week()
    assert settings.METRICS_PUBLIC is False

    links = page_of(staff, WEEK).links("/metrics/")

    assert len(links) == 16
    for link in links:
        table = staff.get(link)
        assert (table.status_code, table["Content-Type"]) == (200, "text/csv; charset=utf-8")


def test_takes_a_fixed_number_of_queries(staff: Client, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    write_built_week()
    make_current()
    # Session, user, permissions of the user and of groups, names of clients, recent actions; whether today is current;
    # the parts of the period and of the one before; and what the provider has told of its models.
    with django_assert_num_queries(6 + 2 + 19 + 1):
        staff.get("/admin/")
    for number in range(40):
        turn({**BOB, "model": f"model-{number}", "user_id": f"u{number}"}, at(TODAY, 7))
        turn({**CID, "client_token_id": number}, at(TODAY, 7), "failed", error_code=f"code_{number}")
    make_current()
    assert UserDay.objects.exists()
    for days in (30, 365):
        with django_assert_num_queries(6 + 2 + 19 + 1):
            staff.get(f"/admin/?days={days}")
    with django_assert_num_queries(6 + 2 + 19 + 1):
        staff.get("/admin/?days=90&client=1&model=gpt")


@pytest.mark.parametrize("query", ["", "?days=365", f"?from={TUE.date()}&to={TUE.date()}", "?days=x"])
def test_has_no_inline_style_or_script(staff: Client, query: str) -> None:
    write_built_week()

    answer = staff.get(f"/admin/{query}")

    page = Page(answer.content.decode())
    for tag, attrs in page.tags:
        assert tag != "style"
        assert tag != "script" or attrs.get("src")
        assert not [name for name in attrs if name == "style" or name.startswith("on")]
    policy = answer["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


def test_names_are_escaped(staff: Client) -> None:
    token = ClientToken(pk=1, name=RUDE)
    token.renew()
    token.save()
    for who in (ANN, CID):
        turn({**who, "model": RUDE, "app_version": RUDE}, at(TODAY, 1))
    turn({**BOB, "model": RUDE}, at(TODAY, 2), "failed", error_code=RUDE)

    for query in (
        "",
        f"?model={RUDE.replace('&', '%26')}",
        f"?app_version={RUDE.replace('&', '%26')}",
        f"?days={RUDE}",
    ):
        html = staff.get(f"/admin/{query}").content.decode()
        assert "<script>alert" not in html
        assert "alert(&#x27;x&#x27;)" in html
        (link,) = Page(html).links("/metrics/failures.csv")
        assert staff.get(link).status_code == 200


def test_shows_dashes_for_an_empty_database(staff: Client) -> None:
    page = page_of(staff, "/admin/")

    assert page.after("Turns") == "0"
    assert page.after("Success rate") == "–"
    assert page.texts.count("Nothing in this period.") == 13
    assert page.texts.count("no earlier figure") == 19
    assert "Table" not in page.texts


def test_one_day_has_no_sparklines(staff: Client) -> None:
    write_built_week()

    page = page_of(staff, f"/admin/?from={MON.date()}&to={MON.date()}")

    day = f"{MON.day} {MON:%b %Y}"
    assert any(text.startswith(f"{day} (UTC), compared with") and "Today" not in text for text in page.texts)
    assert page.after("Turns") == "4"
    assert not any("sparkline" in (attrs.get("class") or "") for _, attrs in page.tags)


def test_every_class_has_a_style(staff: Client) -> None:
    page = page_of(staff, "/admin/")

    sheets = [attrs["href"] or "" for tag, attrs in page.tags if tag == "link" and "css" in (attrs["href"] or "")]
    styles = "".join(
        Path(found).read_text() for sheet in sheets if (found := finders.find(sheet.removeprefix("/static/")))
    )
    used = {name for _, attrs in page.tags for name in (attrs.get("class") or "").split() if name.startswith("dash")}
    assert {f".{name}" for name in used - PLAIN} <= set(re.findall(r"\.dash[-a-z]*", styles))
