"""Clips as files: real encoders and decoders, real failures."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clips import FORMATS, METADATA, encode, greys, moving
from openlumiere.errors import LumiereError
from openlumiere.video import (
    check_writable,
    contact_sheet,
    iter_frames,
    probe,
    read_clip,
    read_metadata,
    sample_frames,
    write_clip,
)

EXACT = ["clip.webp", "clip.apng", "frames/"]


def difference(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(np.int16) - b.astype(np.int16)).max())


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("channels", [3, 4])
def test_lossless_round_trip(tmp_path: Path, name: str, channels: int) -> None:
    frames = moving(channels=channels)
    clip = read_clip(write_clip(frames, f"{tmp_path}/{name}", fps=12))
    assert clip.fps == pytest.approx(12, rel=1e-9)
    if channels == 4:  # the colour under transparent pixels is no part of the picture
        clip.frames[clip.frames[..., 3] == 0], frames[frames[..., 3] == 0] = 0, 0
    np.testing.assert_array_equal(clip.frames, frames)


@pytest.mark.parametrize("channels", [3, 4])
def test_gif_keeps_plain_colours_and_transparency(tmp_path: Path, channels: int) -> None:
    frames = moving(channels=channels)
    clip = read_clip(write_clip(frames, tmp_path / "clip.gif"))
    assert clip.frames.shape == frames.shape
    assert clip.fps == pytest.approx(16)
    if channels == 4:
        np.testing.assert_array_equal(clip.frames[..., 3], frames[..., 3])
        clip.frames[clip.frames[..., 3] == 0], frames[frames[..., 3] == 0] = 0, 0
    np.testing.assert_array_equal(clip.frames, frames)


@pytest.mark.slow
def test_gif_shades_are_close(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 64)
    frames = np.stack([np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], i / 8), -1) for i in range(8)])
    clip = read_clip(write_clip(frames, tmp_path / "clip.gif"))
    assert np.sqrt(np.mean((clip.frames / 255.0 - frames) ** 2)) < 0.07


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("size", [(32, 32), (33, 35)])
def test_prores_keeps_shades_and_transparency(tmp_path: Path, channels: int, size: tuple[int, int]) -> None:
    ramp = np.linspace(0, 1, 4 * size[0] * size[1] * channels).reshape(4, *size, channels)
    clip = read_clip(write_clip(ramp, tmp_path / "clip.mov", fps=12))
    assert clip.fps == pytest.approx(12)
    assert clip.frames.shape == ramp.shape
    expected = (ramp * 255).round().astype(np.uint8)
    if channels == 4:  # the colour under transparent pixels is no part of the picture
        clip.frames[expected[..., 3] == 0], expected[expected[..., 3] == 0] = 0, 0
    assert difference(clip.frames, expected) <= 4


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.webp", "clip.webm", "clip.apng", "clip.gif", "frames/"])
def test_equal_frames_are_all_there(tmp_path: Path, name: str) -> None:
    frames = np.repeat(moving(5), [3, 1, 4, 1, 7], axis=0)
    path = write_clip(frames, f"{tmp_path}/{name}")
    clip, info = read_clip(path), probe(path)
    assert clip.frames.shape == frames.shape
    assert clip.fps == pytest.approx(16)
    assert (info.fps, info.duration) == (pytest.approx(16), pytest.approx(1))
    assert [difference(a, b) > 128 for a, b in pairwise(clip.frames)] == [
        difference(a, b) > 0 for a, b in pairwise(frames)
    ]


@pytest.mark.parametrize("name", FORMATS[:5])
def test_a_still_clip_keeps_its_length(tmp_path: Path, name: str) -> None:
    frames = np.full((10, 16, 16, 3), 200, np.uint8)
    path = write_clip(frames, tmp_path / name, fps=20)
    assert (len(read_clip(path).frames), read_clip(path).fps, probe(path).duration) == (10, 20, 0.5)


@pytest.mark.parametrize("name", ["clip.webp", "clip.apng", "clip.gif"])
def test_pictures_loop_for_ever(tmp_path: Path, name: str) -> None:
    with Image.open(write_clip(moving(), tmp_path / name)) as picture:
        assert picture.info["loop"] == 0


COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "grey": (119, 119, 119),
    "skin": (224, 172, 105),
}


@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)
def test_mp4_colours_by_the_bt709_matrix(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    frames = np.broadcast_to(np.array(colour, np.uint8), (8, 32, 32, 3))
    path = write_clip(frames, tmp_path / "clip.mp4")
    assert difference(read_clip(path).frames, frames) <= 3
    # By hand, from the stored planes and the matrix of ITU-R BT.709.
    with av.open(str(path)) as container:
        planes = next(container.decode(video=0)).to_ndarray()
    y, u, v = (float(planes[i, 0]) for i in (0, 32, 40))
    luma, blue, red = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
    rgb = [luma + 1.5748 * red, luma - 0.1873 * blue - 0.4681 * red, luma + 1.8556 * blue]
    np.testing.assert_allclose(np.array(rgb) * 255, colour, atol=4)


@pytest.mark.slow
def test_mp4_plays_everywhere(tmp_path: Path) -> None:
    path = write_clip(moving(80), tmp_path / "clip.mp4", min_side=256)
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.codec_tag) == ("h264", "yuv420p", "avc1")
        assert [context.colorspace, context.color_primaries, context.color_trc, context.color_range] == [1] * 4
        assert (stream.average_rate, stream.frames) == (16, 80)
        assert stream.duration * stream.time_base == 5
        assert (context.width, context.height) == (256, 256)


def test_small_clips_stay_sharp(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 24, 40, 3)).astype(np.uint8)
    clip = read_clip(write_clip(frames, tmp_path / "clip.mp4", min_side=256))
    assert clip.frames.shape == (4, 24 * 11, 40 * 11, 3)
    assert difference(clip.frames[:, 5::11, 5::11], frames) <= 24
    assert read_clip(write_clip(frames, tmp_path / "large.mp4", min_side=24)).frames.shape == frames.shape


@pytest.mark.slow
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    count=st.integers(1, 12),
    fps=st.sampled_from([1, 7.5, 16, 23.976, 24, 30, 50]),
    name=st.sampled_from(["clip.mp4", "clip.webp", "clip.webm", "clip.apng", "clip.gif", "frames/"]),
)
@settings(max_examples=40, deadline=None)
def test_any_size_length_and_rate(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, count: int, fps: float, name: str
) -> None:
    frames = np.full((count, height, width, 3), 200, np.uint8)
    frames[::2] = 40
    clip = read_clip(write_clip(frames, f"{tmp_path_factory.mktemp('any')}/{name}", fps=fps))
    even = name == "clip.mp4"
    assert clip.frames.shape == (count, height + height % 2 * even, width + width % 2 * even, 3)
    # Each format's clock: hundredths, milliseconds, or finer.
    tick = {"clip.gif": 0.005, "clip.webp": 0.0005, "clip.apng": 0.0005, "clip.webm": 0.0005}.get(name, 1e-4)
    assert len(clip.frames) / clip.fps == pytest.approx(count / fps, abs=tick)
    assert difference(clip.frames, frames[:, :1, :1]) <= 4


@pytest.mark.slow
@given(count=st.integers(1, 500), fps=st.floats(1, 50))
@settings(max_examples=200, deadline=None)
def test_rounded_delays_do_not_drift(count: int, fps: float) -> None:
    from openlumiere.video.encoders.timing import delays

    for ticks in (100, 1000):
        ends = np.cumsum(delays(count, fps, ticks))
        np.testing.assert_allclose(ends / ticks, np.arange(1, count + 1) / fps, atol=0.5 / ticks + 1e-9)


@given(st.lists(st.floats(-2, 3), min_size=12, max_size=12))
@settings(max_examples=25, deadline=None)
def test_floats_are_rounded_and_clamped(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    frames = np.array(values, np.float32).reshape(1, 2, 2, 3)
    clip = read_clip(write_clip(frames, f"{tmp_path_factory.mktemp('floats')}/frames/"))
    assert np.abs(clip.frames - np.clip(frames, 0, 1) * 255).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        (np.full((2, 8, 8, 3), np.nan), "not numbers"),
        (np.zeros((2, 8, 8)), "shape"),
        (np.zeros((0, 8, 8, 3)), "shape"),
        (np.zeros((2, 8, 8, 3), np.int64), "int64"),
    ],
)
def test_bad_frames_are_refused(tmp_path: Path, frames: np.ndarray, says: str) -> None:
    with pytest.raises(LumiereError, match=says):
        write_clip(frames, tmp_path / "clip.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "fps"), [("clip.gif", 60), ("clip.mp4", 0), ("clip.webp", float("nan"))])
def test_rates_that_players_refuse(tmp_path: Path, name: str, fps: float) -> None:
    with pytest.raises(LumiereError, match="frames per second"):
        write_clip(moving(), tmp_path / name, fps=fps)


def test_unwritable_places_are_told_early(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"x")
    (tmp_path / "a.mp4").mkdir()
    for name, says in {
        "clip.avi": "choose one of", "no/clip.mp4": "mkdir -p", "photos": "something else", "a.mp4": "is a folder",
    }.items():  # fmt: skip
        with pytest.raises(LumiereError, match=says):
            check_writable(tmp_path / name)
    assert check_writable(f"{tmp_path}/v1.5/") == tmp_path / "v1.5"


_FULL_DISK = """
import resource, signal, sys
import numpy as np
from openlumiere.errors import LumiereError
from openlumiere.video import write_clip
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_clip(np.random.default_rng(0).random((20, 64, 64, 3)), sys.argv[1])
except LumiereError as error:
    sys.exit(f"told: {error}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_no_space_left(tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, f"{tmp_path}/{name}"], capture_output=True, text=True, check=False
    )
    assert done.stderr.startswith("told: no space left"), done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_an_old_file_survives_a_failure(tmp_path: Path, name: str) -> None:
    path = write_clip(moving(), f"{tmp_path}/{name}", metadata=METADATA)
    before = snapshot(tmp_path)
    with pytest.raises((TypeError, LumiereError)):
        write_clip(moving(), f"{tmp_path}/{name}", metadata={"seed": object()})  # type: ignore[dict-item]
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, f"{tmp_path}/{name}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert snapshot(tmp_path) == before
    write_clip(moving(3), f"{tmp_path}/{name}")
    assert read_metadata(path) == {}
    assert len(list(tmp_path.iterdir())) == 1


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------ other people's files


