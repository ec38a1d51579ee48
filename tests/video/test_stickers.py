"""Stickers: real files for every service, read back and held against what it takes."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from openlumiere.cli import main
from openlumiere.cli.stickers import NAMES
from openlumiere.errors import LumiereError
from openlumiere.video import opaque, read_clip, read_metadata, write_clip
from openlumiere.video.stickers import TARGETS, Settings, check_sticker, find_period, make_sticker, target_for
from openlumiere.video.stickers.search import search
from openlumiere.video.stickers.shape import add_outline, shape
from openlumiere.video.stickers.timing import fit_time, resample

# What the services ask for, apart from the code's own table: side, square, KB, seconds, fps, frames.
RULES: dict[str, tuple[int, bool, int, float, float, int]] = {
    "telegram": (512, False, 256, 3, 30, 90),
    "telegram-emoji": (100, True, 64, 3, 30, 90),
    "whatsapp": (512, True, 500, 10, 125, 10**6),
    "discord": (320, True, 512, 5, 1000, 10**6),
    "discord-emoji": (128, True, 256, 1000, 1000, 10**6),
    "slack": (128, True, 128, 1000, 1000, 50),
}
FILES = [(name, suffix) for name, target in TARGETS.items() for suffix in target.suffixes]


def ball(num_frames: int, height: int = 48, width: int = 64, *, period: float | None = None) -> np.ndarray:
    """A green ball that goes round within its clip, or every `period` frames; uint8, (frames, height, width, 4)."""
    y, x = np.mgrid[:height, :width]
    frames = np.zeros((num_frames, height, width, 4), np.uint8)
    for i, frame in enumerate(frames):
        turn = 2 * np.pi * i / (period or num_frames)
        distance = np.hypot(x - width / 2 - 8 * np.cos(turn), y - height / 2 - 8 * np.sin(turn))
        frame[..., 3] = (255 * np.clip(10.5 - distance, 0, 1)).round()
        frame[frame[..., 3] > 0, :3] = [30, 160, 60]
    return frames


def noise(num_frames: int) -> np.ndarray:
    """What no encoder likes: a disc of noise."""
    frames = np.random.default_rng(0).integers(0, 256, (num_frames, 128, 128, 4)).astype(np.uint8)
    y, x = np.mgrid[:128, :128]
    frames[..., 3] = (255 * np.clip(60 - np.hypot(x - 64, y - 64), 0, 1)).round()
    return frames


def check_by_hand(path: Path, name: str) -> None:
    """By the containers' own fields, as far as they say it."""
    side, square, kilobytes, seconds, fps, most = RULES[name]
    data = path.read_bytes()
    assert len(data) <= kilobytes * 1000
    if path.suffix == ".webm":
        with av.open(io.BytesIO(data)) as container:
            (stream,) = container.streams
            assert isinstance(stream, av.VideoStream)
            assert (stream.codec_context.name, stream.metadata["alpha_mode"]) == ("vp9", "1")
            size, duration = (stream.width, stream.height), (container.duration or 0) / 1e6
            count = sum(packet.size > 0 for packet in container.demux(stream))
        shortest = 1.0
    else:
        with Image.open(io.BytesIO(data)) as picture:
            kind = {".webp": "WEBP", ".gif": "GIF"}.get(path.suffix, "PNG")
            assert (picture.format, picture.info["loop"]) == (kind, 0)
            size, count = picture.size, picture.n_frames  # type: ignore[attr-defined]
            lengths = []
            for i in range(count):
                picture.seek(i)
                picture.load()
                lengths.append(picture.info["duration"] / 1000)
        duration, shortest = sum(lengths), min(lengths)
    if path.suffix == ".webp":  # frames' chunks: ANMF, size, x, y, width, height, duration in ms
        at, found = 12, []
        while at < len(data):
            tag, length = struct.unpack_from("<4sI", data, at)
            if tag == b"ANMF":
                found.append(int.from_bytes(data[at + 20 : at + 23], "little"))
            at += 8 + length + length % 2
        assert len(found) == count
        assert min(found) >= 8
    assert size == (side, side) if square else max(size) == side
    assert count <= most
    assert duration <= seconds + 1e-6
    assert count / duration <= fps + 1e-6
    assert shortest >= 0.008


def test_the_tables_name_the_same_services() -> None:
    assert set(RULES) == set(TARGETS) == set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "suffix"), FILES)
