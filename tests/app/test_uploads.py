"""Users' files: read by a limited process of its own, written anew, refused in one line; nothing is left behind."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_tools import clip, clip_file, picture
from PIL import Image

from openlumiere.app.sandbox.limited import LimitedProcesses, LimitsReached, ProcessLimits
from openlumiere.app.sandbox.uploads import Taken, Uploads, kind_of_bytes
from openlumiere.app.settings import UploadLimits
from openlumiere.errors import LumiereError
from openlumiere.files import partial_path
from openlumiere.video import read_clip, read_mask_picture, read_metadata, read_picture, write_clip


def _take(data: bytes, tmp_path: Path, **limits: Any) -> tuple[Taken, Path]:
    """Take a file; return what it became, and a copy of that."""

    async def take() -> tuple[Taken, Path]:
        uploads = Uploads(tmp_path / "uploads", UploadLimits(**limits), ProcessLimits())
        try:
            with uploads.workspace() as folder:
                taken = await uploads.take(io.BytesIO(data), "input_reference", "source", folder)
                assert [path.name for path in folder.iterdir()] == [taken.path.name]
                return taken, taken.path.rename(tmp_path / taken.path.name)
        finally:
            await uploads.close()

    try:
        return asyncio.run(take())
    finally:
        assert list((tmp_path / "uploads").iterdir()) == []


def _line(data: bytes, tmp_path: Path, **limits: Any) -> str:
    with pytest.raises(LumiereError) as told:
        _take(data, tmp_path, **limits)
    assert "\n" not in str(told.value)
    assert str(tmp_path) not in str(told.value)
    return str(told.value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_pictures_become_png_without_loss(kind: str, tmp_path: Path) -> None:
    data = picture(kind)
    taken, path = _take(data, tmp_path)
    assert (path.name, taken.width, taken.height, taken.frames, taken.alpha) == ("source.png", 48, 32, 1, False)
    with Image.open(path) as written, Image.open(io.BytesIO(data)) as given:
        assert np.array_equal(np.asarray(written), np.asarray(given.convert("RGB")))


@pytest.mark.slow
def test_pictures_are_upright_and_keep_alpha_and_their_16_bits_count(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was turned to the right
    _, path = _take(picture("JPEG", exif=turned, quality=95), tmp_path)
    upright = np.asarray(read_picture(path))
    assert upright.shape == (48, 32, 3)
    assert upright[0].mean() < 20 < 200 < upright[-1].mean()
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    file = io.BytesIO()
    Image.fromarray(deep).save(file, "PNG")
    _, path = _take(file.getvalue(), tmp_path)
    assert np.abs(np.asarray(read_picture(path))[..., 0] - (deep / 257)).max() <= 1
    taken, path = _take(picture("PNG", mode="LA"), tmp_path)
    assert taken.alpha
    assert read_picture(path, background=None).mode == "RGBA"
    palette = Image.open(io.BytesIO(picture("PNG"))).convert("P")
    palette.info["transparency"] = 0
    file = io.BytesIO()
    palette.save(file, "PNG")
    assert _take(file.getvalue(), tmp_path)[0].alpha


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".webm", ".webp", ".gif", ".apng"])
def test_clips_become_webp_without_loss(suffix: str, tmp_path: Path) -> None:
    taken, path = _take(clip_file(tmp_path, suffix), tmp_path)
    read, given = read_clip(path), read_clip(tmp_path / f"made{suffix}")
    assert (path.name, taken.frames, taken.width) == ("source.webp", 6, 32)
    assert taken.fps == pytest.approx(given.fps) == pytest.approx(read.fps)
    assert np.array_equal(read.frames, given.frames)


@pytest.mark.slow
def test_what_a_file_says_of_itself_does_not_go_on(tmp_path: Path) -> None:
    write_clip(clip(), tmp_path / "told.webp", fps=8, metadata={"openlumiere": "1", "prompt": "a secret"})
    _, path = _take((tmp_path / "told.webp").read_bytes(), tmp_path)
    assert read_metadata(path) == {}
    assert b"secret" not in path.read_bytes()
    mask, path = _take(picture("PNG", mode="1"), tmp_path)
    assert set(np.unique(np.asarray(read_mask_picture(path)))) == {0, 255}
    assert mask.frames == 1


@pytest.mark.slow
def test_what_is_too_large_is_refused_by_its_header(tmp_path: Path) -> None:
    big = picture(size=(400, 300))
    assert _line(big, tmp_path, pixels=100_000) == "input_reference.png has 400x300 pixels; give at most 0.1 million"
    film = clip_file(tmp_path, frames=24)
    for limits, line in (
        ({"frames": 20}, "input_reference.mp4 has 24 frames; give at most 20"),
        ({"seconds": 2}, "input_reference.mp4 lasts 3 s; give at most 2"),
        ({"clip_pixels": 10_000}, "input_reference.mp4 has 24 frames of 32x32, 0.02458 million pixels together"),
        ({"pixels": 1000}, "input_reference.mp4 has 32x32 pixels; give at most 0.001 million"),
    ):
        assert _line(film, tmp_path, **limits).startswith(line)
    animated = clip_file(tmp_path, ".webp", frames=24)
    assert _line(animated, tmp_path, frames=20) == "input_reference.webp has 24 frames; give at most 20"
    assert "on a side" in _line(picture(size=(17000, 1)), tmp_path)


def _png(width: int, height: int, data: bytes) -> bytes:
    """A PNG whose header says what it likes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.slow
