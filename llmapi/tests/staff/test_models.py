"""The page of the models of this server, and what the dashboard says of those that end."""

from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from chat.models import UpstreamModel

URL = "/admin/models/"


@pytest.fixture
def staff(db: None) -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("staff"))
    return client


class Cells(HTMLParser):
    """The rows of the page's table, as the texts of their cells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.is_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
            self.is_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th"}:
            self.is_cell = False

    def handle_data(self, data: str) -> None:
        if self.is_cell:
            self.rows[-1][-1] += data


def test_shows_price_context_and_end(
    staff: Client, settings: Settings, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    settings.OPENAI_BASE_URL = "https://api.openai.com/v1"
    settings.OPENAI_MODELS = ["gpt-6-luna", "gpt-4o", "my-model", "old-name"]
    settings.MODEL_ALIASES = {"old-name": "gpt-6-luna"}
    UpstreamModel.objects.create(name="my-model", shutdown_date="2031-05-06", asked_at=timezone.now())

    # Session, user, and what the provider has told.
    with django_assert_num_queries(3):
        answer = staff.get(URL)

    # Above stand those of the navigation.
    luna, omni, mine = Cells(answer.content.decode()).rows[-3:]
    prices = ["$0.1 ($0.2 above 272,000)", "$0.01 ($0.02 above 272,000)", "$0.125 ($0.25 above 272,000)"]
    assert luna == ["gpt-6-luna", "gpt-6-luna, old-name", "–", "–", "1,050,000", *prices, "$0.5 ($0.75 above 272,000)"]
    assert omni[1:] == ["gpt-4o", "2027-01-14, as announced", "gpt-6-luna", "128,000", "$2.5", "$1.25", "–", "$10"]
    assert mine[1:] == ["my-model", "2031-05-06, as the provider tells", "–", "8,192", "–", "–", "–", "–"]


def test_the_dashboard_warns_of_what_ends(staff: Client) -> None:
    soon = timezone.now().date() + timedelta(days=60)
    UpstreamModel.objects.create(name="gpt-4o", shutdown_date=soon, asked_at=datetime(2026, 11, 26, tzinfo=UTC))
    later = soon + timedelta(days=1)
    UpstreamModel.objects.create(name="gpt-4o-mini", shutdown_date=later, asked_at=datetime(2026, 11, 26, tzinfo=UTC))

    page = staff.get("/admin/").content.decode()

    assert f"The provider shuts gpt-4o down on {soon}." in page
    assert "gpt-4o-mini down" not in page
    assert f'href="{URL}"' in page


def test_only_staff_who_may_read_metrics_see_it(db: None) -> None:
    client = Client()
    assert client.get(URL).status_code == 302

    client.force_login(get_user_model().objects.create_user("clerk", is_staff=True))

    assert client.get(URL).status_code == 403
