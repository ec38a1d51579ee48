"""`lumiere evaluate steps`: several models at several numbers of steps, in one table and one plot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import tiny
from openlumiere.errors import LumiereError
from openlumiere.evaluation.protocols.emoji import EmojiSettings
from openlumiere.evaluation.protocols.steps import evaluate_steps, markdown
from tiny_judges import hasty_judges, square

SUBJECTS = ("tiger", "heart")


@pytest.mark.slow
def test_models_are_compared_by_their_steps(tmp_path: Path) -> None:
    pipe = tiny.conditioned()
    pipe.register_to_config(subjects=list(SUBJECTS))
    models = [str(tiny.saved(pipe, tmp_path / "teacher")), str(tmp_path / "student")]
    pipe.register_to_config(guidance_scale=1.0)
    pipe.save_pretrained(models[1])
    atlases = {key: square(key) for key in SUBJECTS}
    judges = hasty_judges(atlases, tmp_path / "judges", num_frames=16)
    settings = EmojiSettings(clips=2, num_frames=16, size=16, splits=("train", "combinations"))

    def run(*steps: int) -> dict:
        return evaluate_steps(
            models, steps, atlases, tmp_path / "out", settings, judges=judges, device="cpu", progress=False
        )

    report = run(2, 1)
    points = report["points"]
    assert [(each["model"], each["steps"]) for each in points] == [(m, s) for m in models for s in (2, 1)]
    assert {each["guidance_scale"] for each in points[2:]} == {1.0}
    for point in points:
        folder = tmp_path / "out" / f"model-{models.index(point['model']) + 1}" / f"{point['steps']}-steps"
        of = json.loads((folder / "report.json").read_text())
        assert of["protocol"]["num_inference_steps"] == point["steps"]
        right = sum(split["model"]["subject"]["right"] for split in of["splits"].values())
        assert point["subject"]["accuracy"] == right / 4
        assert point["amplitude"] is None or point["amplitude"] >= 0
    assert json.loads((tmp_path / "out" / "steps.json").read_text()) == json.loads(json.dumps(report))
    assert len([line for line in markdown(report).splitlines() if line.startswith("| ")]) == 2 + len(points)
    with Image.open(tmp_path / "out" / "steps.png") as plot:
        assert plot.width > 1000
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/*/clips/*.npy")}
    assert len(made) == len(points) * 4
    assert run(2, 1, 4)["points"][:2] == points[:2]
    assert {path: path.stat().st_mtime_ns for path in made} == made
    with pytest.raises(LumiereError, match="each once, and numbers above 0"):
        run(2, 2)
