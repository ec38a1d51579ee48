"""`lumiere evaluate fvd` and `is`: real files in every format, real TorchScript networks, and what goes wrong."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clips import moving_square, write_avi
from openlumiere.cli import main
from openlumiere.errors import LumiereError
from openlumiere.evaluation.features.clip_sets import Preparation, list_clips, read_prepared, some_of
from openlumiere.evaluation.features.networks import PUBLISHED, find_features
from openlumiere.video import write_clip
from tiny_features import LikeC3D, LikeI3D, fvd, inception, torchscript


@pytest.fixture(scope="module")
def i3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return torchscript(LikeI3D(), tmp_path_factory.mktemp("i3d") / "i3d_torchscript.pt")


@pytest.fixture(scope="module")
def c3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return torchscript(LikeC3D(), tmp_path_factory.mktemp("c3d") / "c3d_ucf101.pt")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two sets of one kind of clip, and a set of clips that hardly move."""
    root = tmp_path_factory.mktemp("sets")
    for name, first, speed in (("real", 0, 1.0), ("alike", 100, 1.0), ("frozen", 200, 0.0)):
        (root / name).mkdir()
        for i in range(40):  # two chunks
            np.save(root / name / f"{i:03d}.npy", moving_square(first + i, speed=speed))
    return {path.name: path for path in root.iterdir()}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def look(path: Path, **options: object) -> np.ndarray:
    (clip,) = list_clips(path)
    return read_prepared(clip, Preparation(**options))  # type: ignore[arg-type]


# Reading


@pytest.mark.slow
def test_every_format_gives_the_same_frames(tmp_path: Path) -> None:
    frames = moving_square(3, frames=21, side=48)
    for name in ("a.webp", "b.gif", "c.mp4", "d.mov"):
        (tmp_path / name[0]).mkdir()
        write_clip(frames, tmp_path / name[0] / name)
    (tmp_path / "e").mkdir()
    write_clip(frames, f"{tmp_path}/e/frames/")
    write_avi(frames, tmp_path / "f" / "f.avi")
    (tmp_path / "g").mkdir()
    np.save(tmp_path / "g" / "g.npy", frames)
    for folder in sorted(tmp_path.iterdir()):
        found = look(folder)
        assert found.shape == (16, 48, 48, 3)
        error = np.abs(found.astype(int) - frames[2:18]).mean()
        assert error < (0.5 if folder.name in "aeg" else 6), folder