@pytest.mark.parametrize(("name", "codec"), [("a.mov", "libx264"), ("a.webm", "libvpx-vp9"), ("a.mkv", "libx264")])
def test_other_containers(tmp_path: Path, name: str, codec: str) -> None:
    clip = read_clip(encode(tmp_path / name, greys([20, 120, 220] * 6), codec=codec))
    assert clip.frames.shape == (18, 32, 32, 3)
    assert clip.fps == pytest.approx(16, rel=0.01)
    assert difference(clip.frames, greys([20, 120, 220] * 6)) <= 6
    assert probe(tmp_path / name).duration == pytest.approx(18 / 16, abs=0.01)


def test_variable_frame_rate(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", greys([0, 80, 160, 240]), times=[0, 0.1, 0.7, 0.9])
    frames = list(iter_frames(path))
    assert [frame.start for frame in frames] == pytest.approx([0, 0.1, 0.7, 0.9], abs=1e-3)
    clip = read_clip(path)  # brought to a constant rate, at which it plays on time
    assert len(clip.frames) / clip.fps == pytest.approx(frames[-1].end, abs=1 / clip.fps)
    at = ((np.arange(len(clip.frames)) + 0.5) / clip.fps).tolist()
    np.testing.assert_array_equal(clip.frames, list(sample_frames(path, at)))
    shown = [int(frame.mean()) for frame in sample_frames(path, [0.05, 0.3, 0.65, 0.75, 0.89, 0.91])]
    np.testing.assert_allclose(shown, [0, 80, 80, 160, 160, 240], atol=3)


def test_a_gif_that_rests_on_its_last_frame_does_so_still(tmp_path: Path) -> None:
    pictures = [Image.fromarray(frame) for frame in greys([0, 80, 160, 240])]
    delays = [100, 100, 100, 1000]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=delays)
    clip = read_clip(tmp_path / "a.gif")
    assert clip.fps == pytest.approx(10)
    assert clip.frames[:, 0, 0, 0].tolist() == [0, 80, 160] + [240] * 10


