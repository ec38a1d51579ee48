"""Every task of every kind of model, by its command: a file of the right length and size; others are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from openlumiere.cli import main
from openlumiere.generation.backends.find import read_abilities
from openlumiere.generation.options import size_text
from openlumiere.video import read_clip, read_metadata
from tiny_families import EVERY_TASK, FAMILIES, Small, saved_in

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    return saved_in(tmp_path_factory.mktemp("families"))


def words_of(task: str, small: Small) -> list[str]:
    """A task's own words."""
    picture, clip = small.files.picture, small.files.clip
    length = ["--frames", str(small.num_frames)]
    return {
        "generate": ["a red heart", *length],
        "animate": [picture, "a red heart", *length],
        "cinemagraph": [picture, "a red heart", "--box", "0,0,0.5,1", "--no-loop", *length],
        "inpaint": [clip, "a red heart", "--box", "0,0,0.5,1"],
        "outpaint": [clip, "a red heart", "--to", "2:1"],
        "restyle": [clip, "a red heart", "--strength", "0.5"],
        "extend": [clip, "a red heart", "--frames", "4"],
        "interpolate": [clip, "a red heart", "--factor", "2"],
    }[task]


@pytest.mark.parametrize("task", EVERY_TASK)
@pytest.mark.parametrize("name", FAMILIES)
def test_command(
    name: str, task: str, models: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = models(name)
    able = read_abilities(model)
    small, output = Small.of(able, tmp_path), tmp_path / "made.webp"
    options = ["-o", str(output), "--model", model, "--size", size_text(small.size), "--steps", "2", "--seed", "1"]
    last = ["--last", small.files.last] if task == "animate" and able.last_frame else []
    capsys.readouterr()  # of saving
    code = main([task, *words_of(task, small), *last, *options, "--device", "cpu"])
    printed = capsys.readouterr()
    if task not in able.tasks:
        assert code == 2
        assert f"{model} cannot {task}: it can {', '.join(able.tasks)}; models that can: " in printed.err
        assert printed.err.count("\n") == 1
        assert not output.exists()
        return
    assert code == 0, printed.err
    frames, told = read_clip(output).frames, read_metadata(output)
    assert len(frames) == small.length(task)
    width, height = small.size
    assert frames.shape[1] / frames.shape[2] == (height / (2 * height) if task == "outpaint" else height / width)
    assert told["licence"] == able.licence != ""
    assert told["prompt"] == ("a red heart" if able.prompt else "")
    assert (told.get("task", "generate"), told["seed"], told["num_inference_steps"]) == (task, 1, 2)


def test_a_model_between_two_pictures_wants_both(
    models: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = models("Wan 2.1 FLF2V")
    small, output = Small.of(read_abilities(model), tmp_path), tmp_path / "made.webp"
    capsys.readouterr()
    assert main(["animate", small.files.picture, "-o", str(output), "--model", model]) == 2
    line = f"lumiere: error: --last: {model} makes clips between two pictures; say what the clip ends with\n"
    assert capsys.readouterr().err == line
    assert main(["models", model]) == 0
    assert "a last frame, always" in " ".join(capsys.readouterr().out.split())
