"""A real Prometheus on what is deployed with it: the alerts with their unit tests, and each query on a real server."""

import json
import math
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.openai_double import Behaviour, OpenAIDouble
from conftest import Server, reserved_port, wait_until
from llmapi.launch import ROOT
from llmapi.tests.test_observe import DEPLOY

pytestmark = pytest.mark.observe
FILES = DEPLOY / "prometheus"
HI = {"messages": [{"role": "user", "content": "Hi"}]}
SELECTOR = re.compile(r"\b(?:llmapi_[a-z_]+|up)(?:\{[^}]*\})?")
CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: llmapi
    static_configs: [{{targets: ["{server}"]}}]
"""


@pytest.mark.parametrize(
    "command", ["check config prometheus.yml", "check rules alerts.yaml", "test rules alerts_test.yaml"]
)
def test_promtool_takes_the_files(command: str) -> None:
    done = subprocess.run(["promtool", *command.split()], cwd=FILES, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, query: str) -> list[float]:
        return [float(series["value"][1]) for series in self.get("/api/v1/query", query=query)["result"]]


@pytest.fixture
def prometheus(serve: Callable[..., Server], upstream: OpenAIDouble, tmp_path: Path) -> Iterator[Prometheus]:
    """It has scraped a server some times while that had turns."""
    server = serve(WEB_CONCURRENCY="2", METRICS_PUBLIC="true")
    config = tmp_path / "prometheus.yml"
    config.write_text(CONFIG.format(rules=FILES / "alerts.yaml", server=server.url.removeprefix("http://")))
    with reserved_port() as port:
        listen, files = f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={tmp_path / 'data'}"
        command = [str(shutil.which("prometheus")), f"--config.file={config}", listen, files, "--log.level=error"]
        process = subprocess.Popen(command, cwd=ROOT)
        try:
            found = Prometheus(f"http://127.0.0.1:{port}")
            wait_until(lambda: is_ready(found))
            for _ in range(8):
                upstream.plan(*[Behaviour(text="one two three")] * 2, Behaviour(status=500))
                for body in (HI, {**HI, "stream": True}, HI):
                    server.post("/v1/chat/completions", body)
                time.sleep(0.5)
            wait_until(lambda: found.values('sum(llmapi_turn_seconds_count{status="completed"})') == [16])
            # Totals of the ledger have other names.
            wait_until(lambda: found.values('sum(llmapi_turns_total{status="completed"})') == [16])
            yield found
        finally:
            process.kill()
            process.wait()


def is_ready(prometheus: Prometheus) -> bool:
    try:
        return prometheus.values("min(up)") == [1]
    except urllib.error.URLError:
        return False


def test_each_query_finds_series(prometheus: Prometheus) -> None:
    panels = json.loads((DEPLOY / "grafana" / "llmapi.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    queries = [query.replace("$job", "llmapi").replace("$__rate_interval", "30s") for query in queries]
    found = {query: prometheus.values(query) for query in queries}

    assert len(found) > 25
    assert [query for query, values in found.items() if not values or all(map(math.isnan, values))] == []

    rules = [rule for group in prometheus.get("/api/v1/rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(re.findall("alert: ", (FILES / "alerts.yaml").read_text()))
    assert [rule for rule in rules if rule["health"] != "ok" or rule.get("lastError")] == []
    selectors = {selector for rule in rules for selector in SELECTOR.findall(rule["query"])}
    assert len(selectors) > 12
    assert [selector for selector in selectors if not prometheus.values(selector)] == []
    # A third of the turns have failed.
    assert "LlmapiTurnsFailing" in {rule["name"] for rule in rules if rule["state"] != "inactive"}
