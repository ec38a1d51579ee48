"""The scripts in examples/ and docs/, as a reader would run them, on short clips."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clips import moving
from openlumiere.bundled import bundled_folder, styles_of
from openlumiere.video import read_clip, write_clip

pytestmark = pytest.mark.slow  # clips are made

ROOT = Path(__file__).resolve().parents[1]


def example(name: str, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *words])
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")


def same_but_for_webp(one: np.ndarray, other: np.ndarray) -> None:
    """Large clips are written with losses."""
    assert np.abs(one.astype(int) - other).mean() < 2


def test_animate_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(moving(1, 90, 120)[0]).save("photo.png")
    example("animate_picture", monkeypatch, "photo.png", "a tiger walking to the left", "a.webp", "b.webp", "16")
    first, still = read_clip("a.webp").frames, read_clip("b.webp").frames
    same_but_for_webp(first[0], still[0])
    assert first.shape == still.shape == (16, 512, 512, 3)
    same_but_for_webp(still[:, :128], np.broadcast_to(still[0, :128], still[:, :128].shape))
    assert np.abs(np.diff(still[:, 192:320, 192:320].astype(int), axis=0)).max() > 0


def test_change_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(moving(12, 512, 512), "walk.webp", fps=16, lossless=True)
    example("change_clip", monkeypatch, "walk.webp", "a lion", "out")
    before = read_clip("walk.webp").frames
    same_but_for_webp(read_clip("out/inpainted.webp").frames[:, :, 256:], before[:, :, 256:])
    assert read_clip("out/restyled.webp").frames.shape == before.shape
    longer = read_clip("out/extended.webp").frames
    assert len(longer) == 24
    same_but_for_webp(longer[:12], before)


def test_own_style(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    style = styles_of(bundled_folder("emoji"))[0]
    example("own_style", monkeypatch, style, "a tiger on a green background", "tiger.webp", "16")
    assert read_clip("tiger.webp").frames.shape == (16, 512, 512, 3)


def test_the_gallery_is_what_its_script_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page of the clips that are there; making them takes minutes."""
    script = runpy.run_path(str(ROOT / "docs" / "make_gallery.py"))
    assert script["page"]() == (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    for entry in script["ENTRIES"]:
        made = read_clip(ROOT / "docs" / script["FOLDER"] / f"{entry.name}.out.webp").frames
        assert len(made) >= 40
        for name in entry.inputs:
            assert (ROOT / "docs" / script["FOLDER"] / name).exists()
