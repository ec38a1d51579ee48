"""`lumiere compare` and `study create --model`: three families, one of them from pictures; errors of one line."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from comparison_tools import PROMPTS, ages, prompt_file

from openlumiere.cli import main
from openlumiere.evaluation.protocols.distributions import FVDSettings, fvd
from openlumiere.study.pairs import load_study
from openlumiere.video import read_metadata
from study_tools import PROMPTS as STUDY_PROMPTS
from study_tools import folder_of
from tiny_backends import save_svd
from tiny_features import LikeI3D, torchscript
from tiny_transformers import save_wan

pytestmark = pytest.mark.slow

FAST = ("--frames", "5", "--steps", "2", "--device", "cpu")


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models that are told a prompt, and one that is not: to read only."""
    root = tmp_path_factory.mktemp("families")
    return {"Wan": save_wan(root / "wan"), "SVD": save_svd(root / "svd")}


def test_three_families_side_by_side(
    model: str, families: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pika = folder_of(tmp_path / "pika", PROMPTS, frames=5)
    config = tmp_path / "compare.yaml"
    config.write_text(
        f"models:\n- {{name: Ours, model: {model}, num_frames: 8}}\n- {{name: SVD, model: {families['SVD']}}}\n"
        f"- {{name: Pika, clips: {pika}}}\n- {{name: Wan, model: {families['Wan']}, size: 32x32}}\n"
    )
    words = [
        "compare", "--config", str(config), "--picture-from", "Wan", "--prompts", str(prompt_file(tmp_path)),
        "--study", "Ours", "-o", str(tmp_path / "out"), *FAST,
    ]  # fmt: skip
    assert main(words) == 0
    printed = capsys.readouterr().out
    before = ages(tmp_path / "out")
    assert len([name for name in before if not name.startswith("study")]) == 8
    report = json.loads((tmp_path / "out" / "comparison.json").read_text())
    entries = {entry["name"]: entry for entry in report["entries"]}
    assert {name: entry["text"] for name, entry in entries.items()} == {
        "Ours": True, "SVD": False, "Wan": True, "Pika": True,
    }  # fmt: skip
    assert entries["Wan"]["facts"]["licence"] == [entries["Wan"]["licence"]] == ["apache-2.0"]
    assert entries["SVD"]["starts_from"] == "Wan"
    assert all(entry["clips"] == 2 for entry in entries.values())
    assert entries["SVD"]["facts"]["model"] == [str(families["SVD"])]
    assert not read_metadata(tmp_path / "out" / "svd" / "a-red-ball-0.mp4")["prompt"]
    rows = list(csv.DictReader((tmp_path / "out" / "measures.csv").open()))
    assert {row["name"] for row in rows if row["measure"] == "motion"} == set(entries)
    assert "Ours" in (tmp_path / "out" / "index.html").read_text()

    study = load_study(tmp_path / "out" / "study")
    assert {name: baseline.questions for name, baseline in study.baselines.items()} == {
        "SVD": ("quality",), "Wan": ("quality", "text"), "Pika": ("quality", "text"),
    }  # fmt: skip
    assert {pair.prompt for pair in study.pairs if pair.baseline == "SVD"} == set(PROMPTS)
    assert f"lumiere study serve {study.folder}" in printed

    assert main(words) == 0  # nothing is made twice, and the study stays
    assert ages(tmp_path / "out") == before


def test_the_distance_from_real_clips(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    real = folder_of(tmp_path / "real", frames=18, fps=16)
    same, short = tmp_path / "same", folder_of(tmp_path / "short", frames=5)
    shutil.copytree(real, same)
    prompts = ("--prompts", str(prompt_file(tmp_path, STUDY_PROMPTS)), "--frames", "16", *FAST[2:])
    models = ("--models", f"Ours={model}", f"Same={same}", f"Short={short}", "--real", str(real))
    i3d = torchscript(LikeI3D(), tmp_path / "i3d.pt")

    def distances(*words: str) -> dict[str, dict[str, Any]]:
        assert main(["compare", *models, *prompts, "-o", str(tmp_path / "out"), *words]) == 0
        report = json.loads((tmp_path / "out" / "comparison.json").read_text())
        assert "index.html" in capsys.readouterr().out
        return {entry["name"]: entry["fvd"] for entry in report["entries"]}

    file = ("--features-file", str(i3d))
    assert main(["compare", *models, *prompts, "-o", str(tmp_path / "none"), *file]) == 2
    digest = hashlib.sha256(i3d.read_bytes()).hexdigest()
    assert f"with --features-sha256 {digest}" in capsys.readouterr().err
    for name, words in {
        "FVD-emoji": ("--features", "emoji"), f"FVD-{digest[:8]}": (*file, "--features-sha256", digest),
    }.items():  # fmt: skip
        found = distances(*words)
        assert found["Ours"]["metric"] == found["Same"]["metric"] == name
        assert found["Ours"]["clips"] == found["Same"]["clips"] == {"real": 4, "generated": 4}
        assert found["Same"]["value"] == pytest.approx(0, abs=1e-3 * found["Ours"]["value"])
        settings = FVDSettings(
            features=words[1] if words[0] == "--features" else "i3d", size=None if "emoji" in words else 256,
            features_file=None if "emoji" in words else i3d, features_sha256=None if "emoji" in words else digest,
        )  # fmt: skip
        alone = fvd(str(real), str(tmp_path / "out" / "ours"), None, settings)
        assert found["Ours"]["value"] == pytest.approx(alone.value, rel=1e-6)
        assert found["Ours"]["protocol"]["num_frames"] == 16
        assert "too short: 5 of 16 frames" in found["Short"]["failed"]
    rows = list(csv.DictReader((tmp_path / "out" / "measures.csv").open()))
    assert [row["name"] for row in rows if row["measure"] == f"FVD-{digest[:8]}"] == ["Ours", "Same"]


def test_a_study_makes_the_clips_of_its_models(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pika = folder_of(tmp_path / "pika", PROMPTS, frames=5)
    words = [
        "study", "create", "--model", model, "--baseline", f"Few={model}", "--baseline", f"Pika={pika}",
        "--checks", "1", "-o", str(tmp_path / "study"), *FAST[2:],
    ]  # fmt: skip
    assert main(words) == 2
    assert "say what the models are asked for: --prompts FILE" in capsys.readouterr().err
    assert main([*words, "--frames", "8", "--prompts", str(prompt_file(tmp_path))]) == 0
    study = load_study(tmp_path / "study")
    assert {name: baseline.pairs for name, baseline in study.baselines.items()} == {"Few": 2, "Pika": 2}
    assert len(ages(tmp_path / "study.clips")) == 4
    assert main([*words, "--prompts", str(prompt_file(tmp_path))]) == 2
    assert f"{tmp_path / 'study'} exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--models", "emoji"), "say what to show: --prompts FILE"),
        (("--prompts", "PROMPTS"), "nothing to compare; name models"),
        (("--models", "nothing", "--prompts", "PROMPTS"), "nothing: unknown model 'nothing'"),
        (("--models", "emoji", "emoji", "--prompts", "PROMPTS"), "two entries of one name, 'emoji'"),
        (("--models", "emoji", "--prompts", "none.txt"), "cannot read the prompts from none.txt"),
        (("--models", "emoji", "--prompts", "PROMPTS", "--study", "Ours"), "nothing is named 'Ours'"),
        (("--models", "emoji", "--prompts", "PROMPTS", "--real", "none"), "there are no real clips in none"),
        (("--models", "SVD", "--prompts", "PROMPTS"), "SVD makes no clip of a prompt alone; say what it starts from"),
        (("--models", "PIKA", "--prompts", "PROMPTS"), "no clip in"),
    ],
)  # fmt: skip
def test_errors_are_one_line(
    words: tuple[str, ...], said: str, families: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pika = folder_of(tmp_path / "pika", ("something else",), frames=3)
    named = {"PROMPTS": str(prompt_file(tmp_path)), "SVD": f"SVD={families['SVD']}", "PIKA": f"Pika={pika}"}
    assert main(["compare", *(named.get(word, word) for word in words), "-o", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
    assert not (tmp_path / "out").exists()
