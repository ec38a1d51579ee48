"""`lumiere data emoji` on small archives of real animated WebP files, drawn here, as the npm packages hold them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from openlumiere.data.emoji import shards as builder
from openlumiere.data.emoji.dataset import EmojiClips
from openlumiere.data.emoji.scenes import is_test_artwork, vocabulary
from openlumiere.data.emoji.shards import (
    FPS,
    BuildReport,
    build,
    decode_loop,
    fetch,
    iterate,
    load_atlases,
    load_stills,
    names_of,
)
from openlumiere.errors import LumiereError
from openlumiere.files import partial_path

TIGER, LION, HEART, CAT, FIST, PIG = "1f405", "1f981", "2764-fe0f", "1f431", "1f44a", "1f416"
SIZE = 32


def pictures(count: int, *, hue: int = 0, side: int = 64) -> list[Image.Image]:
    """Frames (RGBA) of a square that moves down, half transparent in its lower half."""
    frames = []
    for i in range(count):
        frame = np.zeros((side, side, 4), dtype=np.uint8)
        top = (i * 5) % (side // 2)
        frame[top : top + side // 2, 16:48] = (200, hue, (i * 37) % 256, 255)
        frame[top + side // 4 : top + side // 2, 16:48, 3] = 128
        frames.append(Image.fromarray(frame))
    return frames


def webp(frames: list[Image.Image], durations: int | list[int]) -> bytes:
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=durations, loop=0, lossless=True)
    return buffer.getvalue()


def archive(path: Path, files: dict[str, bytes]) -> None:
    """An npm package's archive."""
    with tarfile.open(path, "w:gz") as tar:
        for name, data in (
            {"package.json": b"{}"} | {f"assets/{key}.webp": data for key, data in files.items()}
        ).items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def archive_names() -> list[str]:
    return [f"{p.removeprefix('@').replace('/', '-')}-{builder.PACKAGE_VERSION}.tgz" for p in builder.PACKAGES]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    equal = pictures(2)
    contents: list[dict[str, bytes]] = [
        {TIGER: webp(pictures(24), 42), "1f44b-1f3fd": webp(pictures(6), 100), FIST: webp(pictures(6, hue=9), 100)},
        {LION: webp(pictures(10, hue=80), [50, 150] * 5), CAT: b"RIFF, and then nothing"},
        # Equal frames in a row, which WebP stores as one: 3 x 125 ms, then 5 x 125 ms.
        {HEART: webp([equal[0]] * 3 + [equal[1]] * 5, 125), PIG: webp(pictures(1), 40)},
        {"1ffff": webp(pictures(4), 125), "1f42d": webp(pictures(8), 125)[:-300]},
    ]
    for name, files in zip(archive_names(), contents, strict=True):
        archive(folder / name, files)
    return folder


@pytest.fixture
def two_per_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "_CLIPS_PER_SHARD", 2)


@pytest.fixture(scope="module")
def built(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildReport]:
    out = tmp_path_factory.mktemp("emoji")
    return out, build(out, size=SIZE, workers=2, cache=packages)


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.glob("emoji-*"))}


# What is built


def test_animations_are_written_and_the_rest_is_counted_and_named(built: tuple[Path, BuildReport]) -> None:
    out, report = built
    assert report.written == 4
    assert report.still == 1
    assert report.shards == 1
    assert set(report.broken) == {f"{CAT}.webp", "1ffff.webp", "1f42d.webp"}
    assert "no emoji has the code points" in report.broken["1ffff.webp"]
    assert [meta["emoji"] for meta, _ in iterate(out)] == [TIGER, FIST, LION, HEART]


def test_loops_have_the_duration_of_the_original_at_16_fps(built: tuple[Path, BuildReport]) -> None:
    loops = {meta["emoji"]: frames for meta, frames in iterate(built[0])}
    seconds = {TIGER: 24 * 0.042, FIST: 0.6, LION: 1.0, HEART: 1.0}
    for key, frames in loops.items():
        assert frames.shape == (round(seconds[key] * FPS), SIZE, SIZE, 4), key
        assert frames.dtype == np.uint8