def test_bombs_cost_one_error(tmp_path: Path) -> None:
    zeros = zlib.compress(bytes(3 * 60_000_000 + 15_000), 9)
    assert "give at most 40 million" in _line(_png(15_000, 4_000, zeros), tmp_path)
    # Its header lies within what a picture may have; decoded it is fine, and small again.
    taken, _ = _take(_png(2000, 2000, zlib.compress(bytes(2000 * (1 + 3 * 2000)), 9)), tmp_path)
    assert taken.width == 2000
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=[10, 655_000])
    assert "give at most 60" in _line(file.getvalue(), tmp_path)  # one of the two frames lasts eleven minutes


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".png", ".mp4", ".webp", ".gif"])
def test_what_is_cut_or_something_else_is_refused(suffix: str, tmp_path: Path) -> None:
    data = picture() if suffix == ".png" else clip_file(tmp_path, suffix)
    assert _line(data[: len(data) // 2], tmp_path).startswith(f"input_reference{suffix} ")
    assert _line(data[:32], tmp_path).startswith(f"input_reference{suffix} ")


def test_kinds_are_told_by_bytes_not_by_names(tmp_path: Path) -> None:
    for data in (b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"PK\x03\x04" + bytes(60)):
        assert kind_of_bytes(data) is None
        assert "is no picture or clip of a known kind" in _line(data, tmp_path)
    assert kind_of_bytes(b"\0\0\0\x14ftypqt  ") == ".mov"


@pytest.mark.slow
def test_a_process_is_stopped_at_its_limits(tmp_path: Path) -> None:
    write_clip(clip(60, 128), tmp_path / "a.webp", fps=8, lossless=True)

    async def convert(helpers: LimitedProcesses, limits: ProcessLimits) -> None:
        await helpers.run("convert", "a.webp", tmp_path, limits, to="b.webm", background="white")

    async def all_of_them() -> None:
        helpers = LimitedProcesses(1)
        for limits in (ProcessLimits(seconds=0), ProcessLimits(cpu_seconds=0)):
            with pytest.raises(LimitsReached, match="takes too much memory or time"):
                await convert(helpers, limits)
        for limits in (ProcessLimits(memory=64), ProcessLimits(file_megabytes=0)):
            with pytest.raises(LumiereError):
                await convert(helpers, limits)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.webp"]
        with pytest.raises(TimeoutError):  # whoever asked is gone: so is the process
            await asyncio.wait_for(convert(helpers, ProcessLimits()), 0.01)
        await convert(helpers, ProcessLimits())  # it still works
        await helpers.close()

    asyncio.run(all_of_them())
    assert (tmp_path / "b.webm").is_file()


def test_what_a_killed_server_left_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    mine = partial_path(folder / "upload")
    gone = folder / mine.name.replace(f"-{mine.name.split('-')[-2]}-", "-999999999-")
    for path in (mine, gone):
        path.mkdir(parents=True)
    Uploads(folder, UploadLimits(), ProcessLimits())
    assert [path.name for path in folder.iterdir()] == [mine.name]