def test_shards_hold_the_clips_that_folders_do(tmp_path: Path) -> None:
    frames = [moving_square(i, frames=17) for i in range(3)]
    (tmp_path / "outside").mkdir()
    with tarfile.open(tmp_path / "shard-0000.tar", "w") as tar:
        for i, clip in enumerate(frames):
            path = write_clip(clip, tmp_path / "outside" / f"{i}.webp")
            for name, data in ((f"{i}.webp", path.read_bytes()), (f"{i}.json", b"{}")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    in_shard, outside = list_clips(tmp_path / "shard-0000.tar"), list_clips(tmp_path / "outside")
    assert [clip.name for clip in in_shard] == [f"shard-0000.tar/{i}.webp" for i in range(3)]
    assert [clip.fingerprint() for clip in in_shard] == [clip.fingerprint() for clip in outside]
    for clip, expected in zip(in_shard, frames, strict=True):
        np.testing.assert_array_equal(read_prepared(clip, Preparation(sampling="start")), expected[:16])
    assert len(list_clips(tmp_path)) == 6  # shards and clips of one folder
    whole = (tmp_path / "shard-0000.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: in_shard[2].start + 5])
    with pytest.raises(LumiereError, match="no uncompressed tar, or damaged"):
        list_clips(tmp_path / "cut.tar")


def test_which_frames_are_looked_at() -> None:
    looks = Preparation()
    assert looks.chosen(16).tolist() == list(range(16))
    assert looks.chosen(80).tolist() == list(range(32, 48))
    assert replace(looks, sampling="start").chosen(80).tolist() == list(range(16))
    spread = replace(looks, sampling="spread").chosen(80)
    assert spread[0] == 0
    assert spread[-1] == 79
    assert set(np.diff(spread)) <= {5, 6}
    random = replace(looks, sampling="random")
    starts = [int(random.chosen(80, key=str(i))[0]) for i in range(200)]
    assert min(starts) < 10
    assert max(starts) > 54
    assert starts == [int(random.chosen(80, key=str(i))[0]) for i in range(200)]
    assert starts != [int(replace(random, seed=1).chosen(80, key=str(i))[0]) for i in range(200)]
    with pytest.raises(LumiereError, match="too short: 15 of 16 frames"):
        looks.chosen(15)


def test_rate_crop_and_size(tmp_path: Path) -> None:
    frames = np.zeros((40, 32, 48, 3), np.uint8)
    frames[:, :, 8:40] = (np.arange(40) * 6)[:, None, None, None]
    frames[:, :, :8] = frames[:, :, 40:] = 255  # outside the central square
    write_clip(frames, tmp_path / "clip.webp", fps=20)
    as_stored = look(tmp_path, sampling="start")
    assert as_stored.shape == (16, 32, 32, 3)
    assert as_stored[:, 0, 0, 0].tolist() == [6 * i for i in range(16)]
    half = look(tmp_path, sampling="start", fps=10.0, size=8)
    assert half.shape == (16, 8, 8, 3)
    assert half[:, 4, 4, 0].tolist() == [12 * i for i in range(16)]
    assert half.max() < 255


def test_a_transparent_clip_is_over_white(tmp_path: Path) -> None:
    frames = np.zeros((16, 16, 16, 4), np.uint8)
    frames[:, 4:12, 4:12] = (10, 20, 30, 255)
    frames[:, 5, 5, 0] = np.arange(16)
    write_clip(frames, tmp_path / "clip.webp")
    found = look(tmp_path)
    assert found[0, 0, 0].tolist() == [255, 255, 255]
    assert found[0, 8, 8].tolist() == [10, 20, 30]


# Scores


@pytest.mark.slow
def test_fvd_tells_alike_from_different_and_carries_its_protocol(
    sets: dict[str, Path], i3d: Path, tmp_path: Path
) -> None:
    options = {"features_file": i3d, "features_sha256": sha256(i3d), "cache": tmp_path / "cache", "progress": False}
    alike = fvd(sets["real"], sets["alike"], tmp_path / "out", replicates=20, **options)  # type: ignore[arg-type]
    brighter = tmp_path / "brighter"
    brighter.mkdir()
    for path in sets["alike"].glob("*.npy"):
        np.save(brighter / path.name, np.load(path) // 2 + 128)
    far = fvd(sets["real"], brighter, replicates=20, **options)  # type: ignore[arg-type]
    assert far.value > 5 * alike.value
    assert far.interval_95[0] > alike.interval_95[1]
    assert alike.interval_95[0] < alike.value < alike.interval_95[1]
    assert alike.metric == f"FVD-{sha256(i3d)[:8]}"  # not the published file: never plain FVD
    assert alike.details["infinity"]["value"] < alike.value

    stored = json.loads((tmp_path / "out" / "fvd.json").read_text(encoding="utf-8"))
    protocol = stored["protocol"]
    assert stored["value"] == alike.value
    assert protocol["features"]["sha256"] == sha256(i3d)
    assert protocol["features"]["file"] == "i3d_torchscript.pt"
    assert protocol["features"]["called_with"].endswith("rescale=True, resize=True, return_features=True")
    expected = {"num_frames": 16, "fps": "as stored", "size": "as stored", "resize_filter": "Pillow lanczos", "seed": 0}
    assert expected.items() <= protocol.items()
    assert protocol["input_range"] == "uint8, 0 to 255"
    assert protocol["sets"]["real"]["clips"] == protocol["sets"]["generated"]["clips"] == 40
    assert {"openlumiere", "torch", "numpy", "av", "pillow", "python"} <= set(stored["versions"])
    text = (tmp_path / "out" / "fvd.md").read_text(encoding="utf-8")
    assert f"**{alike.value:.2f}**" in text
    assert (tmp_path / "out" / "fvd.png").stat().st_size > 0


@pytest.mark.slow
def test_the_command_that_a_score_carries_makes_it_again(
    sets: dict[str, Path], i3d: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "evaluate", "fvd", str(sets["real"]), str(sets["frozen"]), "-o", str(tmp_path / "a b"),
        "--features-file", str(i3d), "--features-sha256", sha256(i3d), "--clips", "30", "--size", "24",
        "--resize", "bicubic", "--sampling", "random", "--seed", "5", "--replicates", "10",
        "--cache", str(tmp_path / "cache"),
    ]  # fmt: skip
    assert main(words) == 0
    assert "30 real against 30 generated" in capsys.readouterr().out
    stored = tmp_path / "a b" / "fvd.json"
    first = json.loads(stored.read_text(encoding="utf-8"))
    stored.unlink()
    again = shlex.split(first["command"])
    assert again[0] == "lumiere"
    assert main(again[1:]) == 0
    assert json.loads(stored.read_text(encoding="utf-8")) == first


@pytest.mark.slow
def test_the_emoji_network_works_offline_and_shares_its_features(sets: dict[str, Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    near = fvd(sets["real"], sets["alike"], features="emoji", cache=cache, replicates=5, progress=False)
    assert near.metric == "FVD-emoji"
    before = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    far = fvd(sets["real"], sets["frozen"], features="emoji", cache=cache, replicates=5, progress=False)
    assert far.value > 1.5 * near.value
    score = inception(sets["alike"], tmp_path / "out", features="emoji", splits=2, cache=cache, progress=False)
    assert score.metric == "IS-emoji"
    assert score.details["classes"] == 74
    assert 1 < score.value < 74
    after = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert before.items() <= after.items()  # nothing was looked at twice
    assert len([name for name in after if name.endswith(".npz")]) == 3 * 2  # sets of 40 clips, 32 a chunk


@pytest.mark.slow
def test_processes_and_batches_do_not_change_a_score_and_a_stopped_run_goes_on(
    sets: dict[str, Path], c3d: Path, tmp_path: Path
) -> None:
    alone = inception(sets["real"], features_file=c3d, cache=tmp_path / "a", splits=4, progress=False)
    several = inception(
        sets["real"], features_file=c3d, cache=tmp_path / "b", splits=4, workers=2, batch=3, progress=False
    )
    assert several.value == pytest.approx(alone.value, rel=1e-6)
    assert alone.metric == "IS"
    assert any("nobody published a hash" in note for note in alone.notes)
    chunks = sorted((tmp_path / "a").glob("*.npz"))
    kept, lost = chunks
    lost.unlink()
    stamp = kept.stat().st_mtime_ns
    inception(sets["real"], features_file=c3d, cache=tmp_path / "a", splits=4, progress=False)
    assert kept.stat().st_mtime_ns == stamp
    assert lost.exists()
    kept.write_bytes(b"no features")
    with pytest.raises(LumiereError, match="is damaged"):
        inception(sets["real"], features_file=c3d, cache=tmp_path / "a", splits=4, progress=False)


def test_a_changed_clip_is_noticed_and_a_renamed_one_is_not_looked_at_again(c3d: Path, tmp_path: Path) -> None:
    folder, cache = tmp_path / "clips", tmp_path / "cache"
    folder.mkdir()
    for i in range(6):
        np.save(folder / f"{i}.npy", moving_square(i, side=16))
    first = inception(folder, features_file=c3d, cache=cache, splits=1, progress=False)
    count = len(list(cache.iterdir()))
    folder.rename(tmp_path / "elsewhere")
    second = inception(tmp_path / "elsewhere", features_file=c3d, cache=cache, splits=1, progress=False)
    assert (second.value, len(list(cache.iterdir()))) == (first.value, count)
    np.save(tmp_path / "elsewhere" / "3.npy", moving_square(99, side=16))
    third = inception(tmp_path / "elsewhere", features_file=c3d, cache=cache, splits=1, progress=False)
    assert third.protocol["sets"]["generated"]["sha256"] != first.protocol["sets"]["generated"]["sha256"]
    assert third.value != first.value


# What goes wrong


def test_clips_that_cannot_be_used_are_counted_and_named_or_refused(
    sets: dict[str, Path], i3d: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "generated"
    folder.mkdir()
    for i in range(5):
        np.save(folder / f"{i}.npy", moving_square(i))
    np.save(folder / "short.npy", moving_square(9, frames=12))
    (folder / "broken.mp4").write_bytes(b"no video at all")
    cut = write_avi(np.concatenate([moving_square(i, side=64) for i in range(8)]), folder / "cut.avi")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    options = {"features_file": i3d, "features_sha256": sha256(i3d), "cache": tmp_path / "cache", "progress": False}
    score = fvd(sets["real"], folder, replicates=3, **options)  # type: ignore[arg-type]
    counted = score.protocol["sets"]["generated"]
    assert (counted["clips"], counted["refused"]) == (5, 3)
    assert set(counted["refused_clips"]) == {"short.npy", "broken.mp4", "cut.avi"}
    assert counted["refused_clips"]["short.npy"] == "too short: 12 of 16 frames"
    assert "cut.avi is c" in counted["refused_clips"]["cut.avi"]  # corrupt, or cut short
    notes = " ".join(score.notes)
    for told in (
        "3 generated clips were left out",
        "unequal counts (40 real, 5 generated)",
        "fewer generated clips (5)",
    ):
        assert told in notes
    with pytest.raises(LumiereError, match="3 generated clips cannot be used, such as"):
        fvd(sets["real"], folder, strict=True, **options)  # type: ignore[arg-type]
    with pytest.raises(LumiereError, match="holds 8 clips of the 9 asked for"):
        some_of(list_clips(folder), 9, seed=0, what="generated")
    for path in folder.glob("*.npy"):
        path.unlink()
    with pytest.raises(LumiereError, match="cannot be used"):
        fvd(sets["real"], folder, **options)  # type: ignore[arg-type]


def test_clips_of_different_sizes_are_an_error_that_says_what_to_do(
    sets: dict[str, Path], i3d: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for i, side in enumerate((32, 32, 48)):
        np.save(folder / f"{i}.npy", moving_square(i, side=side))
    options = {"features_file": i3d, "features_sha256": sha256(i3d), "cache": tmp_path / "cache", "progress": False}
    with pytest.raises(LumiereError, match=r"the square of 0.npy has 32 pixels .* that of 2.npy 48; .* --size"):
        fvd(sets["real"], folder, **options)  # type: ignore[arg-type]
    (folder / "0.npy").unlink()
    (folder / "1.npy").unlink()
    np.save(folder / "3.npy", moving_square(3, side=48))
    with pytest.raises(LumiereError, match="real clips of 32 pixels on a side against generated ones of 48"):
        fvd(sets["real"], folder, **options)  # type: ignore[arg-type]
    assert fvd(sets["real"], folder, size=32, replicates=3, **options).value > 0  # type: ignore[arg-type]


def test_networks_that_give_nonsense_are_found_out(sets: dict[str, Path], tmp_path: Path) -> None:
    nan = torchscript(LikeI3D(poison=True), tmp_path / "nan" / "i3d_torchscript.pt")
    options = {"cache": tmp_path / "cache", "progress": False}
    with pytest.raises(LumiereError, match=r"the features of 000.npy are not finite \(NaN\)"):
        fvd(sets["real"], sets["alike"], features_file=nan, features_sha256=sha256(nan), **options)  # type: ignore[arg-type]
    raw = torchscript(LikeC3D(softmax=False), tmp_path / "raw" / "c3d_ucf101.pt")
    with pytest.raises(LumiereError, match="no probabilities"):
        inception(sets["real"], features_file=raw, **options)  # type: ignore[arg-type]
    with pytest.raises(LumiereError, match="does not take clips as it should"):
        fvd(sets["real"], sets["alike"], features_file=raw, features_sha256=sha256(raw), **options)  # type: ignore[arg-type]
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(LumiereError, match="is no TorchScript file, or damaged"):
        inception(sets["real"], features_file=tmp_path / "text.pt", **options)  # type: ignore[arg-type]


def test_feature_files_are_told_by_their_hash(i3d: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = PUBLISHED["i3d"].sha256
    with pytest.raises(LumiereError, match=f"has the SHA-256 {sha256(i3d)}, not {published}"):
        find_features("i3d", path=i3d)
    with pytest.raises(LumiereError, match="not 1234"):
        find_features("c3d", path=i3d, sha256="1234")
    assert find_features("i3d", path=i3d, sha256=sha256(i3d).upper()).sha256 == sha256(i3d)
    clips = tmp_path / "clips"
    clips.mkdir()
    np.save(clips / "0.npy", moving_square(0))
    words = ["evaluate", "fvd", str(clips), str(clips), "-o", str(tmp_path / "out")]
    assert main([*words, "--features-file", str(tmp_path / "none.pt")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "hf download flateon/FVD-I3D-torchscript" in said
    assert main(["evaluate", "is", str(tmp_path), "-o", str(tmp_path / "out"), "--features-file", "none.pt"]) == 2
    assert "c3d_ucf101.pt?dl=1" in capsys.readouterr().err


def test_a_file_in_the_hugging_face_cache_is_found(c3d: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LumiereError, match=r"c3d_ucf101\.pt is not there: get it with"):
        find_features("c3d")
    commit = "0123456789" * 4
    repository = tmp_path / "hub" / "models--someone--metrics"
    snapshot = repository / "snapshots" / commit
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "blobs" / sha256(c3d)).write_bytes(c3d.read_bytes())
    (snapshot / "c3d_ucf101.pt").symlink_to(Path("../../blobs") / sha256(c3d))
    found = find_features("c3d")
    assert found.path.name == "c3d_ucf101.pt"
    assert found.sha256 == sha256(c3d)
    assert found.metric("IS") == "IS"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fvd", "{here}/none", "{here}", "--features", "emoji"], "is no folder of clips and no .tar"),
        (["is", "{here}", "--features", "emoji"], "holds no clips"),
        (["is", "{here}", "--features", "emoji", "--frames", "20"], "emoji takes 16"),
        (["is", "{here}", "--features", "emoji", "--size", "64"], "looks at 32 pixels"),
        (["fvd", "{here}", "{here}", "--features", "c3d"], "invalid choice"),
    ],
)
def test_bad_commands_are_one_line(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["evaluate", *(word.format(here=tmp_path) for word in words), "-o", str(tmp_path / "out")])
    except SystemExit as error:
        code = int(error.code or 0)
    said = capsys.readouterr().err
    assert code == 2
    assert told in said
    assert said.count("\n") == 1
