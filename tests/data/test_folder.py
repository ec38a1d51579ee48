"""A user's own clips: captions, what is skipped and why, and the windows that training sees."""

from __future__ import annotations

import json
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from openlumiere.cli import main
from openlumiere.data.folder import ClipFolder, scan
from openlumiere.errors import LumiereError
from openlumiere.video import write_clip


def counting(path: Path, *, seconds: float = 6, rate: float = 16, height: int = 32, width: int = 48) -> Path:
    """A clip whose grey level tells its time: level = 30 * seconds, modulo 256."""
    count = round(seconds * rate)
    with av.open(str(path), "w") as container:
        codec = "libvpx-vp9" if path.suffix == ".webm" else "libx264"
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001), options={"crf": "8"})
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = height, width, "yuv420p", 20
        for i in range(count):
            level = np.full((height, width, 3), round(30 * i / rate) % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(level, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def caption(path: Path, text: str) -> None:
    path.with_suffix(".txt").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three usable clips of different kinds, each with a sidecar."""
    folder = tmp_path_factory.mktemp("clips")
    for name, rate in {"a.mp4": 16, "b.mov": 30, "c.webm": 24}.items():
        caption(counting(folder / name, rate=rate), f"clip {name}\n in words ")
    return folder


def test_sidecar_captions(folder: Path) -> None:
    report = scan(folder)
    assert [clip.path.name for clip in report.clips] == ["a.mp4", "b.mov", "c.webm"]
    assert [clip.captions for clip in report.clips] == [(f"clip {n} in words",) for n in ("a.mp4", "b.mov", "c.webm")]
    assert report.skipped == {}
    assert [clip.info.fps for clip in report.clips] == pytest.approx([16, 30, 24], rel=0.01)
    assert [clip.info.duration for clip in report.clips] == pytest.approx([6, 6, 6], abs=0.05)


@pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.csv"])
@pytest.mark.parametrize("column", ["text", "caption"])
def test_tables_of_captions(tmp_path: Path, table: str, column: str) -> None:
    (tmp_path / "train").mkdir()
    write_clip(np.zeros((4, 8, 8, 3)), tmp_path / "train" / "a.mp4")
    write_clip(np.zeros((4, 8, 8, 3)), tmp_path / "train" / "b.gif")
    write_clip(np.zeros((4, 8, 8, 3)), tmp_path / "train" / "silent.mp4")
    rows = [
        ("a.mp4", "a cat, asleep"),
        ("a.mp4", "ein “Kätzchen”"),
        ("b.gif", "a dog"),
        ("gone.mp4", "x"),
        ("silent.mp4", ""),
    ]
    if table.endswith("jsonl"):
        text = "\n".join(json.dumps({"file_name": name, column: said}) for name, said in rows)
    else:
        text = f"file_name,{column}\n" + "".join(f'{name},"{said}"\n' for name, said in rows)
    (tmp_path / "train" / table).write_text(text, encoding="utf-8")
    report = scan(tmp_path, num_frames=4)
    assert {clip.path.name: clip.captions for clip in report.clips} == {
        "a.mp4": ("a cat, asleep", "ein “Kätzchen”"), "b.gif": ("a dog",),
    }  # fmt: skip
    assert set(report.skipped) == {"train/gone.mp4", "train/silent.mp4"}
    assert "missing" in report.skipped["train/gone.mp4"]
    assert "no caption" in report.skipped["train/silent.mp4"]


@pytest.mark.slow
def test_unusable_clips_are_listed_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = counting(tmp_path / "good.mp4")
    write_clip(np.random.default_rng(0).random((90, 32, 32, 3)), tmp_path / "cut.mp4")
    data = (tmp_path / "cut.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "noise.mov").write_bytes(np.random.default_rng(0).bytes(5000))
    Image.new("RGB", (8, 8)).save(tmp_path / "still.gif")
    counting(tmp_path / "short.webm", seconds=4.9)
    counting(tmp_path / "mute.mp4")
    for path in [p for p in tmp_path.iterdir() if p.name != "mute.mp4"]:
        caption(path, "something")
    (tmp_path / "notes.md").write_text("not a clip")
    (tmp_path / ".hidden.mp4").write_bytes(whole.read_bytes())
    report = scan(tmp_path)
    assert [clip.path.name for clip in report.clips] == ["good.mp4"]
    reasons = {"cut.mp4": "cut short", "noise.mov": "corrupt", "still.gif": "too short", "short.webm": "too short",
               "mute.mp4": "no caption"}  # fmt: skip
    assert report.skipped.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in report.skipped[name]
        assert "\n" not in report.skipped[name]
    assert main(["data", "folder", str(tmp_path), "--frames", "80", "--fps", "16"]) == 0
    text = capsys.readouterr().out
    assert "1 usable clips, 5 skipped" in text
    assert "48x32 (1)" in text
    assert all(f"{name}: {report.skipped[name]}" in text for name in reasons)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("metadata.jsonl", '{"file_name": "a.mp4", "text": "x"}\n{broken', "line 2 .* not JSON"),
        ("metadata.jsonl", "[1]", "line 1 .* not a JSON object"),
        ("metadata.jsonl", '{"file_name": "a.mp4"}', "lacks file_name, or text"),
        ("metadata.jsonl", '{"file_name": "a.mp4", "text": 3}', "no text"),
        ("metadata.csv", "file,text\na.mp4,x\n", "lacks file_name"),
    ],
)
def test_malformed_tables(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(LumiereError, match=says):
        scan(tmp_path)


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(LumiereError, match="not a folder"):
        scan(tmp_path / "none")
    with pytest.raises(LumiereError, match="no usable clip"):
        ClipFolder(tmp_path, size=16)


@pytest.mark.slow
def test_items(folder: Path) -> None:
    clips = ClipFolder(folder, size=16, num_frames=80, fps=16, seed=3)
    assert len(clips) == 3
    items = [clips[n] for n in range(6)]
    for item in items:
        assert item["pixels"].shape == (3, 80, 16, 16)
        assert item["pixels"].dtype == torch.float32
        assert item["pixels"].abs().max() <= 1
    # Every epoch shows every clip once.
    for epoch in (items[:3], items[3:]):
        assert len({item["caption"] for item in epoch}) == 3
    again = ClipFolder(folder, size=16, num_frames=80, fps=16, seed=3)
    for n in (5, 0, 4):
        assert torch.equal(again[n]["pixels"], items[n]["pixels"])
        assert again[n]["caption"] == items[n]["caption"]
    other = ClipFolder(folder, size=16, num_frames=80, fps=16, seed=4)
    assert any(not torch.equal(other[n]["pixels"], items[n]["pixels"]) for n in range(3))


@pytest.mark.slow
@given(index=st.integers(0, 60), fps=st.sampled_from([4.0, 10.0, 16.0, 25.0]), count=st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_windows_run_at_the_asked_rate(folder: Path, index: int, fps: float, count: int) -> None:
    report = scan(folder, num_frames=count, fps=fps)
    pixels = ClipFolder(report, size=8, num_frames=count, fps=fps, seed=1)[index]["pixels"]
    times = (pixels.mean((0, 2, 3)).numpy() + 1) * 127.5 / 30
    # Each frame is the one on screen, so at most one frame of 1/16 s old; 1.5 levels for the codec.
    slack = 1 / 16 + 1.5 / 30
    steps = times - times[0] - np.arange(count) / fps
    assert np.abs(steps).max() <= slack
    assert times[0] + slack >= 0
    assert times[-1] <= 6


@pytest.mark.slow
def test_windows_start_anywhere(folder: Path) -> None:
    clips = ClipFolder(scan(folder, num_frames=8), size=8, num_frames=8, seed=0)
    starts = [float((clips[n]["pixels"][:, 0].mean() + 1) * 127.5 / 30) for n in range(60)]
    assert min(starts) < 1
    assert max(starts) > 4.5


@pytest.mark.slow
def test_a_clip_of_exactly_the_asked_length(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.gif", "c.webp"):
        caption(write_clip(np.random.default_rng(0).random((80, 16, 16, 3)), tmp_path / name), name)
    clips = ClipFolder(tmp_path, size=16)
    assert len(clips) == 3
    for n in range(3):
        frames = clips[n]["pixels"]
        assert (frames[:, 1:] - frames[:, :-1]).abs().amax((0, 2, 3)).min() > 0.1  # all 80 differ


def test_central_square_and_transparency(tmp_path: Path) -> None:
    frames = np.zeros((4, 32, 96, 4), np.uint8)
    frames[..., 3] = 255
    frames[:, :, 32:64] = [255, 0, 0, 255]  # the central square is red
    frames[:, :8, :8] = 0
    caption(write_clip(frames, tmp_path / "a.webp"), "red")
    item = ClipFolder(scan(tmp_path, num_frames=4), size=16, num_frames=4)[0]["pixels"]
    assert item[0].min() > 0.98
    assert item[1:].max() < -0.98
    frames[..., 3] = 0
    write_clip(frames, tmp_path / "a.webp")
    assert ClipFolder(scan(tmp_path, num_frames=4), size=16, num_frames=4)[0]["pixels"].min() == 1


def test_a_clip_that_proves_corrupt_is_named(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        caption(counting(tmp_path / name), name)
    clips = ClipFolder(tmp_path, size=8)
    (tmp_path / "b.mp4").write_bytes(b"\0" * 2000)
    with pytest.raises(LumiereError, match=r"b\.mp4"):
        [clips[n] for n in range(2)]


@pytest.mark.slow
def test_workers_give_the_same_items(folder: Path) -> None:
    clips = ClipFolder(folder, size=8, num_frames=16, seed=2)
    loader = torch.utils.data.DataLoader(clips, batch_size=3, num_workers=1)
    assert torch.equal(next(iter(loader))["pixels"], torch.stack([clips[n]["pixels"] for n in range(3)]))


@pytest.mark.slow
def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    peaks = []
    for seconds in (2, 20):
        folder = tmp_path / str(seconds)
        folder.mkdir()
        caption(counting(folder / "a.mp4", seconds=seconds, height=256, width=256), "a")
        clips = ClipFolder(scan(folder, num_frames=16), size=8, num_frames=16)
        tracemalloc.start()
        clips[0]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]
    assert peaks[1] < 16 * 256 * 256 * 3  # less than the window at full size


def boxed(folder: Path, *, frames: int = 40, **row: object) -> np.ndarray:
    """A white square of 8 pixels that moves over 96 x 32 black ones, with its boxes in a table; returns the boxes."""
    clip = np.zeros((frames, 32, 96, 3), np.uint8)
    boxes = []
    for i in range(frames):
        x, y = 34 + i // 2, 4 + i // 4
        clip[i, y : y + 8, x : x + 8] = 255
        boxes.append([x, y, x + 8, y + 8])
    write_clip(clip, folder / "a.webp", lossless=True)
    told = {"file_name": "a.webp", "text": "a square", "boxes": boxes} | row
    (folder / "metadata.jsonl").write_text(json.dumps(told) + "\n", encoding="utf-8")
    return np.array(boxes)


@pytest.mark.parametrize("index", range(3))
def test_boxes_become_the_layout_of_what_is_shown(tmp_path: Path, index: int) -> None:
    boxed(tmp_path)
    item = ClipFolder(scan(tmp_path, num_frames=8), size=32, num_frames=8)[index]
    weight = (item["pixels"].mean(0) + 1) / 2
    grid = (torch.arange(32) + 0.5) / 16 - 1
    mass = weight.sum((1, 2))
    x, y = (weight.sum(1) * grid).sum(1) / mass, (weight.sum(2) * grid).sum(1) / mass
    layout = item["layout"]
    assert layout.shape == (8, 6)
    assert torch.allclose(layout[:, 0], x, atol=1 / 16)  # between two frames, the box is between two pixels
    assert torch.allclose(layout[:, 1], y, atol=1 / 16)
    assert torch.allclose(layout[:, 2].exp(), mass.sqrt() / 32, atol=0.02)
    assert (layout[:, 3:] == torch.tensor([0.0, 1.0, 1.0])).all()
    assert item["layout"][0, 0] != item["layout"][-1, 0]


def test_boxes_at_times_of_their_own_and_moments_without_one(tmp_path: Path) -> None:
    row = {"boxes": [[32, 0, 48, 16], [48, 16, 64, 32], None, [32, 0, 48, 16]], "box_times": [0.0, 1.0, 1.5, 2.0]}
    boxed(tmp_path, **row)
    clip = scan(tmp_path, num_frames=8).clips[0]
    assert clip.boxes is not None
    found = clip.boxes.at(np.array([-1, 0.0, 0.5, 1.0, 1.2, 1.5, 1.9, 2.0, 2.5]), clip.info.duration)
    assert [bool(np.isnan(row).all()) for row in found] == [False] * 4 + [True] * 3 + [False] * 2
    np.testing.assert_allclose(found[:4], [[32, 0, 48, 16], [32, 0, 48, 16], [40, 8, 56, 24], [48, 16, 64, 32]])
    layouts = torch.cat(
        [ClipFolder(scan(tmp_path, num_frames=8), size=16, num_frames=8)[i]["layout"] for i in range(9)]
    )
    told = layouts[:, 5] == 1
    assert 0 < told.sum() < len(told)
    assert (layouts[~told] == 0).all()


def test_clips_without_boxes_beside_one_with_them_are_told_nothing(tmp_path: Path) -> None:
    boxed(tmp_path)
    caption(counting(tmp_path / "b.mp4"), "grey")
    data = ClipFolder(scan(tmp_path, num_frames=8), size=16, num_frames=8)
    items = {item["caption"]: item["layout"] for item in (data[0], data[1])}
    assert (items["grey"] == 0).all()
    assert (items["a square"][:, 5] == 1).all()
    (tmp_path / "metadata.jsonl").unlink()
    assert "layout" not in ClipFolder(scan(tmp_path, num_frames=8), size=16, num_frames=8)[0]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"boxes": "left"}, r"line 1 of .* boxes that are not"),
        ({"boxes": []}, "boxes that are not"),
        ({"boxes": [[0, 0, 5]]}, "boxes that are not"),
        ({"boxes": [[5, 0, 5, 5]]}, "boxes that are not"),
        ({"boxes": [[0, 0, 5, "5"]]}, "boxes that are not"),
        ({"boxes": None, "box_times": [1.0]}, "box_times without boxes"),
        ({"boxes": [[0, 0, 5, 5]], "box_times": [0, 1]}, "rising seconds"),
        ({"boxes": [[0, 0, 5, 5]] * 2, "box_times": [1, 1]}, "rising seconds"),
    ],
)
def test_malformed_boxes_are_one_line(tmp_path: Path, row: dict[str, object], says: str) -> None:
    boxed(tmp_path, **row)
    with pytest.raises(LumiereError, match=says) as error:
        scan(tmp_path, num_frames=8)
    assert "\n" not in str(error.value)
