"""`lumiere train`: which configuration is trained, and what the command changes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from openlumiere.bundled import bundled_folder
from openlumiere.cli import main

pytestmark = pytest.mark.slow  # whole runs

# An empty folder, so that a run ends after it has written down its settings.
NOWHERE = "nowhere"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration of each of some stages, named after it, and a plan; runs go to ``runs/STAGE``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    settings: dict[str, dict[str, Any]] = {
        "t2i": tiny.TRAINING | {"data": {"folder": NOWHERE}},
        "t2v": {"stage": "t2v", "model": {"t2i": NOWHERE}},
        "style": {"stage": "style", "model": {"t2i": NOWHERE}, "data": {"folder": "pictures"}},
        "plan": {"stages": [{"config": "t2i.yaml"}]},
    }
    for folder in (NOWHERE, "other"):
        (tmp_path / folder).mkdir()
    for name, tree in settings.items():
        output = {} if name == "plan" else {"output": f"runs/{name}"}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(tree | output), encoding="utf-8")
    return tmp_path


def written(run: str) -> dict[str, Any]:
    """The settings that a run wrote down."""
    tree: dict[str, Any] = yaml.safe_load((Path(run) / "config.yaml").read_text(encoding="utf-8"))
    return tree


def test_a_configuration_suffices_and_its_stages_name_may_stand_before_it(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["t2i.yaml", "seed=5"], ["t2i", "--config", "t2i.yaml", "seed=6"], ["t2i.yaml", "--no-resume"]):
        assert main(["train", *words]) == 2
        assert f"no shards in {NOWHERE}" in capsys.readouterr().err
        assert written("runs/t2i")["seed"] == int(dict(w.split("=") for w in words if "=" in w).get("seed", 3))
    assert [path.name for path in (files / "runs").iterdir()] == ["t2i"]


def test_what_the_command_says_counts_more_than_the_file(files: Path) -> None:
    assert main(["train", "t2i.yaml", "-o", "2024", "seed=5"]) == 2
    assert (written("2024")["output"], written("2024")["seed"]) == ("2024", 5)
    assert main(["train", "t2v", "--config", "t2v.yaml", "--model", "other", "-o", "clips"]) == 2
    assert written("clips")["model"]["t2i"] == "other"
    assert main(["train", "style.yaml", "--model", "emoji", "--images", "drawings", "-o", "mine"]) == 2
    assert written("mine")["model"]["t2i"] == str(bundled_folder("emoji"))
    assert written("mine")["data"]["folder"] == "drawings"
    assert not (files / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["t2i.yaml", "--model", "emoji"], "stage t2i starts from no model: leave --model out"),
        (["t2v.yaml", "--images", "x"], "--images is for styles; what stage t2v is trained on: data.folder=FOLDER"),
        (["t2i", "--config", "t2v.yaml"], "t2v.yaml is for stage t2v: say lumiere train t2v.yaml"),
        (["plan", "--config", "t2v.yaml"], "t2v.yaml is for stage t2v: say lumiere train t2v.yaml"),
        (["t2i", "--config", "plan.yaml"], "plan.yaml is a plan of several stages: say lumiere train plan.yaml"),
        (["t2i.yaml", "--config", "t2v.yaml"], "two configurations, t2i.yaml and t2v.yaml: leave --config out"),
        (["t2i"], "t2i needs a configuration: lumiere train FILE, see configs/"),
        (["plan"], "plan needs a configuration: lumiere train FILE, see configs/"),
        (["none.yaml"], "cannot read the configuration none.yaml: No such file or directory"),
        (["style"], "a style needs --images PATH and -o FOLDER, or a configuration: lumiere train FILE"),
        (["t2i.yaml", "--minutes", "3"], "--minutes is for plans of several stages"),
        (["t2i.yaml", "--unpack"], "--unpack is for plans of several stages"),
        (["plan.yaml", "-o", "x"], "plan.yaml is a plan, which knows no --output; leave it out"),
        (["plan.yaml", "--no-resume"], "plan.yaml is a plan, which knows no --no-resume; leave it out"),
        (["plan.yaml", "--unpack"], "--unpack needs --state FOLDER"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    files: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"lumiere: error: {message}")
    assert not (files / "runs").exists()