def test_each_frame_is_the_one_on_screen_at_its_time(built: tuple[Path, BuildReport]) -> None:
    loops = {meta["emoji"]: frames for meta, frames in iterate(built[0])}
    # 10 frames, shown for 50 and 150 ms in turn: sixteenths of the second see these.
    ends = np.cumsum([0.05, 0.15] * 5)
    shown = [int(np.searchsorted(ends, (i + 0.5) / 16)) for i in range(16)]
    originals = [np.asarray(frame.resize((SIZE, SIZE), Image.LANCZOS)) for frame in pictures(10, hue=80)]
    assert np.array_equal(loops[LION], np.stack([originals[i] for i in shown]))
    # Equal frames: 6 of 16 show the first, 10 the second.
    heart = loops[HEART]
    assert (heart[:6] == heart[0]).all()
    assert (heart[6:] == heart[6]).all()
    assert not np.array_equal(heart[5], heart[6])


def test_alpha_is_kept_without_loss(built: tuple[Path, BuildReport]) -> None:
    tiger = next(frames for meta, frames in iterate(built[0], [TIGER]))
    originals = [np.asarray(frame.resize((SIZE, SIZE), Image.LANCZOS)) for frame in pictures(24)]
    assert np.array_equal(tiger[0], originals[0])
    assert {0, 128, 255} <= set(np.unique(tiger[..., 3]).tolist())


def test_metadata_names_the_emoji(built: tuple[Path, BuildReport]) -> None:
    meta = next(meta for meta, _ in iterate(built[0], [HEART]))
    assert meta == {"emoji": HEART, "names": meta["names"], "fps": 16, "loop_frames": 16, "size": SIZE}
    assert meta["names"][0] == "red heart"
    assert names_of("1f1f3-1f1f1")[0].lower() == "netherlands"
    assert "oncoming fist" in names_of(FIST)


def test_skin_tones_come_when_asked_for(packages: Path, tmp_path: Path, built: tuple[Path, BuildReport]) -> None:
    report = build(tmp_path, size=SIZE, skin_tones=True, workers=1, cache=packages)
    assert report.written == built[1].written + 1
    assert "1f44b-1f3fd" in [meta["emoji"] for meta, _ in iterate(tmp_path)]
    assert "skin-tone variants included" in (tmp_path / "DATASHEET.md").read_text(encoding="utf-8")


def test_the_datasheet_tells_source_licence_and_what_is_missing(built: tuple[Path, BuildReport]) -> None:
    text = (built[0] / "DATASHEET.md").read_text(encoding="utf-8")
    for fact in ("@lobehub/fluent-emoji-anim-4", "MIT", "4 loops of 32x32", "1 still", f"`{CAT}.webp`", "left out"):
        assert fact in text


# Stopping, going on, and bad input


def leave_unfinished(path: Path) -> None:
    """Leave what a killed process had written of a file."""
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    partial = partial_path(path)
    partial.with_name(partial.name.replace(f"-{os.getpid()}-", f"-{killed.pid}-")).write_bytes(b"half")


@pytest.mark.slow
@pytest.mark.usefixtures("two_per_shard")
def test_only_what_is_missing_is_written_again(packages: Path, tmp_path: Path) -> None:
    report = build(tmp_path, size=SIZE, workers=1, cache=packages)
    assert report.shards == 4
    before = state_of(tmp_path)
    (tmp_path / f"emoji-{SIZE}-0001.tar").unlink()
    (tmp_path / f"emoji-{SIZE}-0002.json").unlink()  # killed before the index, in an older layout
    leave_unfinished(tmp_path / f"emoji-{SIZE}-0001.tar")
    assert build(tmp_path, size=SIZE, workers=1, cache=packages) == report
    after = state_of(tmp_path)
    assert {name: data for name, (_, data) in after.items()} == {name: data for name, (_, data) in before.items()}
    rewritten = {name for name in after if after[name][0] != before[name][0]}
    assert rewritten == {f"emoji-{SIZE}-000{i}.{suffix}" for i in (1, 2) for suffix in ("tar", "json")}


@pytest.mark.slow
@pytest.mark.usefixtures("two_per_shard")
def test_the_number_of_workers_changes_nothing(packages: Path, tmp_path: Path) -> None:
    reports = [build(tmp_path / str(n), size=SIZE, workers=n, cache=packages) for n in (1, 3)]
    assert reports[0] == reports[1]
    one, three = state_of(tmp_path / "1"), state_of(tmp_path / "3")
    assert {name: data for name, (_, data) in one.items()} == {name: data for name, (_, data) in three.items()}


