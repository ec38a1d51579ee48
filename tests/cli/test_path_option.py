"""`--path` and `--no-planner` of the commands that make clips."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tiny
from openlumiere.cli import main
from openlumiere.generation.recipe import Recipe
from openlumiere.pipelines.text import MINILM
from openlumiere.video import read_clip, read_metadata

pytestmark = pytest.mark.slow  # clips are made

OPTIONS = ["--frames", "8", "--steps", "1", "--seed", "3", "--no-upscale", "-o", "out.webp"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, str]:
    """A model that is told where its subject is, with a planner, and one that is not."""
    root = tmp_path_factory.mktemp("models")
    for layout in (True, False):
        pipe = tiny.conditioned(layout=layout)
        pipe.register_to_config(text_encoder_id=MINILM)
        pipe.save_pretrained(root / str(layout))
    return {layout: str(root / str(layout)) for layout in (True, False)}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generate(model: str, *words: str) -> np.ndarray:
    assert main(["generate", "a tiger", "--model", model, *OPTIONS, *words]) == 0
    return read_clip("out.webp").frames


def test_a_path_changes_the_clip_and_is_remembered(models: dict[bool, str], capsys: Any) -> None:
    planned, straight = generate(models[True]), generate(models[True], "--path", "0.1,0.5 0.9,0.5")
    late = generate(models[True], "--path", "0.1,0.5@0.6 0.9,0.5")
    assert not np.array_equal(late, straight)
    alone = generate(models[True], "--path", "0.1,0.5,0.3 0.5,0.5,0.6@0.2 0.9,0.5,1.1", "--no-planner")
    assert not np.array_equal(planned, straight)
    assert not np.array_equal(alone, straight)
    assert main(["info", "out.webp"]) == 0
    command = capsys.readouterr().out.splitlines()[-1].split(maxsplit=1)[1]
    assert "--no-planner" in command
    Path("out.webp").unlink()
    assert main(shlex.split(command)) == 0
    np.testing.assert_array_equal(read_clip("out.webp").frames, alone)


def test_a_picture_moves_along_a_path(models: dict[bool, str], capsys: Any) -> None:
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save("photo.png")
    words = ["animate", "photo.png", "a tiger", "--model", models[True], *OPTIONS, "--path"]
    assert main([*words, "0.2,0.2 0.8,0.8"]) == 0
    one = read_clip("out.webp").frames
    recipe = Recipe.from_metadata(read_metadata("out.webp"), "again.webp")
    assert recipe is not None
    assert main(shlex.split(recipe.command())[1:]) == 0
    np.testing.assert_array_equal(read_clip("again.webp").frames, one)
    assert main([*words, "0.8,0.2"]) == 0
    assert not np.array_equal(read_clip("out.webp").frames, one)


def test_clips_made_before_there_were_paths_can_be_made_again(models: dict[bool, str]) -> None:
    generate(models[False])
    metadata = read_metadata("out.webp")
    del metadata["layout"]
    recipe = Recipe.from_metadata(metadata)
    assert recipe is not None
    assert "--path" not in recipe.command()


@pytest.mark.parametrize(
    ("layout", "path", "says"),
    [
        (True, "left", "not a path"),
        (True, "0.1,0.5;0.9,0.5", "not a path"),
        (True, "", "way point"),
        (True, "0.1", "x,y"),
        (True, "0.1,0.2@", "not a path"),
        (True, "0.1,0.2@2", "times of way points"),
        (True, "0.1,0.2 0.3,0.4,0.5", "alike"),
        (True, "0.1,1.2", "outside the frame"),
        (True, "0.1,0.2,-1", "size"),
        (False, "0.1,0.5", "is not told where its subject goes"),
    ],
)
def test_paths_that_cannot_be_used_are_one_line(
    models: dict[bool, str], layout: bool, path: str, says: str, capsys: Any
) -> None:
    try:
        code = main(["generate", "a tiger", "--model", models[layout], *OPTIONS, f"--path={path}"])
    except SystemExit as error:
        code = int(error.code or 0)
    assert code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("lumiere: error:")
    assert says in line
    assert not Path("out.webp").exists()
