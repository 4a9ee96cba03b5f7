import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from analytics.models import UsageEvent

MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
DAY = timedelta(days=1)
MINI = "gpt-4o-mini-2024-07-18"


def row(model: str = MINI, *, at: datetime = MIDNIGHT, **fields: Any) -> None:
    prompt, completion = fields.pop("prompt_tokens", 100), fields.pop("completion_tokens", 10)
    status = fields.pop("status", "completed")
    UsageEvent.objects.create(
        request_id=f"r_{UsageEvent.objects.count()}",
        client_token_id=1,
        user_id="ann",
        model=model,
        status=status,
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        cost_nanos=fields.pop("cost_nanos", 21_000),
        locked_until=at,
        created_at=at,
        finished_at=None if status == "pending" else at,
        **fields,
    )


def result(
    model: str | None = MINI, *, requests: int = 1, prompt: int = 100, cached: int = 0, completion: int = 10
) -> dict[str, Any]:
    return {
        "object": "organization.usage.completions.result",
        "input_tokens": prompt,
        "output_tokens": completion,
        "input_cached_tokens": cached,
        "num_model_requests": requests,
        "project_id": None,
        "model": model,
    }


def bucket(*results: dict[str, Any], start: datetime = MIDNIGHT, width: timedelta = DAY) -> dict[str, Any]:
    times = {"start_time": int(start.timestamp()), "end_time": int((start + width).timestamp())}
    return {"object": "bucket", **times, "results": list(results)}


def page(*buckets: dict[str, Any], next_page: str | None = None) -> dict[str, Any]:
    return {"object": "page", "data": list(buckets), "has_more": next_page is not None, "next_page": next_page}


