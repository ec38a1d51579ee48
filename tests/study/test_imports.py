"""The study needs neither torch nor the evaluation, so that its server starts at once and runs where no model does."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from openlumiere import study


@pytest.mark.slow
def test_the_study_imports_no_torch_and_no_evaluation() -> None:
    modules = [f"openlumiere.study.{module.name}" for module in pkgutil.iter_modules(study.__path__)]
    assert "openlumiere.study.statistics" in modules
    code = f"""
import importlib, sys
for name in {modules}:
    importlib.import_module(name)
heavy = [name for name in sys.modules if name.partition(".")[0] == "torch" or name.startswith("openlumiere.evaluation")]
assert not heavy, heavy[:5]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
