"""Inputs as people have them, at a model's size and rate."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clips import encode, greys
from openlumiere.errors import LumiereError
from openlumiere.video import FITS, Fit, colour, fit, is_clip, read_fitted, read_mask, read_picture, write_clip


def halves(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Red on the left, blue on the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0], pixels[:, width // 2 :, 2] = 255, 255
    return Image.fromarray(pixels).convert(mode)


# ------------------------------------------------------------------------------------------------- sizes


def test_three_ways_to_fit_a_wide_picture_into_a_square() -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255
    picture = Image.fromarray(wide)
    cropped = np.asarray(fit(picture, (30, 30), "crop"))
    assert cropped.min() > 200  # the middle third alone
    padded = np.asarray(fit(picture, (30, 30), "pad"))
    assert (padded[:10] == padded[10]).all()  # edges go on
    assert (padded[20:] == padded[19]).all()
    assert padded[15, 2].max() < 30
    assert padded[15, 15].min() > 220
    stretched = np.asarray(fit(picture, (30, 30), "stretch"))
    assert stretched[15, 5].max() < 30
    assert stretched[15, 15].min() > 220
    for array in (cropped, padded, stretched):
        assert array.shape == (30, 30, 3)


@pytest.mark.parametrize("how", FITS)
@pytest.mark.parametrize("size", [(16, 16), (8, 24), (1, 1)])
def test_any_size_comes_out_at_the_wanted_one_masks_too(how: Fit, size: tuple[int, int]) -> None:
    for own in ((7, 5), (300, 200), (1, 1)):
        assert np.asarray(fit(halves(*own), size, how)).shape == (*size, 3)
        assert np.asarray(fit(halves(*own, mode="L"), size, how)).shape == size


# ------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(("mode", "suffix"), [("L", ".png"), ("P", ".gif"), ("CMYK", ".jpg"), ("1", ".png")])
def test_any_kind_of_picture_is_read_as_colours(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    halves(40, 20, mode).save(path)
    found = read_picture(path)
    assert (found.mode, found.size) == ("RGB", (40, 20))
    if mode in ("P", "CMYK"):
        assert np.abs(np.asarray(found).astype(int) - np.asarray(halves(40, 20))).mean() < 10


def test_sixteen_bits_keep_their_brightness(tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 50).astype(np.uint16)[None].repeat(4, axis=0)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    Image.fromarray(levels.astype(np.float32) / 65535).save(tmp_path / "float.tiff")
    for name in ("deep.png", "float.tiff"):
        found = np.asarray(read_picture(tmp_path / name))
        np.testing.assert_allclose(found[0, :, 0], np.linspace(0, 255, 50), atol=1)


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    halves(40, 20).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    found = read_picture(tmp_path / "photo.jpg")
    assert found.size == (20, 40)
    assert np.asarray(found)[5, 10, 0] > 200  # what was left is on top


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_transparency_is_laid_over_the_background(tmp_path: Path, suffix: str) -> None:
    picture = halves(40, 20, "RGBA")
    picture.putalpha(Image.fromarray(np.repeat([[255] * 20 + [0] * 20], 20, axis=0).astype(np.uint8)))
    picture.save(tmp_path / f"sticker{suffix}", lossless=True)
    found = np.asarray(read_picture(tmp_path / f"sticker{suffix}", background="#00ff00"))
    assert found[10, 5].tolist() == [255, 0, 0]
    assert found[10, 35].tolist() == [0, 255, 0]
    with pytest.raises(LumiereError, match="no colour"):
        colour("not-a-colour")


def test_of_something_that_moves_the_first_frame_is_the_picture(tmp_path: Path) -> None:
    frames = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (10, 128, 250)])
    for name in ("clip.webp", "clip.mp4", "frames/"):
        write_clip(frames, tmp_path / name, fps=4)
        assert is_clip(tmp_path / name)
        assert np.asarray(read_picture(tmp_path / name)).mean() == pytest.approx(10, abs=3)


def test_what_is_no_picture_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "cut.png").write_bytes(b"")
    halves(64, 64).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    for name, words in (
        ("text.png", "corrupt or no picture"), ("cut.png", "corrupt or no picture"),
        ("half.png", "corrupt or no picture"), ("none.png", "does not exist"),
    ):  # fmt: skip
        with pytest.raises(LumiereError, match=words):
            read_picture(tmp_path / name)


def test_a_picture_that_would_fill_the_memory_is_refused_as_a_mask_too(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    size = struct.pack(">II", 60_000, 60_000)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", size + b"\x08\0\0\0\0"), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    assert not is_clip(path)
    with pytest.raises(LumiereError, match=r"bomb.png is corrupt or no picture .*; replace it"):
        read_picture(path)
    with pytest.raises(LumiereError, match=r"bomb.png is corrupt or no picture .*; replace it"):
        read_mask(path, (60, 60), (24, 24), num_frames=8, fps=8)


# ------------------------------------------------------------------------------------------------- clips


def test_a_clip_is_brought_to_the_rate_and_plays_on_time(tmp_path: Path) -> None:
    path = write_clip(greys([0, 80, 160, 240], 32, 32), tmp_path / "clip.mp4", fps=4)
    read = read_fitted(path, (16, 16), fps=8)
    assert read.frames.shape == (8, 16, 16, 3)
    np.testing.assert_allclose(read.frames.mean((1, 2, 3)), [0, 0, 80, 80, 160, 160, 240, 240], atol=8)
    assert read_fitted(path, (16, 16), fps=2).frames.shape[0] == 2
    assert read_fitted(path, (16, 16), fps=8, max_frames=3).frames.shape[0] == 3
    own = read_fitted(path, (16, 16))
    assert (len(own.frames), own.fps) == (4, pytest.approx(4))
    uneven = encode(tmp_path / "uneven.mp4", greys([0, 80, 160, 240], 32, 32), times=[0, 0.5, 0.75, 1])
    shades = read_fitted(uneven, (16, 16), fps=4).frames.mean((1, 2, 3))
    np.testing.assert_allclose(shades, [0, 0, 80, 160], atol=8)  # the last one is shown for a sixteenth of a second


# ------------------------------------------------------------------------------------------------- masks


def test_a_mask_goes_where_its_picture_goes(tmp_path: Path) -> None:
    """A picture with a white block, and a mask of the block: fitted in any way they still agree."""
    for side in (60, 30):  # the mask may be smaller
        pixels = np.zeros((side, 2 * side), np.uint8)
        pixels[side // 3 : side // 2, side // 2 : side] = 255
        Image.fromarray(pixels).save(tmp_path / f"{side}.png")
    picture = read_picture(tmp_path / "60.png")
    for how in FITS:
        wanted = np.asarray(fit(picture, (24, 24), how))[..., 0] >= 128
        for side in (60, 30):
            mask = read_mask(tmp_path / f"{side}.png", (60, 120), (24, 24), num_frames=8, fps=8, how=how)
            assert mask.shape == (1, 24, 24)
            assert (mask[0] == wanted).mean() > 0.97
            assert mask.any()


def test_masks_that_fit_nothing_are_refused(tmp_path: Path) -> None:
    Image.new("L", (50, 50), 255).save(tmp_path / "square.png")
    with pytest.raises(LumiereError, match="must have the same proportions"):
        read_mask(tmp_path / "square.png", (60, 120), (24, 24), num_frames=8, fps=8)
    write_clip(greys([0, 255, 0, 255], 64, 64), tmp_path / "mask.mp4", fps=8)
    moving = read_mask(tmp_path / "mask.mp4", (64, 64), (16, 16), num_frames=4, fps=8)
    assert moving.mean((1, 2)).tolist() == [0, 1, 0, 1]
    assert len(read_mask(tmp_path / "mask.mp4", (64, 64), (16, 16), num_frames=3, fps=8, max_frames=3)) == 3
    with pytest.raises(LumiereError, match="lasts 4 frames"):
        read_mask(tmp_path / "mask.mp4", (64, 64), (16, 16), num_frames=5, fps=8)


def test_a_mask_painted_on_nothing_is_black_there(tmp_path: Path) -> None:
    layer = np.zeros((20, 20, 4), np.uint8)
    layer[:10] = 255
    Image.fromarray(layer).save(tmp_path / "layer.png")
    mask = read_mask(tmp_path / "layer.png", (20, 20), (20, 20), num_frames=1, fps=8)
    np.testing.assert_array_equal(mask[0], layer[..., 0] > 0)
