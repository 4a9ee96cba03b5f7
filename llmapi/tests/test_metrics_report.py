"""`manage.py metrics_report` over the sample week: tables, JSON, CSV, and HTML for mail."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from django.utils.html import escape
from pytest_django import DjangoDbBlocker

from analytics.formatting import format_day
from analytics.metrics import registry
from analytics.query import Period, Query
from analytics.rollups.coverage import bring_up_to_date
from analytics.tests.sample_week import ANN, BOB, MON, SUN, TODAY, TUE, at, forget_builds, turn, write_built_week
from chat.models import ClientToken
from conftest import kept_rows

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module", autouse=True)
def clients(noon: None, django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with kept_rows(django_db_blocker):
        write_built_week()
        for pk, name in ((1, "web"), (2, "phone"), (3, "twin"), (4, "twin"), (5, "<b>odd</b>")):
            ClientToken.objects.create(pk=pk, name=name, digest=str(pk))
        yield


def report(*options: str) -> str:
    out = io.StringIO()
    call_command("metrics_report", *options, stdout=out)
    return out.getvalue()


def tokens(*options: str) -> int:
    body = json.loads(report("--format=json", *options))
    return int(body["total_tokens"])


def line(text: str, title: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.strip().startswith(title))


def test_prints_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    printed = report(f"--from={MON.date()}", f"--to={TUE.date()}")

    assert f"llmapi, {format_day(MON.date())} to {format_day(TUE.date())} (UTC)" in printed
    # Monday four turns, Tuesday four, of which one failed; none before.
    assert line(printed, "Turns") == ["Turns", "▇▇", "8", "0"]
    assert line(printed, "Success rate") == ["Success", "rate", "▇▅", "87.5", "%", "–"]
    assert "1 failed or abandoned" in printed
    # The panel's table: ann and bob on Monday.
    assert line(printed, MON.date().isoformat()) == [MON.date().isoformat(), "2", "2", "2"]
    assert "\x1b" not in printed


def test_prints_changes() -> None:
    for _ in range(3):
        turn(ANN, at(MON - timedelta(days=1), 12))
    forget_builds()
    printed = report(f"--to={MON.date()}", "--days=1")

    assert line(printed, "Turns") == ["Turns", "▇", "4", "3", "+33", "%"]


def test_long_tables_are_cut_with_a_note() -> None:
    printed = report("--days=90")

    assert "The first 14 of 90 rows." in printed


def test_options_choose_days_and_filters() -> None:
    assert tokens() == 1200
    assert tokens("--days=1") == 200
    assert tokens(f"--from={TUE.date()}", f"--to={TUE.date()}") == 300
    assert tokens(f"--to={TUE.date()}", "--days=2") == 700
    assert tokens("--client=web") == tokens("--client=1") == 900
    assert tokens("--model=local") == tokens("--client=phone") == 300
    assert tokens("--app-version=2.0") == 300
    # The ledger tells of clients whose token is gone.
    assert tokens("--client=77") == 0
    assert "client web (1), model gpt, version 1.0" in report("--client=web", "--model=gpt", "--app-version=1.0")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--client=nobody"],
            r"--client: no token has the name 'nobody'; choose from: web, phone, twin, twin, <b>odd</b>\.",
        ),
        (["--client=twin"], r"--client: several tokens have the name 'twin'; give one of the ids 3, 4\."),
        (["--client=99999999999999999999"], "--client: "),
        (["--client="], "--client takes the name or the id"),
        (["--days=0"], "--days must be from 1 to 3660"),
        (["--days=3", "--from=2026-01-01"], "--days or --from"),
        (["--from=soon"], "--from: takes a UTC day as YYYY-MM-DD"),
        (["--to=1999-01-01"], "--to: takes a day of this century"),
        (["--from=2026-01-02", "--to=2026-01-01"], "--from: takes a day"),
        ([f"--app-version={'x' * 65}"], "--app-version: "),
        (["--output=/nowhere/at/all"], "--output: No such file or directory"),
        (["--output=/dev"], "--output: Is a directory"),
    ],
)
def test_bad_options_are_reported(options: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        report(*options)


def test_json_and_csv_are_those_of_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)
    body = json.loads(report("--format=json"))
    expected = registry.report(Query.last_days(30), bring_up_to_date().computed_at)
    assert list(body) == list(expected)
    assert body == expected

    turn({**BOB, "user_id": "=1+1", "model": "=2+2"}, at(TODAY, 7))
    rows = list(csv.DictReader(io.StringIO(report("--format=csv"))))
    assert list(rows[0]) == ["metric", "day", "subject", "value"]
    assert sum(int(row["value"]) for row in rows if row["metric"] == "total_tokens") == 1300
    assert "'=2+2" in {row["subject"] for row in rows if row["metric"] == "total_tokens"}
    assert {row["subject"] for row in rows if row["metric"] == "time_spent_seconds"} == {"ann", "bob", "cid", "'=1+1"}


class Page(HTMLParser):
    """Collects texts and whatever a browser would load, and checks that every element is closed."""

    VOID = {"meta", "br"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag in ("script", "link", "iframe", "img", "object", "form"):
            self.links.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Ignore the self-closing elements of SVG."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data.strip())

    @property
    def cells(self) -> Iterator[str]:
        return (text for text in self.texts if text)


def test_html_is_one_page_for_mail() -> None:
    turn(ANN, at(MON - timedelta(days=1), 12))
    forget_builds()
    text = report("--format=html")
    page = Page(text)

    period = f"llmapi, {format_day(MON.date())} to {format_day(SUN.date())}"
    assert f"<title>{period}</title>" in text
    week_before = (MON - timedelta(days=7)).date(), (MON - timedelta(days=1)).date()
    assert f"Changes are from {format_day(week_before[0])} to {format_day(week_before[1])}." in text
    assert page.links == []
    assert "url(" not in text
    assert "@import" not in text
    # A week of whole days: 12 turns ended, one of them before.
    cells = list(page.cells)
    turns = cells.index("Turns")
    assert cells[turns : turns + 5] == ["Turns", "2 failed or abandoned", "12", "×12", "from 1"]
    assert text.count("<svg") > 12 + 8
    assert 'role="img" aria-label="Turns, 12 in total' in text
    assert "Completed turns as a share of those that ended" in text


def test_names_are_escaped() -> None:
    odd = "[red]\x1b[31m<script>alert(1)</script>"
    turn({**ANN, "client_token_id": 5, "model": odd}, at(MON, 12))
    forget_builds()

    printed = report(f"--model={odd}")
    assert "[red]�[31m<script>" in printed
    assert "\x1b" not in printed
    page = report("--format=html", "--client=<b>odd</b>")
    assert "<script" not in page
    assert "<b>odd" not in page
    assert escape("<script>alert(1)") in page


@pytest.mark.parametrize("form", ["table", "json", "csv", "html"])
def test_prints_dashes_without_rows(form: str) -> None:
    text = report(f"--format={form}", "--client=77", "--from=2001-01-01", "--to=2001-01-07")

    assert ("–" in text) == (form in ("table", "html"))


def test_output_overwrites_the_file(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("of last week")

    assert report("--format=html", f"--output={path}") == ""

    written = path.read_text(encoding="utf-8")
    assert written.startswith("<!doctype html>")
    assert written.endswith("</html>\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_is_reported() -> None:
    with pytest.raises(CommandError, match="--output: No space left on device; name another file"):
        report("--output=/dev/full")


def test_colours_are_only_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    call_command("metrics_report", "--days=2", stdout=out)

    assert "\x1b[1m" in out.getvalue()


def test_the_days_of_a_mailed_week(monkeypatch: pytest.MonkeyPatch) -> None:
    periods: list[Period] = []
    from llmapi.management.commands import metrics_report

    def render(format_name: str, query: Query, *args: Any, **options: Any) -> str:
        periods.append(query.period)
        return ""

    monkeypatch.setattr(metrics_report, "render", render)
    for options in ([], ["--days=30"], [f"--to={TUE.date()}"], [f"--from={MON.date()}"]):
        report("--format=html", *options)

    yesterday = SUN.date()
    assert periods == [
        Period(MON.date(), yesterday),
        Period(yesterday - timedelta(days=29), yesterday),
        Period(TUE.date() - timedelta(days=6), TUE.date()),
        Period(MON.date(), yesterday),
    ]
