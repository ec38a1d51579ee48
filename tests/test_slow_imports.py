"""What takes seconds to import comes in while the garbage collector rests, and that works again afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT = """
import gc
runs = 0
def count(phase, info):
    global runs
    runs += phase == "start"
gc.callbacks.append(count)
import openlumiere.pipelines.load
print(runs, gc.isenabled(), len([[] for _ in range(10**5)]) and runs)
"""


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_rests_meanwhile_and_is_as_it_was_afterwards(enabled: bool) -> None:
    code = COUNT if enabled else f"import gc; gc.disable()\n{COUNT}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    during, is_enabled, later = done.stdout.split()
    assert is_enabled == str(enabled)
    assert int(during) < 300  # 1 300 otherwise
    assert (int(later) > int(during)) == enabled
