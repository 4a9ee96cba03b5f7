"""The parts of the rehearsal: the later version, the file of the proxy, and which failures are excused."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.rehearsal import proxy, report, trees
from bench.rehearsal.clients import Turn
from bench.talkers import Received
from llmapi.launch import ROOT

LOG = """\
1000.500 1.000 502 "127.0.0.1:1" "in flight"
1000.500 0.100 502 "127.0.0.1:1" "began later"
999.000 1.000 200 "127.0.0.1:1" "ended before"
1000.500 1.000 200 "127.0.0.1:2" "on the other node"
1000.500 1.000 502 "127.0.0.1:2, 127.0.0.1:1" "passed on"
1000.500 1.000 200 "127.0.0.1:1" "-"
"""


def test_only_turns_in_flight_on_the_killed_node_are_excused() -> None:
    excused = proxy.in_flight(LOG, "127.0.0.1:1", 1000.0)
    assert excused == {"in flight", "passed on"}

    turns = [Turn("c", key, is_stream=False, failures=["502"]) for key in ("in flight", "on the other node")]
    turns.append(Turn("c", "whole", is_stream=False, received=Received("c", "whole", "r", "text")))
    assert report.failed(turns, excused) == ["on the other node: 502"]


def test_the_table_counts_by_step() -> None:
    turns = [
        Turn("c", "a", is_stream=False, step="one", seconds=1, sdk_retries=2),
        Turn("c", "b", is_stream=True, step="one", seconds=4, failures=["502", "409"]),
        Turn("c", "c", is_stream=True, step="two", seconds=2),
    ]
    assert report.table_of_steps(["one", "two"], turns).splitlines()[2:] == [
        "| one | 2 | 1 | 1 | 2.5 s | 4.0 s |",
        "| two | 1 | 0 | 0 | 2.0 s | 2.0 s |",
    ]


def test_the_proxys_file_has_both_nodes() -> None:
    text = (ROOT / "deploy/nginx.conf").read_text()

    site = proxy.site_of(text, Path("/scratch"), 8443, [1, 2])

    assert "server 127.0.0.1:1 max_fails=0;\n    server 127.0.0.1:2 max_fails=0;" in site
    assert "letsencrypt" not in site
    with pytest.raises(SystemExit, match="must follow it"):
        proxy.site_of("upstream llmapi {}", Path("/scratch"), 8443, [1, 2])


def test_the_later_version_can_be_made_of_this_one(tmp_path: Path) -> None:
    for path, names in trees.MODELS.items():
        file = tmp_path / Path(path).name
        file.write_text((ROOT / path).read_text())
        for name in names:
            trees.add_column(file, name)
        assert file.read_text().count(trees.COLUMN) == len(names)
        subprocess.run([sys.executable, "-m", "py_compile", str(file)], check=True)
    with pytest.raises(SystemExit, match="must follow it"):
        trees.add_column(file, "Nothing")
