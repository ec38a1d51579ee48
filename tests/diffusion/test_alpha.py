"""Transparency in files: written, read back with it, and without fringes."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from openlumiere.errors import LumiereError
from openlumiere.video import bleed, iter_frames, opaque, read_clip, read_picture, sample_frames, write_clip
from openlumiere.video.alpha import one_bit
from openlumiere.video.palette import nearest, palette_of

KEEPING = ["clip.webp", "clip.apng", "clip.mov", "clip.webm", "frames/"]


def disc(num_frames: int = 12, side: int = 96, *, hidden: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    """A light disc with a soft edge that moves to the right; black, unseen, around it."""
    y, x = np.mgrid[:side, :side]
    frames = np.zeros((num_frames, side, side, 4), np.uint8)
    for i, frame in enumerate(frames):
        distance = np.hypot(x - side * (0.4 + 0.2 * i / num_frames), y - side / 2)
        frame[..., 3] = (255 * np.clip((side * 0.28 - distance) / 2 + 0.5, 0, 1)).round()
        frame[..., :3] = np.where(frame[..., 3:] > 0, [250, 225, 120], hidden)
    return frames


@pytest.mark.slow
@pytest.mark.parametrize("name", KEEPING)
def test_alpha_comes_back_without_a_fringe(tmp_path: Path, name: str) -> None:
    frames = disc(side=192)  # large enough for WebP with loss
    clip = read_clip(write_clip(frames, f"{tmp_path}/{name}", fps=12))
    assert clip.frames.shape == frames.shape
    assert clip.fps == pytest.approx(12)
    assert np.abs(clip.frames[..., 3].astype(int) - frames[..., 3]).max() <= 24
    # As an eye sees it: over light and dark grounds nothing differs much, above all not along the edge.
    for ground in ("black", "white", "magenta"):
        error = opaque(clip.frames, ground).astype(int) - opaque(frames, ground)
        assert np.abs(error).max() <= (20 if name == "clip.webm" else 6)  # 24 and 10 where black bleeds in
        assert np.abs(error).mean() <= 1


@pytest.mark.slow
def test_webm_with_alpha_is_vp9_as_browsers_show_it_and_seekable(tmp_path: Path) -> None:
    frames = disc(40)
    frames[20:, ..., 3] = 255 - frames[20:, ..., 3]
    frames[20:, ..., :3] = [20, 40, 200]
    path = write_clip(frames, tmp_path / "clip.webm", fps=20)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.metadata["alpha_mode"]) == ("vp9", "1")
    assert [frame.pixels().shape for frame in iter_frames(path, start=1.52)] == [(96, 96, 4)] * 10
    (first, later) = sample_frames(path, [0.0, 1.52])
    assert (first[0, 0, 3], later[0, 0, 3]) == (0, 255)
    (later,) = sample_frames(path, [1.52])
    assert (later[0, 0, 3], later[48, 48, 3]) == (255, 0)
    assert np.asarray(read_picture(path, background="lime"))[0, 0].tolist() == [0, 255, 0]


@pytest.mark.slow
@pytest.mark.parametrize("width", [8, 50, 100, 101])
def test_webm_of_any_width_comes_back_to_its_last_column(tmp_path: Path, width: int) -> None:
    frames = np.full((6, 20, width, 4), [200, 40, 90, 255], np.uint8)
    frames[:, :4, :, 3] = 0
    clip = read_clip(write_clip(frames, tmp_path / "clip.webm"))
    assert np.abs(clip.frames[..., 3].astype(int) - frames[..., 3]).max() <= 16
    assert np.abs(clip.frames[:, 6:].astype(int) - frames[:, 6:]).max() <= 12


def test_webm_of_opaque_frames_carries_no_alpha(tmp_path: Path) -> None:
    frames = disc()
    frames[..., 3] = 255
    path = write_clip(frames, tmp_path / "clip.webm")
    with av.open(str(path)) as container:
        assert "alpha_mode" not in container.streams.video[0].metadata
    clip = read_clip(path)
    assert clip.frames.shape == (*frames.shape[:3], 3)
    assert np.abs(clip.frames.astype(int) - frames[..., :3]).mean() < 3


@pytest.mark.slow
@pytest.mark.parametrize(("background", "corner"), [(None, 255), ("black", 0), ("#808080", 128)])
def test_mp4_and_sheet_lay_transparency_over_a_background(tmp_path: Path, background: str | None, corner: int) -> None:
    mp4 = read_clip(write_clip(disc(), tmp_path / "clip.mp4", background=background)).frames
    assert np.abs(mp4[:, 0, 0].astype(int) - corner).max() <= 2
    assert np.abs(mp4[:, 48, 48].astype(int) - [250, 225, 120]).max() <= 5
    sheet = np.asarray(Image.open(write_clip(disc(), tmp_path / "clip.png", background=background)))
    assert sheet[9, 9, 0] == corner


def test_a_background_must_be_a_colour(tmp_path: Path) -> None:
    with pytest.raises(LumiereError, match="no colour"):
        write_clip(disc(), tmp_path / "clip.mp4", background="transparent blue")
    assert not list(tmp_path.iterdir())


def test_gif_edges_take_the_background_only_where_it_is_given(tmp_path: Path) -> None:
    frames = disc()
    own = read_clip(write_clip(frames, tmp_path / "own.gif")).frames
    laid = read_clip(write_clip(frames, tmp_path / "laid.gif", background="black")).frames
    edge = (frames[..., 3] >= 128) & (frames[..., 3] < 200)
    assert edge.sum() > 100
    assert own[edge][:, :3].mean() > laid[edge][:, :3].mean() + 30
    assert np.abs(own[edge][:, :3].astype(int) - [250, 225, 120]).max() <= 8


def test_one_bit_cuts_edges_and_dithers_fades() -> None:
    assert np.array_equal(one_bit(disc(1)[0, ..., 3]), disc(1)[0, ..., 3] >= 128)
    fade = np.broadcast_to(np.linspace(0, 255, 256).round().astype(np.uint8), (64, 256))
    shown = one_bit(fade)
    assert not shown[:, :24].any()
    assert shown[:, 232:].all()
    for x in range(32, 224, 16):  # as many pixels as alpha says
        assert shown[:, x : x + 16].mean() == pytest.approx(fade[0, x : x + 16].mean() / 255, abs=0.1)
    assert 0.2 < shown[:, 120:136].mean() < 0.8


def test_bleeding_changes_only_what_is_unseen() -> None:
    frames = disc(hidden=(0, 255, 0))
    bled = bleed(frames)
    seen = frames[..., 3] > 0
    assert np.array_equal(bled[..., 3], frames[..., 3])
    assert np.array_equal(bled[seen], frames[seen])
    assert np.abs(bled[~seen][:, :3].astype(int) - [250, 225, 120]).max() <= 4
    assert bleed(np.zeros((1, 4, 4, 4), np.uint8)).max() == 0


@pytest.mark.slow
@given(height=st.integers(1, 24), width=st.integers(1, 24), seed=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_any_transparent_clip_survives(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int
) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (3, height, width, 4)).astype(np.uint8)
    frames[..., 3] *= frames[..., 0] > 60
    frames[0, 0, 0, 3] = 100
    folder = tmp_path_factory.mktemp("any")
    for name in (*KEEPING, "clip.gif"):
        assert read_clip(write_clip(frames, f"{folder}/{name}")).frames.shape[:3] == frames.shape[:3]


@pytest.mark.parametrize("colours", [2, 5, 64, 256])
def test_a_palette_with_alpha_keeps_nothing_and_all_apart(colours: int) -> None:
    frames = disc(4)
    table = palette_of(frames, colours)
    assert len(table) <= colours
    back = table[nearest(frames, table)]
    assert (back[frames[..., 3] == 0] == 0).all()
    if colours >= 64:
        assert np.abs(back[..., 3].astype(int) - frames[..., 3]).max() <= 8
        assert np.abs(opaque(back).astype(int) - opaque(frames)).max() <= 8
