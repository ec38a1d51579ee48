"""Clips in shards: the same windows as of the folder that they were packed from, in the same order."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from clips import encode, moving_square
from openlumiere.cli import main
from openlumiere.data import clip_shards
from openlumiere.data.clip_shards import ClipShards
from openlumiere.data.folder import ClipFolder, scan
from openlumiere.errors import LumiereError

ADDRESS = "memory://bucket/clips"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips, one of them with boxes, one too short."""
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for number in range(6):
        name = f"{'abcdef'[number]}.mp4"
        encode(folder / name, moving_square(number, frames=4 if number == 5 else 20))
        rows.append({"file_name": name, "text": f"square {number}"})
    rows[2] |= {"boxes": [[2, 4, 12, 14], None, [4, 4, 14, 14]]}
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


@pytest.fixture
def bucket() -> fsspec.AbstractFileSystem:
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    return system


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if torch.is_tensor(value) else value == other[key] for key, value in one.items()
    )


def test_packed_clips_are_those_of_the_folder(folder: Path, bucket: fsspec.AbstractFileSystem) -> None:
    report = clip_shards.pack(scan(folder, num_frames=8), ADDRESS, per_shard=2)
    assert (report.clips, report.shards, report.skipped) == (5, 3, {})
    own = ClipFolder(folder, size=16, num_frames=8, seed=4)
    packed = ClipShards(ADDRESS, size=16, num_frames=8, seed=4)
    assert len(packed) == 5
    assert all(same(own[n], packed[n]) for n in range(12))
    assert sorted(packed[n]["caption"] for n in range(5, 10)) == [f"square {n}" for n in range(5)]
    # Item n is the same whatever was read before it.
    assert same(ClipShards(ADDRESS, size=16, num_frames=8, seed=4)[11], packed[11])


def test_a_second_run_keeps_what_is_finished(folder: Path, bucket: fsspec.AbstractFileSystem) -> None:
    clip_shards.pack(scan(folder, num_frames=8), ADDRESS, per_shard=2)
    root = "/bucket/clips"
    written = {path: bucket.modified(path) for path in bucket.ls(root, detail=False)}
    bucket.rm(f"{root}/clips-00001.jsonl")
    clip_shards.pack(scan(folder, num_frames=8), ADDRESS, per_shard=2)
    again = {path: bucket.modified(path) for path in bucket.ls(root, detail=False)}
    assert {path for path in written if again[path] != written[path]} == {
        f"{root}/clips-00001.tar", f"{root}/clips-00001.jsonl"
    }  # fmt: skip
    with pytest.raises(LumiereError, match=r"holds other shards, such as clips-00001.tar: choose another folder"):
        clip_shards.pack(scan(folder, num_frames=8), ADDRESS, per_shard=5)


def test_shards_of_others_are_indexed_and_what_is_unusable_is_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = tmp_path / "webvid-0.tar"
    with tarfile.open(shard, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in {
            "x/one.mp4": (folder / "a.mp4").read_bytes(), "x/one.txt": b" a  square\n",
            "x/two.json": b'{"caption": "another"}', "x/two.mp4": (folder / "b.mp4").read_bytes(),
            "x/three.mp4": (folder / "c.mp4").read_bytes(),
            "x/four.mp4": b"no clip", "x/four.txt": b"nothing",
        }.items():  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(LumiereError, match=r"webvid-0.tar has no index; make it: lumiere data shards"):
        ClipShards(str(tmp_path), size=16, num_frames=8)
    assert main(["data", "shards", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "2 clips in 1 shards" in printed
    assert "skipped: webvid-0.tar: three: no caption" in printed
    assert "skipped: webvid-0.tar: four: " in printed
    clips = ClipShards(str(tmp_path), size=16, num_frames=8)
    assert sorted(clips[n]["caption"] for n in range(2)) == ["a square", "another"]
    assert {path.name for path in tmp_path.iterdir()} == {"webvid-0.tar", "webvid-0.jsonl"}


def test_the_command_packs_a_folder_that_trainings_name(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from openlumiere.training.config_files import parse
    from openlumiere.training.datasets import make_dataset

    out = tmp_path / "shards"
    assert main(["data", "shards", str(folder), "-o", str(out), "--frames", "8"]) == 0
    printed = capsys.readouterr().out
    assert f"5 clips in 1 shards; data.kind=shards data.folder={out}" in printed
    assert "skipped: f.mp4: too short" in printed
    config = parse(
        {"stage": "t2v", "output": "-"},
        ["data.kind=shards", f"data.folder={out}", "data.num_frames=8", "model.size=16"],
    )
    item = make_dataset(config, single_frame=False)[3]
    assert item["pixels"].shape == (3, 8, 16, 16)
    assert isinstance(item["caption"], str)
    assert np.isfinite(item["pixels"].numpy()).all()


def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path, bucket: fsspec.AbstractFileSystem) -> None:
    with pytest.raises(LumiereError, match="no shards"):
        clip_shards.index(str(tmp_path))
    with pytest.raises(LumiereError, match=r"cannot list .*; check the address"):
        ClipShards(str(tmp_path / "nowhere"), size=16)
    with pytest.raises(LumiereError, match="cannot open nonsense://x: "):
        ClipShards("nonsense://x", size=16)
    with pytest.raises(LumiereError, match="no usable clip"):
        ClipShards(str(tmp_path), size=16)
