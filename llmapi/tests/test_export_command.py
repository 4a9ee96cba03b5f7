"""`manage.py export` writes what the admin exports."""

import csv
import io
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from analytics.models import AnalyticsEvent, UsageEvent
from analytics.tests.sample_week import MON, TODAY, TUE, WED, write_week
from chat.models import AuditRecord, ClientToken, Conversation
from llmapi.staff.lists import export as exports

pytestmark = pytest.mark.usefixtures("noon")


@pytest.fixture(autouse=True)
def written(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write more rows than one chunk holds."""
    monkeypatch.setattr(exports, "CHUNK_ROWS", 3)
    write_week()
    for name in ("web", "phone"):
        client = ClientToken.objects.create(name=name, digest=name)
        Conversation.objects.create(pk=f"c_{name}", client_token=client, user_id="ann", metadata={"plan": "=1+1"})


def exported(*options: str) -> list[dict[str, str]]:
    out = io.StringIO()
    call_command("export", *options, stdout=out)
    return list(csv.DictReader(io.StringIO(out.getvalue(), newline="")))


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("usage_events", "analytics_usageevent"),
        ("analytics_events", "analytics_analyticsevent"),
        ("conversations", "chat_conversation"),
    ],
)
def test_writes_what_the_admin_exports(staff: Client, tmp_path: Path, table: str, name: str) -> None:
    path = tmp_path / "rows.csv"
    out = io.StringIO()

    call_command("export", table, "--output", str(path), stdout=out)

    answer = staff.get(reverse(f"admin:{name}_export"))
    assert path.read_bytes() == b"".join(answer.streaming_content)  # type: ignore[attr-defined]
    rows = len(path.read_text().splitlines()) - 1
    assert rows >= 2
    assert out.getvalue() == f"{rows} rows written to {path}.\n"


def test_exports_a_range_of_days() -> None:
    found = exported("usage_events", f"--from={TUE.date()}", f"--to={WED.date()}")

    kept = UsageEvent.objects.filter(created_at__gte=TUE, created_at__lt=WED + timedelta(days=1))
    assert [row["request_id"] for row in found] == list(
        kept.order_by("-created_at", "-pk").values_list("request_id", flat=True)
    )
    assert len(exported("usage_events", f"--to={MON.date()}")) == 4
    assert len(exported("usage_events", f"--from={TODAY.date()}")) == 3


@pytest.mark.parametrize("table", ["usage_events", "analytics_events"])
def test_exports_one_client_token(table: str) -> None:
    """Usage events have an index by client token; analytics events have none."""
    phone = str(ClientToken.objects.get(name="phone").pk)
    for model in (UsageEvent, AnalyticsEvent):
        model._default_manager.filter(client_token_id=2).update(client_token_id=phone)

    found = exported(table, "--client=phone")

    assert {row["user_id"] for row in found} == {"cid"}
    assert len(found) == {"usage_events": 5, "analytics_events": 4}[table]
    assert exported(table, f"--client={phone}") == found


def test_an_empty_table_has_a_header() -> None:
    out = io.StringIO()
    call_command("export", "usage_events", "--to=2001-01-01", stdout=out)

    assert out.getvalue().startswith("request_id,created_at,")
    assert out.getvalue().count("\n") == 1


def test_no_cell_is_a_formula() -> None:
    Conversation.objects.update(user_id="=cmd()")

    assert exported("conversations")[0]["user_id"] == "'=cmd()"


def test_bad_options_are_reported(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="--from must not be after --to"):
        exported("usage_events", f"--from={WED.date()}", f"--to={TUE.date()}")
    with pytest.raises(CommandError, match="takes a UTC day as YYYY-MM-DD"):
        exported("usage_events", "--from=soon")
    with pytest.raises(CommandError, match="no token has the name 'nobody'"):
        exported("usage_events", "--client=nobody")
    with pytest.raises(CommandError, match=r"--output: .*; name another file, in a writable directory"):
        exported("usage_events", f"--output={tmp_path}/missing/rows.csv")
    assert not AuditRecord.objects.exists()


def test_overwrites_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("of yesterday, and longer than a header" * 1000)

    call_command("export", "usage_events", "--to=2001-01-01", f"--output={path}", stdout=io.StringIO())

    assert path.read_text().startswith("request_id,")
    assert "of yesterday" not in path.read_text()