class Export:
    """A file, and the command run on it."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self.capsys = capsys

    def write(self, content: Any) -> None:
        self.path.write_text(content if isinstance(content, str) else json.dumps(content))

    def run(self, *arguments: str, form: str = "json") -> tuple[int, str]:
        """The exit code, and what is printed; in JSON unless another format is named."""
        code = 0
        try:
            call_command("reconcile", str(self.path), f"--format={form}", *arguments)
        except SystemExit as exc:
            code = int(exc.code or 0)
        return code, self.capsys.readouterr().out

    def models(self, *arguments: str) -> dict[str, Any]:
        return {line["model"]: line for line in json.loads(self.run(*arguments)[1])["models"]}

    def refused(self, *arguments: str) -> str:
        with pytest.raises(CommandError) as refusal:
            self.run(*arguments)
        assert refusal.value.returncode == 2
        assert self.capsys.readouterr().out == ""
        return str(refusal.value)


@pytest.fixture
def export(tmp_path: Path, capsys: pytest.CaptureFixture[str], db: None) -> Export:
    return Export(tmp_path / "usage.json", capsys)


def test_it_works(export: Export) -> None:
    row(at=MIDNIGHT, cached_tokens=40)
    row(at=MIDNIGHT + DAY - timedelta(microseconds=1))
    row(at=MIDNIGHT - timedelta(microseconds=1))
    row(at=MIDNIGHT + DAY)
    export.write(page(bucket(result(requests=2, prompt=200, cached=40, completion=20))))

    code, printed = export.run()

    figures = {"requests": 2, "prompt_tokens": 200, "cached_tokens": 40, "completion_tokens": 20}
    assert code == 0
    assert json.loads(printed) == {
        "day": "2026-11-20",
        "export": {"from": "2026-11-20T00:00:00+00:00", "to": "2026-11-21T00:00:00+00:00", "is_whole_day": True},
        "is_equal": True,
        "models": [
            {
                "model": MINI,
                "ledger_names": [MINI],
                "openai": figures,
                "ledger": figures,
                "difference": dict.fromkeys(figures, 0),
                "ledger_cost_usd": 0.000042,
            }
        ],
        "causes": {
            "abandoned_without_figures": 0,
            "failed_without_figures": 0,
            "estimated": 0,
            "estimated_tokens": 0,
            "pending": 0,
        },
    }


def test_cache_writes_are_compared_where_the_export_tells_them(export: Export) -> None:
    row(cache_write_tokens=90)
    told = {**result(), "input_cache_write_tokens": 96}
    export.write(page(bucket(result())))
    assert export.run()[0] == 0
    assert "cache_write_tokens" not in export.models()[MINI]["ledger"]

    export.write(page(bucket(told)))

    assert export.run()[0] == 1
    assert export.models()[MINI]["difference"]["cache_write_tokens"] == 6


def test_differences_are_openai_minus_ledger_for_each_model(export: Export) -> None:
    row(cached_tokens=50)
    row("o3")
    row("local", cost_nanos=None)
    export.write(page(bucket(result(requests=3, prompt=90, cached=64, completion=11), result("o3"), result("gpt-5"))))

    code, _ = export.run()
    models = export.models()

    assert code == 1
    differences = {model: tuple(line["difference"].values()) for model, line in models.items()}
    assert differences == {
        MINI: (2, -10, 14, 1),
        "o3": (0, 0, 0, 0),
        "gpt-5": (1, 100, 0, 10),
        "local": (-1, -100, 0, -10),
    }
    costs = {model: line["ledger_cost_usd"] for model, line in models.items()}
    assert costs == {MINI: 0.000021, "o3": 0.000021, "gpt-5": 0, "local": None}


@pytest.mark.parametrize("figure", ["input_tokens", "output_tokens", "input_cached_tokens", "num_model_requests"])
def test_a_difference_in_any_figure_is_one(export: Export, figure: str) -> None:
    row()
    export.write(page(bucket({**result(), figure: 7})))

    assert export.run()[0] == 1


def test_only_calls_that_were_sold_count(export: Export) -> None:
    none: dict[str, Any] = {"prompt_tokens": 0, "completion_tokens": 0, "cost_nanos": None}
    row()
    row(status="failed", error_code="internal_error")
    row(status="abandoned", error_code="superseded", is_estimated=True)
    row("gpt-4o-mini", status="failed", error_code="upstream_timeout", **none)
    row("gpt-4o-mini", status="abandoned", **none)
    row("gpt-4o-mini", status="abandoned", **none)
    for _ in range(3):
        row("gpt-4o-mini", status="pending", **none)
    export.write(page(bucket(result(requests=3, prompt=300, completion=30))))

    row("o3", status="failed", **none)

    code, printed = export.run()

    assert code == 0
    assert [line["ledger_names"] for line in json.loads(printed)["models"]] == [[MINI]]
    assert json.loads(printed)["causes"] == {
        "abandoned_without_figures": 2,
        "failed_without_figures": 2,
        "estimated": 1,
        "estimated_tokens": 110,
        "pending": 3,
    }


def test_a_completed_row_without_figures_counts_as_a_request(export: Export) -> None:
    row(prompt_tokens=0, completion_tokens=0)
    export.write(page(bucket(result(prompt=0, completion=0))))

    assert export.run()[0] == 0


@pytest.mark.parametrize(
    ("recorded", "sold", "compared"),
    [
        (["gpt-4o-mini"], [MINI], {MINI: 0}),
        (["gpt-3.5-turbo"], ["gpt-3.5-turbo-0125"], {"gpt-3.5-turbo-0125": 0}),
        # The dated one has no other to be; its own row is beside it.
        (["gpt-4o-mini", MINI], [MINI], {MINI: -1}),
        # The one that the ledger lacks.
        (["gpt-4o", "gpt-4o-2024-05-13"], ["gpt-4o-2024-05-13", "gpt-4o-2024-08-06"], None),
        # OpenAI has the alias itself, another family, or two that would do.
        (["gpt-4o-mini"], ["gpt-4o-mini", MINI], {"gpt-4o-mini": 0, MINI: 1}),
        (["gpt-4o"], [MINI], {"gpt-4o": -1, MINI: 1}),
        (
            ["gpt-4o"],
            ["gpt-4o-2024-05-13", "gpt-4o-2024-08-06"],
            {"gpt-4o": -1, "gpt-4o-2024-05-13": 1, "gpt-4o-2024-08-06": 1},
        ),
    ],
)
def test_an_alias_is_compared_as_its_dated_model(
    export: Export, recorded: list[str], sold: list[str], compared: dict[str, int] | None
) -> None:
    for model in recorded:
        row(model)
    export.write(page(bucket(*(result(model) for model in sold))))

    models = export.models()

    requests = {model: line["difference"]["requests"] for model, line in models.items()}
    assert requests == (compared or dict.fromkeys(sold, 0))


def test_an_alias_is_named(export: Export) -> None:
    row("gpt-4o-mini")
    export.write(page(bucket(result())))

    assert f"The ledger's gpt-4o-mini is compared as {MINI}." in export.run(form="table")[1]


def test_results_and_buckets_of_one_day_add_up(export: Export) -> None:
    """Hours and minutes; and results that are split by project, key or batch as well."""
    row()
    row()
    row()
    hours = [bucket(start=MIDNIGHT + timedelta(hours=hour), width=timedelta(hours=1)) for hour in range(24)]
    hours[0]["results"] = [result(), result()]
    hours[23]["results"] = [result(), result(None, requests=0, prompt=0, completion=0)]
    export.write(page(*hours))

    code, printed = export.run()

    assert code == 0
    assert json.loads(printed)["export"]["is_whole_day"]


@pytest.mark.parametrize("layout", ["lines", "pretty", "list"])
def test_several_pages(export: Export, layout: str) -> None:
    row()
    pages = [
        page(bucket(start=MIDNIGHT - DAY), next_page="page_2"),
        page(bucket(result()), next_page="page_3"),
        page(bucket(result("o3"), start=MIDNIGHT + DAY)),
    ]
    texts = {
        "lines": "\n".join(json.dumps(one) for one in pages),
        "pretty": "".join(json.dumps(one, indent=2) for one in pages),
        "list": json.dumps(pages),
    }
    export.write(texts[layout])

    assert export.run("--day=2026-11-20")[0] == 0
    assert "2026-11-19, 2026-11-20, 2026-11-21" in export.refused()


HEADER = "start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,user_id,model,batch,"
FIGURES = "input_tokens,output_tokens,input_cached_tokens"


@pytest.mark.parametrize(
    "text",
    [
        # As the dashboard writes it: minutes, a line for each key, counts with a fraction, idle minutes empty.
        HEADER + FIGURES + "\n"
        "1795132800,1795132860,2026-11-20T00:00:00+00:00,2026-11-20T00:01:00+00:00,p,1.0,,m-1,False,100.0,10.0,40\n"
        "1795132800,1795132860,2026-11-20T00:00:00+00:00,2026-11-20T00:01:00+00:00,q,1.0,,m-1,False,100.0,10.0,\n"
        "1795132860,1795132920,2026-11-20T00:01:00+00:00,2026-11-20T00:02:00+00:00,,,,,,,,\n",
        "\ufeffmodel,num_model_requests,output_tokens,input_tokens,input_cached_tokens,start_time\r\n"
        "m-1,2,20,200,40,2026-11-20T23:59:59Z\r\n",
        "start_time_iso,model,num_model_requests,output_tokens,input_tokens,input_cached_tokens\n"
        "2026-11-20,m-1,2,20,200,40\n",
        "start_time_iso,model,num_model_requests,output_tokens,input_tokens,input_cached_tokens\n"
        "2026-11-21T01:00:00+02:00,m-1,2,20,200,40\n",
    ],
)
def test_the_csv_of_the_dashboard(export: Export, text: str) -> None:
    row("m-1", cached_tokens=40)
    row("m-1")
    export.write(text)

    assert export.run()[0] == 0


def test_a_csv_without_usage_has_only_times(export: Export) -> None:
    export.write("start_time,end_time\n1795132800,1795219200\n")
    assert export.run()[0] == 0

    row()
    assert export.models()[MINI]["difference"]["requests"] == -1


def test_standard_input(export: Export, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    row()
    raw = json.dumps(page(bucket(result()))).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))

    call_command("reconcile", "-", "--format=json")

    assert json.loads(capsys.readouterr().out)["is_equal"]


def test_the_table(export: Export) -> None:
    row(status="abandoned", prompt_tokens=0, completion_tokens=0)
    row(prompt_tokens=1_234_000, is_estimated=True, cost_nanos=None)
    export.write(page(bucket(result(prompt=1_234_567), width=DAY / 2)))

    code, printed = export.run(form="table")

    assert code == 1
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    assert [MINI, "prompt", "1,234,567", "1,234,000", "567"] in lines
    assert [MINI, "cost_usd", "–", "–", "–"] in lines
    assert "2026-11-20T00:00:00+00:00 to 2026-11-20T12:00:00+00:00" in printed
    assert "abandoned without figures: 1 " in printed
    assert "estimated figures: 1, of 1,234,010 tokens" in printed


def test_csv_is_all_that_is_on_stdout(export: Export, capsys: pytest.CaptureFixture[str]) -> None:
    row()
    export.write(page(bucket(result(prompt=107))))

    with pytest.raises(SystemExit) as end:
        call_command("reconcile", str(export.path), "--format=csv")

    printed = capsys.readouterr()
    rows = {line["figure"]: line for line in csv.DictReader(io.StringIO(printed.out))}
    assert end.value.code == 1
    assert rows["prompt_tokens"] == {
        "model": MINI,
        "figure": "prompt_tokens",
        "openai": "107",
        "ledger": "100",
        "difference": "7",
    }
    assert rows["cost_usd"]["ledger"] == "2.1e-05"
    assert "still pending: 0" in printed.err


def test_the_ledger_is_read_once_over_the_index(export: Export) -> None:
    row()
    export.write(page(bucket(result())))

    with CaptureQueriesContext(
        connection,
    ) as queries:
        export.run()

    # Whether the day was purged, and its rows.
    _, query = queries.captured_queries
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {query['sql']}")
            plan = " ".join(str(step) for step in cursor.fetchall())
        assert "usage_created (created_at>? AND created_at<?)" in plan


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "neither JSON nor CSV"),
        ("not an export", "neither JSON nor CSV"),
        ("{broken", "neither JSON nor CSV"),
        ("[" * 100_000, "neither JSON nor CSV"),
        ("[]", "holds no buckets"),
        (page(), "holds no buckets"),
        ("3", "neither JSON nor CSV"),
        ([3], "list `data`"),
        ({"error": {"message": "Missing scopes: api.usage.read."}}, "Missing scopes: api.usage.read."),
        (page({"start_time": 1795132800, "end_time": 1795219200}), "list `results`"),
        (page({"start_time": "soon", "end_time": 1795219200, "results": []}), "'soon' is no start_time"),
        (page({"start_time": 10**30, "end_time": 1795219200, "results": []}), "is no start_time"),
        (page({"start_time": [1], "end_time": 1795219200, "results": []}), "[1] is no start_time"),
        (page(bucket(start=MIDNIGHT + timedelta(hours=1))), "straddles a UTC midnight"),
        (page(bucket(width=DAY + timedelta(seconds=1))), "straddles a UTC midnight"),
        (page(bucket(), next_page="page_AAA"), "page=page_AAA"),
        ([page(bucket()), page(bucket())], "there twice"),
        (page(bucket(result(None))), "group_by=model"),
        (page(bucket({**result(), "model": 3})), "group_by=model"),
        ("start_time,model,num_model_requests,input_tokens,output_tokens\n1795132800,,1,2,3\n", "group_by=model"),
        (page(bucket({"model": "m", "amount": {"value": 1}})), "lacks input_tokens, num_model_requests, output_tokens"),
        (page(bucket({**result(), "input_tokens": "many"})), "'many' is no count of input_tokens"),
        (page(bucket({**result(), "input_tokens": [3]})), "[3] is no count of input_tokens"),
        (page(bucket({**result(), "input_tokens": 10**400})), "is no count of input_tokens"),
        (page(bucket({**result(), "input_tokens": 1.5})), "1.5 is no count of input_tokens"),
        (page(bucket({**result(), "input_tokens": -1})), "-1 is no count of input_tokens"),
        (page(bucket({**result(), "input_tokens": float("inf")})), "inf is no count of input_tokens"),
        ("start_time,amount\n1795132800,3\n", "lacks input_tokens, model"),
        ("start_time,model\n,m\n", "None is no start_time"),
        ("start_time,model\n" + "x" * 200_000 + ",m\n", "cannot be read after line 1"),
        ("x" * 200_000, "cannot be read after line 0"),
    ],
)
def test_a_bad_export_is_refused(export: Export, content: Any, said: str) -> None:
    export.write(content)

    assert said in export.refused()


def test_bad_arguments_are_refused(export: Export) -> None:
    assert "usage.json cannot be read" in export.refused()

    export.path.write_bytes(b"\xff\xfe")
    assert "cannot be read as text" in export.refused()

    export.write(page(bucket()))
    assert "does not hold 2026-11-21" in export.refused("--day=2026-11-21")
    with pytest.raises(CommandError, match="YYYY-MM-DD"):
        export.run("--day=yesterday")