def test_shards_of_other_settings_are_not_mixed_in(packages: Path, built: tuple[Path, BuildReport]) -> None:
    for settings in ({"size": 48}, {"size": SIZE, "skin_tones": True}):
        with pytest.raises(LumiereError, match=rf"holds shards of another build, such as emoji-{SIZE}-0000\.tar"):
            build(built[0], workers=1, cache=packages, **settings)


@pytest.mark.parametrize("damage", ["cut", "flipped", "no archive"])
def test_a_damaged_archive_is_named(packages: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(packages, tmp_path / "cache")
    target = tmp_path / "cache" / archive_names()[1]
    data = bytearray(target.read_bytes())
    match damage:
        case "cut":
            data = data[: len(data) // 2]
        case "flipped":
            data[len(data) // 2 : len(data) // 2 + 40] = bytes(255 - byte for byte in data[len(data) // 2 :][:40])
        case _:
            data = bytearray(b"<html>502 Bad Gateway</html>")
    target.write_bytes(data)
    with pytest.raises(LumiereError, match=rf"{target.name} is damaged .*; delete it and run the command again"):
        build(tmp_path / "out", size=SIZE, workers=1, cache=tmp_path / "cache")
    assert not list((tmp_path / "out").glob("emoji-*"))


def test_sizes_that_the_pictures_do_not_have_are_refused(tmp_path: Path) -> None:
    for size in (8, 512):
        with pytest.raises(LumiereError, match=f"--size {size}: .* choose from 16 to 256"):
            build(tmp_path, size=size)


# npm


def npm(folder: Path, script: str) -> None:
    """An executable `npm` for a machine without network."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (folder / "npm").chmod(0o755)


def test_packages_are_fetched_with_npm_once(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(
        tmp_path / "bin",
        f'echo "$@" >> "{tmp_path}/calls"\n'
        # pack --silent @lobehub/fluent-emoji-anim-1@1.0.0 --pack-destination DIR
        f"""cp "{packages}/$(echo "$3" | sed 's/^@//; s,/,-,; s/@/-/').tgz" "$5/" """,
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    cache = tmp_path / "cache"
    assert [path.name for path in fetch(cache)] == archive_names()
    assert sorted(path.name for path in cache.iterdir()) == sorted(archive_names())
    fetch(cache)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[2] for call in calls] == [f"{p}@{builder.PACKAGE_VERSION}" for p in builder.PACKAGES]


@pytest.mark.parametrize(
    "script", ["echo 'npm error code ENOTFOUND' >&2; echo 'npm error network' >&2; exit 1", "exit 0"]
)
def test_a_failing_npm_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    npm(tmp_path / "bin", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(
        LumiereError, match=r"npm could not fetch @lobehub/fluent-emoji-anim-1 .*check the network"
    ) as told:
        fetch(tmp_path / "cache")
    assert "\n" not in str(told.value)
    assert ("ENOTFOUND npm error network" in str(told.value)) == ("ENOTFOUND" in script)


def test_a_missing_npm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LumiereError, match=r"the npm client is missing: install Node.js, or put .*anim-1.*tgz into"):
        fetch(tmp_path / "cache")


# Reading back


def test_atlases_are_premultiplied_and_resized(built: tuple[Path, BuildReport]) -> None:
    atlases = load_atlases(built[0], ["tiger", "heart"], side=16)
    assert set(atlases) == {"tiger", "heart"}
    assert atlases["heart"].names == vocabulary()["subjects"]["heart"]["names"]
    frames = atlases["tiger"].frames
    assert frames.shape == (16, 4, 16, 16)
    assert frames.dtype == torch.uint8
    assert (frames[:, :3].int() <= frames[:, 3:].int() + 1).all()  # premultiplied: no colour brighter than its alpha
    half = (frames[:, 3] > 120) & (frames[:, 3] < 136)
    assert half.any()
    assert frames[:, 0][half].float().mean() == pytest.approx(200 * 128 / 255, abs=4)
    whole = load_atlases(built[0], side=64)
    assert set(whole) == {"tiger", "lion", "heart", FIST}  # by code point where the vocabulary has no word
    assert whole["tiger"].frames.shape[-1] == SIZE  # never enlarged


def test_missing_data_is_told(built: tuple[Path, BuildReport], tmp_path: Path) -> None:
    with pytest.raises(LumiereError, match=r"no shards in .*; make them with: lumiere data emoji"):
        load_atlases(tmp_path, ["tiger"])
    with pytest.raises(LumiereError, match=r"unknown subjects \['gryphon'\]; known: tiger, lion"):
        load_atlases(built[0], ["gryphon"])
    with pytest.raises(LumiereError, match=r"lacks the subjects \['pig'\]; make it anew"):
        load_atlases(built[0], ["tiger", "pig"])


def test_a_damaged_shard_is_told(built: tuple[Path, BuildReport], tmp_path: Path) -> None:
    shutil.copytree(built[0], tmp_path / "data")
    shard = tmp_path / "data" / f"emoji-{SIZE}-0000.tar"
    shard.write_bytes(shard.read_bytes()[:1500])
    with pytest.raises(LumiereError, match="is damaged"):
        load_atlases(tmp_path / "data", ["tiger", "heart"])


@pytest.mark.slow
@pytest.mark.parametrize("window", [1, 3, 8])
def test_clips_of_the_data_set_are_a_function_of_seed_and_index(built: tuple[Path, BuildReport], window: int) -> None:
    def clips(seed: int, window: int = 0) -> EmojiClips:
        return EmojiClips(built[0], subjects=["tiger", "lion"], size=16, num_frames=8, window=window, seed=seed)

    for index in (0, 7, 10**6):
        clip, part = clips(1)[index], clips(1, window)[index]
        assert clip["pixels"].shape == (3, 8, 16, 16)
        assert part["pixels"].shape == (3, window, 16, 16)
        assert clip["caption"] == part["caption"]
        assert torch.equal(clips(1, window)[index]["pixels"], part["pixels"])
        # A window is some consecutive frames of the clip with the same index.
        starts = clip["pixels"].unfold(1, window, 1).permute(1, 0, 4, 2, 3)
        assert (starts - part["pixels"]).abs().amax((1, 2, 3, 4)).min() < 1e-5
    assert clips(2)[0]["caption"] != clips(1)[0]["caption"]


def test_frames_can_be_left_out_and_windows_say_where_they_are(built: tuple[Path, BuildReport]) -> None:
    def clips(**options: int) -> EmojiClips:
        return EmojiClips(built[0], subjects=["tiger", "lion"], size=16, num_frames=8, seed=1, **options)

    whole, half, third = clips()[0], clips(frame_stride=2)[0], clips(frame_stride=3)[0]
    assert torch.equal(half["pixels"], whole["pixels"][:, ::2])
    assert torch.equal(third["pixels"], whole["pixels"][:, ::3])
    assert "frame_positions" not in whole | half  # networks take frame n of F to be at n / F
    assert third["frame_positions"].tolist() == [0, 3 / 8, 6 / 8]  # every third of 8 is not at thirds
    part = clips(frame_stride=2, window=2)[0]
    at = (part["frame_positions"] * 8).round().long()
    assert at[1] - at[0] == 2
    assert torch.equal(part["pixels"], whole["pixels"][:, at])
    with pytest.raises(LumiereError, match="choose 1 to 8"):
        clips(frame_stride=9)


@pytest.mark.slow
def test_rgba_clips_say_where_their_subject_is(built: tuple[Path, BuildReport]) -> None:
    def clips(**options: Any) -> EmojiClips:
        return EmojiClips(built[0], subjects=["tiger", "lion"], size=16, num_frames=8, seed=1, **options)

    rgba, rgb = clips(channels=4, alpha=True), clips(alpha=True)
    cut = 0
    for index in range(60):
        sample = rgba[index]
        assert sample["pixels"].shape == (4, 8, 16, 16)
        assert sample["layout"].shape == (8, 6)
        assert sample["pixels"].abs().max() <= 1
        colors, alpha = (sample["pixels"][:3] + 1) / 2, (sample["pixels"][3:] + 1) / 2
        assert (colors <= alpha + 1e-5).all()  # premultiplied
        if rgba.scenes(index).background != "transparent":
            assert alpha.min() > 1 - 1e-5
        else:
            cut += 1
            torch.testing.assert_close(alpha, sample["alpha"], rtol=0, atol=1e-5)
        # The layout is where the alpha is, and nothing is outside of it.
        axis = (torch.arange(16) + 0.5) / 8 - 1
        x, y, log_side, sin, cos, told = sample["layout"][0].tolist()
        distance = ((axis[None] - x).square() + (axis[:, None] - y).square()).sqrt() / np.exp(log_side)
        assert sample["alpha"][0, 0][distance > 2**0.5 + 0.2].sum() == 0
        assert sample["alpha"][0, 0][distance < 0.7].mean() > 0.2
        assert sin**2 + cos**2 == pytest.approx(1, abs=1e-5)
        assert told == 1
        assert "transparent" not in rgb[index]["caption"]
    assert 5 < cut < 30
    assert rgb[0]["pixels"].shape == (3, 8, 16, 16)
    with pytest.raises(LumiereError, match=r"2 channels: choose 3 .RGB. or 4"):
        clips(channels=2)


def test_a_part_of_the_clips_shows_still_pictures_of_other_emoji(built: tuple[Path, BuildReport]) -> None:
    options: dict[str, Any] = {"subjects": ["tiger"], "size": 16, "num_frames": 80, "channels": 4, "seed": 5}
    clips, without = EmojiClips(built[0], stills=0.3, **options), EmojiClips(built[0], **options)
    stills = load_stills(built[0], without=["tiger"], side=32)
    assert set(stills) == {code for code in (FIST, LION, HEART) if not is_test_artwork(code)}
    assert all(len(atlas.frames) == 1 for atlas in stills.values())
    samples = clips.__getitems__(range(100))
    assert 15 < sum(bool(sample["still"]) for sample in samples) < 45
    names = [name for atlas in stills.values() for name in atlas.names]
    for index, sample in enumerate(samples):
        if sample["still"]:
            assert any(name in sample["caption"] for name in names)
        else:
            assert sample["caption"] == without[index]["caption"]
            torch.testing.assert_close(sample["pixels"], without[index]["pixels"], rtol=0, atol=1e-5)
    assert "still" not in without[0]


def test_where_there_are_no_others_no_stills_are_asked_for(loops: Path) -> None:
    with pytest.raises(LumiereError, match=r"no emoji but the subjects: leave data\.stills out"):
        EmojiClips(loops, subjects=["tiger", "heart"], size=16, num_frames=8, stills=0.3)


def test_a_batch_drawn_at_once_is_its_samples(built: tuple[Path, BuildReport]) -> None:
    clips = EmojiClips(
        built[0], subjects=["tiger", "lion"], size=16, num_frames=8, window=3, channels=4, alpha=True, seed=5
    )
    together = next(iter(DataLoader(clips, batch_sampler=[[3, 1, 4, 1000]])))
    for row, index in enumerate((3, 1, 4, 1000)):
        alone = clips[index]
        assert together["caption"][row] == alone["caption"]
        for name in ("pixels", "layout", "frame_positions", "alpha"):
            torch.testing.assert_close(together[name][row], alone[name], rtol=0, atol=1e-5)


def test_frames_too_far_apart_for_the_fastest_motion_are_refused(built: tuple[Path, BuildReport]) -> None:
    def clips(**options: Any) -> EmojiClips:
        return EmojiClips(built[0], subjects=["tiger"], size=16, num_frames=80, **options)

    assert len(clips(frame_stride=3).shown) == 27
    for options in ({"frame_stride": 4}, {"fps": 4.0}, {"frame_stride": 5, "window": 4}):
        with pytest.raises(LumiereError, match=r"a motion with a period of 0.625 .*data.fps / data.frame_stride"):
            clips(**options)
    assert clips(frame_stride=10, window=1)[0]["pixels"].shape[1] == 1  # single frames show no motion


def test_a_window_longer_than_the_clip_is_refused(built: tuple[Path, BuildReport]) -> None:
    with pytest.raises(LumiereError, match="9 frames of clips of 8"):
        EmojiClips(built[0], subjects=["tiger"], size=16, num_frames=8, window=9)


def test_a_single_picture_is_one_frame() -> None:
    assert len(decode_loop(webp(pictures(1), 40), size=SIZE)) == 1


def test_an_index_is_whole_json_when_its_shard_is_there(built: tuple[Path, BuildReport]) -> None:
    index = json.loads((built[0] / f"emoji-{SIZE}-0000.json").read_text(encoding="utf-8"))
    assert index["written"] == 4
    assert not list(built[0].glob("*.partial"))


@pytest.mark.usefixtures("two_per_shard")
def test_a_damaged_index_is_one_line(packages: Path, tmp_path: Path) -> None:
    build(tmp_path, size=SIZE, workers=1, cache=packages)
    index = tmp_path / f"emoji-{SIZE}-0000.json"
    index.write_text('{"written": 2, "st')  # of a version that did not write it whole
    with pytest.raises(
        LumiereError, match=rf"{index.name} is missing or damaged .*; delete it and run the command again"
    ):
        build(tmp_path, size=SIZE, workers=1, cache=packages)
