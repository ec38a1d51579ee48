"""The wheel holds all that the checkout holds, and what is installed from it finds the bundled weights."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import openlumiere

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def _files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_is_complete(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"openlumiere/{name}" for name in _files(ROOT / "src" / "openlumiere")}
    models = {f"openlumiere/models/{name}" for name in _files(ROOT / "models")}
    assert {"openlumiere/py.typed", "openlumiere/data/vocabulary.yaml"} <= expected
    assert any(name.endswith(".safetensors") for name in models)
    packaged = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert packaged == expected | models
    assert any(name.endswith("/LICENSE") for name in names)
    assert any(name.endswith("/NOTICE") for name in names)


def test_installed_wheel_lists_its_own_models(wheel: Path, tmp_path: Path) -> None:
    # A bare environment that borrows this one's dependencies, but not this checkout: .pth files are not followed twice.
    home = tmp_path / "venv"
    venv.create(home, symlinks=True)
    scheme = {"base": str(home), "platbase": str(home)}
    python = Path(sysconfig.get_path("scripts", "venv", scheme)) / "python"
    site = Path(sysconfig.get_path("purelib", "venv", scheme))
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")

    done = subprocess.run(
        [str(python.with_name("lumiere")), "models"], cwd=tmp_path, env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # Indented lines tell more of the model above them.
    lines = [line.split() for line in done.stdout.splitlines() if not line.startswith(" ")]
    listed = {words[0]: Path(words[-1]) for words in lines}
    assert set(listed) == {path.parent.name for path in (ROOT / "models").glob("*/model_index.json")}
    for name, folder in listed.items():
        assert folder.is_relative_to(site)
        assert _files(folder) == _files(ROOT / "models" / name)


def test_versions_agree_and_dependencies_are_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == openlumiere.__version__
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *(item for extra in extras.values() for item in extra)]:
        assert "==" in requirement or requirement.startswith("openlumiere[")
    decisions = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8").lower()
    for requirement in project["dependencies"]:
        name = re.split("==", requirement)[0]
        assert re.sub("torch", "pytorch", name) in decisions or name in decisions


def test_public_names_are_lazy() -> None:
    code = "import sys, openlumiere; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert openlumiere.STUNet.__name__ == "STUNet"
    assert openlumiere.LumierePipeline.__name__ == "LumierePipeline"
    with pytest.raises(AttributeError, match="Nothing"):
        _ = openlumiere.Nothing


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_never_asks_for_cuda_without_a_gpu(tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
        pytest.skip("there is a GPU here")
    command = ["make", "--dry-run", "--no-print-directory", f"VENV={tmp_path}/venv", "demo"]
    # Without the flags that `make test` itself hands down.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    first = next(line for line in done.stdout.splitlines() if "pip install" in line)
    assert re.search(r"torch==[\d.]+\+cpu", first) or sys.platform != "linux"
    assert "lumiere generate" in done.stdout.splitlines()[-1]