@pytest.mark.slow
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx-vp9"), ("a.mkv", "libx264")])
def test_seeking_finds_the_frame_on_screen(tmp_path: Path, name: str, codec: str) -> None:
    path = encode(tmp_path / name, greys([2 * i for i in range(120)]), codec=codec)
    stored = np.round(np.arange(120) * 1000 / 16) / 1000
    for start in np.random.default_rng(0).uniform(0, 6.5, 12):
        times = start + np.arange(12) / 13
        shown = [frame.mean() / 2 for frame in sample_frames(path, times.tolist())]
        np.testing.assert_allclose(shown, np.searchsorted(stored, times, side="right") - 1, atol=0.7)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_honoured(tmp_path: Path, degrees: int) -> None:
    stored = np.zeros((8, 32, 64, 3), np.uint8)
    stored[:, :16, :16] = 255
    path = encode(tmp_path / "a.mp4", stored, rotation=degrees)
    clip, info = read_clip(path), probe(path)
    # A display matrix turns counter-clockwise, as np.rot90 does.
    expected = np.rot90(stored, degrees // 90, axes=(1, 2))
    assert clip.frames.shape == expected.shape
    assert (info.height, info.width) == expected.shape[1:3]
    assert np.abs(clip.frames.astype(float) - expected).mean() < 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip.mp4", "clip.webp", "clip.webm", "clip.apng", "clip.gif", "clip.png"])
@pytest.mark.parametrize("damage", ["noise", "empty", "cut"])
def test_damaged_files_are_told_by_name(tmp_path: Path, name: str, damage: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3)).astype(np.uint8)
    path = write_clip(frames, tmp_path / name)
    data = path.read_bytes()
    noise = np.random.default_rng(1).bytes(4000)
    path.write_bytes({"noise": noise, "empty": b"", "cut": data[: len(data) * 6 // 10]}[damage])
    for read in (read_clip, probe):
        with pytest.raises(LumiereError, match=name):
            read(path)


def test_what_is_wrong_is_said_once(tmp_path: Path) -> None:
    path = write_clip(moving(40), tmp_path / "cut.mp4")
    with av.open(str(path)) as whole:
        starts = [packet.pos for packet in whole.demux() if packet.pos is not None]
    path.write_bytes(path.read_bytes()[: starts[20]])  # a download that broke off
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((2, 4410), np.float32), format="fltp", layout="stereo")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    for name, says in {
        "cut": "is cut short: .* s are there; replace it",
        "sound": "has no picture, .* give a video",
    }.items():
        for read in (read_clip, probe):
            with pytest.raises(LumiereError, match=f"^{tmp_path}/{name}.mp4 {says}$"):
                read(tmp_path / f"{name}.mp4")


def test_a_codec_that_is_not_known_is_said(tmp_path: Path) -> None:
    path = write_clip(moving(3), tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    for read in (read_clip, probe):
        with pytest.raises(LumiereError, match=r"a.mp4 holds video of a codec that is not known here; convert it"):
            read(path)


def test_frames_of_sixteen_bits_keep_their_brightness(tmp_path: Path) -> None:
    shades = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    (tmp_path / "frames").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "frames" / "00000.png"):
        Image.fromarray(shades).save(path)
        shown = read_clip(path if path.name == "a.png" else path.parent).frames
        assert shown.shape == (1, 32, 32, 3)
        np.testing.assert_allclose(shown[0, ..., 0], shades / 257, atol=0.51)


def test_a_frame_that_rests_for_hours_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    frames = [Image.fromarray(frame) for frame in moving(3)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[20, 20, 655_350])
    with pytest.raises(LumiereError, match=r"a.gif has frames of 0.02 to 655 s, 32770 at a constant rate; cut it"):
        read_clip(path)


def test_what_is_no_clip(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, says in {"notes.txt": "not a clip", "gone.mp4": "does not exist", "empty": "no PNG"}.items():
        for read in (read_clip, probe):
            with pytest.raises(LumiereError, match=says):
                read(tmp_path / name)
    with pytest.raises(LumiereError, match="not a clip"):
        read_metadata(tmp_path / "notes.txt")


def test_folder_of_frames(tmp_path: Path) -> None:
    write_clip(moving(), f"{tmp_path}/v1.5/", fps=8, metadata=METADATA)
    assert sorted(p.name for p in (tmp_path / "v1.5").iterdir())[:2] == ["00000.png", "00001.png"]
    assert json.loads((tmp_path / "v1.5" / "metadata.json").read_text())["metadata"] == METADATA
    write_clip(moving(3), f"{tmp_path}/v1.5/", fps=8)
    assert len(read_clip(tmp_path / "v1.5").frames) == 3


@given(
    count=st.integers(1, 90),
    height=st.integers(1, 300),
    width=st.integers(1, 600),
    columns=st.integers(1, 12),
    rows=st.integers(1, 3),
)
@settings(max_examples=20, deadline=None)
def test_contact_sheet_shows_frames_in_order(count: int, height: int, width: int, columns: int, rows: int) -> None:
    levels = np.linspace(20, 220, count).round().astype(np.uint8)
    sheet = np.asarray(contact_sheet(greys(list(levels), height, width), columns, rows=rows, gap=4))
    shown = min(count, columns * rows)
    scale = max(1, 128 // max(height, width)) if max(height, width) <= 256 else 256 / max(height, width)
    cell = max(round(width * scale), 1), max(round(height * scale), 1)
    # Frames begin 8 pixels from the left, and a row's frames lie 4 apart.
    found = [sheet[8 + cell[1] // 2, 8 + k * (cell[0] + 4) + cell[0] // 2, 0] for k in range(min(shown, columns))]
    np.testing.assert_allclose(found, [levels[k * count // shown] for k in range(len(found))], atol=1)


def test_webp_keeps_the_alpha_of_an_opaque_rectangle_on_nothing(tmp_path: Path) -> None:
    """Frames that libwebp cuts to what is opaque, and would take for a clip without alpha."""
    frames = np.zeros((4, 32, 32, 4), np.uint8)
    frames[:, :, 16:] = 255
    frames[:, :, 16:, 0] = np.array([40, 90, 140, 190])[:, None, None]
    read = read_clip(write_clip(frames, tmp_path / "a.webp", fps=8, lossless=True)).frames
    assert np.array_equal(read, frames)