def test_an_easy_clip_is_kept_whole_and_shown_right(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"ball{suffix}"
    report = make_sticker(ball(16), 16, name, path, metadata={"prompt": "a ball"})
    check_by_hand(path, name)
    assert list(tmp_path.iterdir()) == [path]
    assert report.measured.num_frames == 16
    assert report.settings.num_frames == 16
    assert report.measured.duration == pytest.approx(1, abs=0.005)
    assert report.measured.transparent
    assert report.measured.size == path.stat().st_size
    assert read_metadata(path) == {"prompt": "a ball"}
    clip = read_clip(path)
    assert clip.fps == pytest.approx(16, rel=0.01)
    assert (clip.frames[:, 0, 0, 3] == 0).all()
    seen = clip.frames[clip.frames[..., 3] > 250][:, :3].astype(int)
    assert np.abs(np.median(seen, 0) - [30, 160, 60]).max() <= 8


@pytest.mark.slow
@pytest.mark.parametrize(("name", "suffix"), [file for file in FILES if file[1] != ".apng"])
def test_a_hard_clip_gets_small_enough_and_says_what_it_gave_up(tmp_path: Path, name: str, suffix: str) -> None:
    path, tried = tmp_path / f"noise{suffix}", []
    report = make_sticker(noise(24 if RULES[name][0] < 200 else 8), 16, name, path, progress=tried.append)
    check_by_hand(path, name)
    assert report.given_up
    assert any(word in report.line() for word in ("quality", "colours", "fps"))
    assert report.measured.size > 0.5 * report.target.max_bytes  # no more was given up than needed
    kilobytes = RULES[name][2]
    assert report.line().endswith(f" KB of {kilobytes} KB")
    assert 2 <= len(tried) <= 40


@pytest.mark.slow
def test_a_folder_of_opaque_frames_is_padded(tmp_path: Path) -> None:
    frames = ball(10, 40, 100)
    folder = write_clip(opaque(frames), f"{tmp_path}/frames/", fps=10)
    clip = read_clip(folder)
    report = make_sticker(clip.frames, clip.fps, "discord-emoji", tmp_path / "a.webp")
    back = read_clip(report.path).frames
    assert back.shape == (10, 128, 128, 4)
    assert (back[:, :36, :, 3] == 0).all()  # 100x40 is 128x51 in the middle
    assert (back[:, 42:86, :, 3] == 255).all()
    long = make_sticker(clip.frames, clip.fps, "telegram", tmp_path / "a.webm").measured
    assert (long.width, long.height, long.pixel_format) == (512, 206, "yuva420p")


# ------------------------------------------------------------------------------------------------ time


@given(period=st.integers(4, 20), count=st.integers(12, 60))
@settings(max_examples=30, deadline=None)
def test_periods_are_found_where_they_are(period: int, count: int) -> None:
    found = find_period(ball(count, 24, 32, period=period))
    if count >= period + max(count // 4, 1):
        assert found == period
    else:
        assert found is None


@pytest.mark.parametrize(
    ("count", "period", "kept"),
    [(80, 20, 40), (80, 17.5, 35), (50, 20, 40), (40, 20, 40), (48, 48, 48), (30, 30, 30), (80, 80, 48)],
)
def test_whole_loops_are_kept(count: int, period: float, kept: int) -> None:
    timed = fit_time(ball(count, 24, 32, period=period), 16, 3)
    assert (len(timed.frames), timed.fps) == (kept, 16)
    assert (timed.change == "") == (kept == count)
    assert ("cut" in timed.change) == (period == 80)
    assert len(fit_time(ball(count, 24, 32), 16, 3, period=period / 16).frames) == kept


def test_shorter_loops_are_found_in_one_that_is_too_long() -> None:
    timed = fit_time(ball(80, 24, 32, period=20), 16, 3, period=5.0)
    assert (len(timed.frames), timed.change) == (40, "2 whole loops, 2.50 of 5.00 s")


def test_a_clip_is_sped_up_only_if_told() -> None:
    frames = ball(80)
    fast = fit_time(frames, 16, 3, period=5.0, speed_up=True)
    assert (len(fast.frames), len(fast.frames) / fast.fps) == (80, pytest.approx(3))
    assert "1.67 times as fast" in fast.change
    short = fit_time(frames[:40], 16, 3, speed_up=True)
    assert (short.fps, short.change) == (16, "")


def test_what_stands_still_or_never_repeats_has_no_period() -> None:
    assert find_period(np.full((20, 8, 8, 4), 255, np.uint8)) is None
    assert find_period(ball(20)) is None
    assert find_period(noise(12)) is None


def test_resampling_spreads_frames_evenly() -> None:
    assert resample(np.arange(6), 3).tolist() == [1, 3, 5]
    assert resample(np.arange(5), 5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_a_slow_clip_of_many_frames_is_thinned_for_slack(tmp_path: Path) -> None:
    report = make_sticker(ball(120), 60, "slack", tmp_path / "a.gif")
    assert report.measured.num_frames == 50
    assert report.measured.duration == pytest.approx(2, abs=0.006)
    assert "25 of 60 fps" in report.line()


# ------------------------------------------------------------------------------------------------ shape


def test_crop_to_the_subject_over_all_frames() -> None:
    frames = np.zeros((2, 100, 200, 4), np.uint8)
    frames[0, 10:30, 20:40], frames[1, 50:70, 100:120] = 255, 255
    shaped = shape(frames, TARGETS["telegram"], crop=True)
    seen = np.argwhere((shaped[..., 3] > 128).any(0))
    height, width = shaped.shape[1:3]
    assert width == 512
    assert height == pytest.approx(60 * (512 - 30) / 100 + 30, abs=2)  # 60 by 100, and margins of 3 %
    assert (seen.min(0) >= 14).all()
    assert (seen.max(0) <= [height - 15, width - 15]).all()


@pytest.mark.parametrize("crop", [False, True])
def test_the_outline_is_as_wide_as_asked_round_and_uncut(crop: bool) -> None:
    frames = np.full((1, 240, 240, 4), 255, np.uint8)
    frames[..., :3] = [200, 30, 30]
    if crop:
        y, x = np.mgrid[-120:120, -120:120]
        frames[..., 3] = (255 * np.clip(90 - np.hypot(y, x), 0, 1)).round()
    plain = shape(frames, TARGETS["discord"], crop=crop)
    lined = shape(frames, TARGETS["discord"], crop=crop, outline=12, outline_colour=(0, 0, 255))
    for edge in (lined[0, 0], lined[0, -1], lined[0, :, 0], lined[0, :, -1]):
        assert edge[..., 3].max() == 0
    blue = (lined[0, 160, :, 2] > 200) & (lined[0, 160, :, 3] > 128)
    red = (lined[0, 160, :, 0] > 150) & (lined[0, 160, :, 3] > 128)
    assert blue.sum() == pytest.approx(24, abs=2)
    assert red.sum() <= (plain[0, 160, :, 3] > 128).sum()


def test_an_outline_is_an_antialiased_disc() -> None:
    point = np.zeros((1, 41, 41, 4), np.uint8)
    point[0, 20, 20] = 255
    alpha = add_outline(point, 8, (255, 255, 255))[0, ..., 3] / 255
    y, x = np.mgrid[-20:21, -20:21]
    np.testing.assert_allclose(alpha, np.clip(8.5 - np.hypot(y, x), 0, 1), atol=0.01)
    assert alpha.sum() == pytest.approx(np.pi * 8**2, rel=0.02)


# ------------------------------------------------------------------------------------------------ search


@given(limit=st.integers(200, 40000), suffix=st.sampled_from([".webm", ".gif"]), power=st.floats(0.5, 3))
@settings(max_examples=60, deadline=None)
def test_the_search_gives_up_in_order_and_no_more_than_needed(limit: int, suffix: str, power: float) -> None:
    def encode(s: Settings) -> bytes:
        return bytes(round(100 * s.num_frames * (s.colours / 256) * s.detail**2 * (0.1 + s.quality / 100) ** power))

    top = Settings(quality=100, num_frames=72)
    sizes: list[int] = []
    try:
        best = search(encode, top, 3.0, suffix, limit, lambda _, size: sizes.append(size))
    except LumiereError:
        assert min(sizes) > limit
        return
    assert len(best.data) == len(encode(best.settings)) <= limit
    assert len(sizes) <= 45
    if len(encode(top)) <= limit:
        assert best.settings == top
    elif best.settings.quality > 40:
        assert (best.settings.colours, best.settings.detail) in {(256, 1), (best.settings.colours, 1)}
    if best.settings.num_frames == 72 and best.settings.colours == 256 and best.settings.detail == 1:
        assert best.settings == top or len(best.data) > 0.7 * limit  # quality alone, to the next step


# ------------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"target": "signal"}, "choose one of"),
        ({"path": "a.gif"}, "end its name with .webm"),
        ({"path": "frames/"}, "end its name with .webm"),
        ({"outline": 60}, "at most 51"),
        ({"outline_colour": "glass"}, "no colour"),
        ({"frames": np.zeros((3, 8, 8, 4), np.uint8)}, "transparent throughout"),
        ({"frames": np.zeros((3, 8, 8, 3), np.uint8), "crop": True}, "no transparency"),
        ({"frames": ball(1).repeat(5, 0), "target": "whatsapp", "path": "a.webp"}, "does not move"),
        ({"fps": 0}, "more than 0"),
    ],
)
def test_what_makes_no_sticker_is_told(tmp_path: Path, arguments: dict, says: str) -> None:
    given = {"frames": ball(4), "fps": 16, "target": "telegram", "path": "a.webm", **arguments}
    with pytest.raises(LumiereError, match=says):
        make_sticker(**{**given, "path": f"{tmp_path}/{given['path']}"})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_file_that_breaks_a_rule_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    frames = np.zeros((70, 64, 100, 4), np.uint8)
    frames[:, 8:, :, 1:] = 255
    frames[::2, 20:30, 20:30] = 255
    path = write_clip(frames, tmp_path / "a.webm", fps=16)
    with pytest.raises(LumiereError, match=r"100x64 pixels instead of one side 512.*4\.375 s instead of 3"):
        check_sticker(path, target_for("telegram"), suffix=".webm", transparent=True)
    path = write_clip(frames[..., :3], tmp_path / "b.webp", fps=16)
    with pytest.raises(LumiereError, match="its transparency lost"):
        check_sticker(path, target_for("whatsapp"), suffix=".webp", transparent=True)
    path = write_clip(frames, tmp_path / "c.gif", fps=16)
    with pytest.raises(LumiereError, match=r"GIF instead of WEBP.*64 pixels"):
        check_sticker(path, target_for("discord-emoji"), suffix=".webp", transparent=True)


def test_an_old_file_survives_a_sticker_that_fails_its_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openlumiere.video.stickers as stickers

    path = tmp_path / "a.gif"
    path.write_bytes(b"old")
    broken = stickers.Encoder.__call__
    monkeypatch.setattr(stickers.Encoder, "__call__", lambda self, settings: broken(self, settings)[:-200])
    with pytest.raises(LumiereError):
        make_sticker(ball(8), 16, "slack", path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------------------------------ command line


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(ball(80, period=20), "ball.webp", fps=16)
    assert main(["sticker", "ball.webp", "--for", "telegram-emoji", "--crop", "subject", "--outline", "3"]) == 0
    path = Path("ball.telegram-emoji.webm")
    check_by_hand(path, "telegram-emoji")
    said = capsys.readouterr().out
    assert said.startswith(
        f"wrote {path} for telegram-emoji: 100x100, 40 frames, 2.50 s; 2 whole loops, 2.50 of 5.00 s"
    )
    assert main(["info", str(path)]) == 0
    assert "a sticker, made with --for telegram-emoji --crop subject --outline 3" in capsys.readouterr().out
    assert main(["sticker", "ball.webp", "--for", "telegram-emoji"]) == 0
    assert Path("ball.telegram-emoji-v2.webm").exists()
    for words, says in {
        ("ball.webp", "--for", "slack", "-o", "a.webp"): "end its name with .gif",
        ("gone.webp", "--for", "slack"): "does not exist",
        ("ball.webp", "--for", "slack", "--background", "glass"): "no colour",
    }.items():
        assert main(["sticker", *words]) == 2
        assert says in capsys.readouterr().err
    assert main(["generate", "a heart", "--outline", "3"]) == 2
    assert "--outline is for stickers" in capsys.readouterr().err
    assert main(["generate", "a heart", "--for", "telegram", "-o", "a.mp4"]) == 2
    assert "end its name with .webm" in capsys.readouterr().err


@pytest.mark.slow
def test_generate_makes_a_loop_as_long_as_the_sticker_may_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["a red heart growing", "--for", "telegram-emoji", "--steps", "1", "--no-upscale", "--seed", "1"]
    assert main(["generate", *words]) == 0
    path = Path("a-red-heart-growing.webm")
    check_by_hand(path, "telegram-emoji")
    assert "wrote a-red-heart-growing.webm (seed 1): 100x100, 48 frames, 3.00 s" in capsys.readouterr().out
    assert main(["info", str(path)]) == 0
    told = capsys.readouterr().out
    assert "--loop --frames 48" in told
    assert "--for telegram-emoji" in told.splitlines()[-1]
