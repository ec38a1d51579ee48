"""Broken files through the API, by the script that sends 2 000 of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz_uploads.py"


@pytest.mark.slow
def test_broken_files_cost_one_line_each_and_leave_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--count", "80", "--seed", "5", "-o", str(tmp_path / "found.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    found = json.loads((tmp_path / "found.json").read_text())
    assert (done.returncode, found["wrong"], found["left"]) == (0, [], []), done.stderr
    assert "Traceback" not in done.stderr
    assert sum(found["statuses"].values()) == 80
    assert {"200", "400"} <= set(found["statuses"])
