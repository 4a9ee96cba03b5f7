"""The unit file, as systemd reads it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.tests.conftest import DEPLOY
from llmapi.launch import ROOT

pytestmark = pytest.mark.deploy


def test_systemd_takes_the_unit_and_finds_it_safe() -> None:
    unit = Path("/etc/systemd/system/llmapi.service")
    shutil.copy(DEPLOY / "llmapi.service", unit)
    Path("/opt/llmapi").symlink_to(ROOT)

    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")

    # Exposure in tenths, of 100; a service of which the unit says nothing has 96.
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", str(unit)]
    looked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert looked.returncode == 0, looked.stdout
