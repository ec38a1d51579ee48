"""`lumiere upscale` on the clips that people really have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tiny
from clips import encode, greys, moving
from openlumiere.cli import main
from openlumiere.video import read_clip, read_metadata, write_clip

pytestmark = pytest.mark.slow  # clips are made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twice as large, in windows of 8 frames."""
    stage = tiny.second_stage()
    return str(tiny.saved(stage, tmp_path_factory.mktemp("model")))


def upscale(clip: Path, output: Path, model: str) -> int:
    return main(["upscale", str(clip), "-o", str(output), "--model", model, "--seed", "1", "--steps", "1"])


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 64, 64), (3, 66, 64), (21, 66, 75)])
def test_any_length_and_size(tmp_path: Path, model: str, frames: int, height: int, width: int) -> None:
    clip = write_clip(moving(frames, height, width), tmp_path / "clip.webp")
    assert upscale(clip, tmp_path / "sharp.webp", model) == 0
    sharp = read_clip(tmp_path / "sharp.webp")
    assert sharp.frames.shape == (frames, 2 * height, 2 * width, 3)
    assert sharp.fps == pytest.approx(16)


@pytest.mark.parametrize("name", ["sharp.webp", "sharp.gif", "sharp.mov", "sharp/"])
def test_alpha_survives_where_the_container_holds_it(tmp_path: Path, model: str, name: str) -> None:
    frames = moving(8, 64, 64, channels=4)
    assert upscale(write_clip(frames, tmp_path / "clip.mov"), tmp_path / name, model) == 0
    alpha = read_clip(tmp_path / name).frames[..., 3]
    assert alpha.shape == (8, 128, 128)
    wanted = frames[..., 3].repeat(2, axis=1).repeat(2, axis=2)
    assert (np.abs(alpha.astype(int) - wanted) > 128).mean() < 0.01


def test_a_clip_of_variable_rate_plays_on_time(tmp_path: Path, model: str) -> None:
    clip = encode(tmp_path / "clip.mp4", greys([0, 80, 160, 240], 64, 64), times=[0, 0.1, 0.7, 0.9])
    assert upscale(clip, tmp_path / "sharp.webp", model) == 0
    before, after = read_clip(clip), read_clip(tmp_path / "sharp.webp")
    assert len(after.frames) == len(before.frames)
    assert len(after.frames) / after.fps == pytest.approx(len(before.frames) / before.fps, rel=0.01)


def test_what_cannot_be_read_is_one_line_and_leaves_nothing(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "frames").mkdir()
    # Noise, so that most of the file is pictures: zeros over a part of it hit a frame, not a header.
    noise = np.random.default_rng(0).integers(0, 255, (16, 64, 64, 3), dtype=np.uint8)
    broken = encode(tmp_path / "broken.mp4", noise, gop=1)
    data = bytearray(broken.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    broken.write_bytes(data)
    (tmp_path / "empty.gif").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    for name, words in {"frames": "holds no PNG frames", "broken.mp4": "corrupt", "empty.gif": "corrupt"}.items():
        capsys.readouterr()
        assert upscale(tmp_path / name, tmp_path / "sharp.webp", model) == 2
        [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert words in line
        assert str(tmp_path / name) in line
    assert sorted(tmp_path.rglob("*")) == before


def test_the_default_name_keeps_the_kind_of_file(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given, made in {"a.webp": "a.sharp.webp", "b.mp4": "b.sharp.mp4", "frames/": "frames.sharp"}.items():
        write_clip(moving(2, 64, 64), given)
        assert main(["upscale", given, "--model", model, "--steps", "1"]) == 0
        assert read_clip(made).frames.shape[1:3] == (128, 128)


def test_the_default_name_replaces_no_file(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug 17: a second `upscale` wrote over the first one's clip."""
    monkeypatch.chdir(tmp_path)
    write_clip(moving(2, 64, 64), "a.webp")
    Path("a.sharp.webp").write_text("somebody's")
    assert main(["upscale", "a.webp", "--model", model, "--steps", "1"]) == 0
    assert Path("a.sharp.webp").read_text() == "somebody's"
    assert read_clip("a.sharp-v2.webp").frames.shape[1:3] == (128, 128)


@pytest.mark.parametrize("command", [{}, {"command": "of a later version"}])
def test_clips_of_other_versions_are_sharpened(tmp_path: Path, model: str, command: dict[str, str]) -> None:
    """Bug 9: what their metadata lack, or name otherwise, does not matter: the prompt is all that is read."""
    metadata = {"openlumiere": "0.0.1", "prompt": "a cat", **command}
    clip = write_clip(moving(2, 64, 64), tmp_path / "clip.webp", metadata=metadata)
    assert upscale(clip, tmp_path / "sharp.webp", model) == 0
    assert read_metadata(tmp_path / "sharp.webp")["prompt"] == "a cat"
