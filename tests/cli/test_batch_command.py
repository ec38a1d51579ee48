"""`lumiere generate --prompts`: what fails is listed and stops nothing; clips go to a folder or an address."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import tiny
from batch_tools import Shelf
from openlumiere.cli import main

pytestmark = pytest.mark.slow

Lumiere = Callable[..., int]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.saved(tiny.conditioned(), tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def generate(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lumiere:
    """Make three clips, as from a terminal in an empty folder."""
    monkeypatch.chdir(tmp_path)
    lines = ["a cat", '{"prompt": "a dog", "output": "dogs/one.mp4"}', "a bird"]
    Path("prompts.txt").write_text("\n".join(lines), encoding="utf-8")
    words = ["--model", model, "--frames", "4", "--steps", "1", "--seed", "1", "--device", "cpu", "--no-mark"]
    return lambda *more: main(["generate", "--prompts", "prompts.txt", *words, *more])


def made(folder: str) -> dict[str, bytes]:
    root = Path(folder)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.mp4")}


def test_what_fails_is_listed_and_stops_nothing(generate: Lumiere, capfd: pytest.CaptureFixture[str]) -> None:
    Path("clips").mkdir()
    Path("clips/dogs").touch()  # in the way
    assert generate("-o", "clips") == 1
    out, err = capfd.readouterr()
    assert "3 clips to make, 0 already there and skipped" in out
    assert "clip 1 of 3: a cat" in out
    assert " s each, " in next(line for line in out.splitlines() if line.startswith("clip 3 of 3 ("))
    assert "wrote clips/00003-a-bird.mp4 (seed 3)" in out
    assert "failed: dogs/one.mp4: " in out
    assert err.splitlines()[-2].startswith("  dogs/one.mp4: ")
    assert err.splitlines()[-1] == "lumiere: 1 clips could not be made; run it again to try them again"
    assert set(made("clips")) == {"00001-a-cat.mp4", "00003-a-bird.mp4"}
    Path("clips/dogs").unlink()
    assert generate("-o", "clips") == 0
    assert "1 clips to make, 2 already there and skipped" in capfd.readouterr().out
    assert len(made("clips")) == 3


def test_clips_at_an_address_are_those_of_a_folder(
    generate: Lumiere, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert generate("-o", "clips") == 0
    assert Shelf.protocol == "shelf"
    assert generate("-o", f"shelf://{tmp_path}/shelf/") == 0
    assert f"wrote shelf://{tmp_path}/shelf/dogs/one.mp4 (seed 2)" in capfd.readouterr().out
    assert made("shelf") == made("clips")
    assert len(made("clips")) == 3
    (tmp_path / "shelf" / "00003-a-bird.mp4").unlink()
    assert generate("-o", f"shelf://{tmp_path}/shelf") == 0
    assert "1 clips to make, 2 already there and skipped" in capfd.readouterr().out
    assert made("shelf") == made("clips")


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["-o", "nowhere://clips"], "nowhere://clips cannot be opened"),
        (["-o", "clips", "--workers", "2"], "--workers: it is of --ray"),
        (["-o", "clips", "--ray", "ray://head:10001"], "ray job submit"),
    ],
)
def test_bad_options(more: list[str], word: str, generate: Lumiere, capfd: pytest.CaptureFixture[str]) -> None:
    assert generate(*more) == 2
    assert word in capfd.readouterr().err
    assert not made("clips")


def test_frames_do_not_go_to_addresses(generate: Lumiere, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("prompts.txt").write_text('{"prompt": "a cat", "output": "frames/"}', encoding="utf-8")
    assert generate("-o", f"shelf://{tmp_path}/shelf") == 2
    assert "folders of frames cannot go to shelf://" in capfd.readouterr().err
