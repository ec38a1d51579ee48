"""`lumiere evaluate ucf101` on a small UCF101 of the official layout, drawn and encoded here."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

import tiny
from clips import moving_square, write_avi
from openlumiere import LumierePipeline, STUNet
from openlumiere.cli import main
from openlumiere.errors import LumiereError
from openlumiere.evaluation.features.cache import Extraction
from openlumiere.evaluation.protocols.ucf101 import PUBLISHED, UCF101Settings, clip_seed, evaluate_ucf101
from openlumiere.evaluation.protocols.ucf101_data import VARIANTS, class_prompts, generated_classes, read_layout
from tiny_features import LikeC3D, LikeI3D, torchscript

pytestmark = pytest.mark.slow  # whole protocols

CLASSES = ("ApplyEyeMakeup", "HandstandPushups", "YoYo")
GROUPS = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of four clips, 36 x 32 pixels at 25 frames a second; the last group is for testing."""
    root = tmp_path_factory.mktemp("ucf101")
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{i} {name}\r\n" for i, name in enumerate(CLASSES, 1)))
    training, testing = [], []
    for i, name in enumerate(CLASSES, 1):
        for group in range(1, GROUPS + 1):
            clip = f"{name}/v_{name}_g{group:02d}_c01.avi"
            frames = moving_square(10 * i + group, frames=18 + group, side=32)
            write_avi(np.pad(frames, ((0, 0), (0, 0), (2, 2), (0, 0))), root / "UCF-101" / clip)
            (testing if group == GROUPS else training).append(f"{clip} {i}" if group < GROUPS else clip)
    (lists / "trainlist01.txt").write_text("\n".join(training) + "\n")
    (lists / "testlist01.txt").write_text("\n".join(testing) + "\n")
    return root


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Feature files of the published interfaces, and their hashes."""
    root = tmp_path_factory.mktemp("features")
    i3d = torchscript(LikeI3D(), root / "i3d_torchscript.pt")
    c3d = torchscript(LikeC3D(), root / "c3d_ucf101.pt")
    return {"fvd_file": i3d, "fvd_sha256": hashlib.sha256(i3d.read_bytes()).hexdigest(), "is_file": c3d}


class Maker:
    """Makes clips that depend on prompt and seed, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        self.asked += zip(prompts, seeds, strict=True)
        shade = [sum(map(ord, prompt)) % 60 for prompt in prompts]
        return np.stack([moving_square(seed) // 2 + add for seed, add in zip(seeds, shade, strict=True)])


def run(make: Maker, data: Path, output: Path, files: dict[str, Any], **options: Any) -> dict[str, Any] | None:
    options = {"clips": 9} | files | options
    call = {name: options.pop(name) for name in ("shard", "batch", "command") if name in options}
    extraction = Extraction(cache=output.parent / "features", progress=False)
    return evaluate_ucf101(
        make, data, output, UCF101Settings(**options), extraction, model={"model": "squares"}, **call
    )


def test_the_layout_and_the_variants(data: Path) -> None:
    layout = read_layout(data)
    assert layout.classes == list(CLASSES)
    assert len(layout.training) == 9
    assert layout.training[0][0].name == "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"
    assert {name for clip, name in layout.training if clip.name.startswith("YoYo/")} == {"YoYo"}
    said = class_prompts(layout.classes)
    assert said["ApplyEyeMakeup"] == "a video of apply eye makeup"
    assert said["YoYo"] == "a video of yo yo"
    counts = {name: (v.generated, v.real, v.splits, v.size) for name, v in VARIANTS.items()}
    assert counts == {
        "videopoet": (10_000, 10_000, 10, 256),
        "make-a-video": (10_100, 10_100, 10, 256),
        "stylegan-v": (2048, 2048, 10, 256),
    }
    even = generated_classes(VARIANTS["make-a-video"], layout, seed=0)
    assert max(even.count(name) for name in CLASSES) - min(even.count(name) for name in CLASSES) <= 1
    assert len(generated_classes(VARIANTS["stylegan-v"], layout, seed=0)) == 2048


def test_scores_beside_the_published_table(data: Path, files: dict[str, Any], tmp_path: Path) -> None:
    make = Maker()
    report = run(make, data, tmp_path / "out", files, command="lumiere evaluate ucf101 ...")
    assert report is not None
    assert report["variant"] == "videopoet-9-clips"
    assert make.asked == [(class_prompts(CLASSES)[CLASSES[i % 3]], clip_seed(0, i)) for i in range(9)]
    fvd, score = report["scores"]["fvd"], report["scores"]["is"]
    assert fvd["metric"] == f"FVD-{files['fvd_sha256'][:8]}"
    assert fvd["protocol"]["size"] == 256
    assert fvd["protocol"]["sets"]["real"]["clips"] == fvd["protocol"]["sets"]["generated"]["clips"] == 9
    assert fvd["protocol"]["sampling"] == {"real": "centre", "generated": "centre"}
    assert score["metric"] == "IS"
    assert score["protocol"]["splits"] == 4
    text = (tmp_path / "out" / "ucf101.md").read_text(encoding="utf-8")
    for row in ("| MagicVideo | 655.00 | - |", "| PYoCo | 355.19 | 47.76 |", "| Lumiere | 332.49 | 37.54 |"):
        assert row in text
    assert "**squares** (videopoet-9-clips)" in text
    assert "compares with no other row" in text
    assert f"{score['value']:.2f} (" in text
    assert len(PUBLISHED) == 8
    stored = json.loads((tmp_path / "out" / "ucf101.json").read_text(encoding="utf-8"))
    assert stored["scores"]["fvd"]["value"] == fvd["value"]
    assert stored["generation"]["prompts"]["YoYo"] == "a video of yo yo"


def test_shards_merge_by_themselves_and_make_what_one_process_makes(
    data: Path, files: dict[str, Any], tmp_path: Path
) -> None:
    whole = run(Maker(), data, tmp_path / "whole", files, batch=4)
    makers = [Maker(), Maker()]
    assert run(makers[0], data, tmp_path / "parts", files, shard=(2, 2)) is None
    merged = run(makers[1], data, tmp_path / "parts", files, shard=(1, 2))
    assert [len(maker.asked) for maker in makers] == [4, 5]
    assert whole is not None
    assert merged is not None
    assert {m: s["value"] for m, s in merged["scores"].items()} == {m: s["value"] for m, s in whole["scores"].items()}

    # A stopped run makes only what is missing.
    (tmp_path / "parts" / "clips" / "00005.npy").unlink()
    again = Maker()
    run(again, data, tmp_path / "parts", files)
    assert again.asked == [makers[0].asked[2]]
    with pytest.raises(LumiereError, match="another seed"):
        run(again, data, tmp_path / "parts", files, seed=1)


def test_stylegan_v_takes_random_windows_and_the_training_split_s_classes(
    data: Path, files: dict[str, Any], tmp_path: Path
) -> None:
    report = run(Maker(), data, tmp_path / "out", files, variant="stylegan-v", metrics=["fvd"], clips=12)
    assert report is not None
    assert list(report["scores"]) == ["fvd"]
    fvd = report["scores"]["fvd"]
    assert fvd["protocol"]["sampling"] == {"real": "random", "generated": "centre"}
    assert any("holds 9 clips of the 12 asked for: all were used, once" in note for note in fvd["notes"])
    assert any("unequal counts (9 real, 12 generated)" in note for note in fvd["notes"])


def test_bad_data_is_told_before_the_first_clip_is_made(data: Path, files: dict[str, Any], tmp_path: Path) -> None:
    make, out = Maker(), tmp_path / "out"
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    with pytest.raises(LumiereError, match="UCF-101 is missing: give --data the folder"):
        run(make, tmp_path, out, files)
    with pytest.raises(LumiereError, match=r"cannot read .*trainlist02\.txt"):
        run(make, copy, out, files, split=2)
    (copy / "UCF-101" / "YoYo" / "v_YoYo_g02_c01.avi").unlink()
    with pytest.raises(LumiereError, match=r"lacks 1 clips of trainlist01\.txt, such as YoYo/v_YoYo_g02_c01\.avi"):
        run(make, copy, out, files)
    (copy / "ucfTrainTestlist" / "classInd.txt").write_text("1 ApplyEyeMakeup\n")
    with pytest.raises(LumiereError, match=r"has the class HandstandPushups, classInd\.txt has not"):
        run(make, copy, out, files)
    (tmp_path / "prompts.json").write_text('{"YoYo": "someone plays with a yo-yo"}')
    with pytest.raises(LumiereError, match="no prompt for ApplyEyeMakeup"):
        run(make, data, out, files, prompts=tmp_path / "prompts.json")
    with pytest.raises(LumiereError, match="--clips 10001: videopoet has 10000"):
        run(make, data, out, files, clips=10_001)
    with pytest.raises(LumiereError, match="--shard 3/2"):
        run(make, data, out, files, shard=(3, 2))
    with pytest.raises(LumiereError, match="is not there: get it with"):
        run(make, data, out, files | {"is_file": tmp_path / "none.pt"})
    assert make.asked == []


def test_the_command_with_a_model_from_disk(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tiny network of the bundled models' shape; the emoji network judges, so no file is needed."""
    torch.manual_seed(0)
    pipe = LumierePipeline(
        unet=tiny.wake(STUNet(unet=tiny.UNETS["bundled"] | {"encoder_hid_dim": tiny.TEXT_DIM})).eval(),
        scheduler=DDIMScheduler(clip_sample=False),
        text_encoder=tiny.stable_diffusion(tmp_path).text_encoder,
        tokenizer=tiny.clip_tokenizer(tmp_path / "tokenizer"),
        pixel_unshuffle=2,
    )
    pipe.save_pretrained(tmp_path / "model")
    words = ["evaluate", "ucf101", "--data", str(data), "--model", str(tmp_path / "model"), "-o", str(tmp_path / "out")]
    words += [
        "--clips",
        "4",
        "--frames",
        "16",
        "--steps",
        "1",
        "--features",
        "emoji",
        "--cache",
        str(tmp_path / "cache"),
    ]
    words += ["--device", "cpu"]
    assert main([*words, "--shard", "1/2"]) == 0
    assert "made part 1/2" in capsys.readouterr().out
    assert main([*words, "--shard", "2/2"]) == 0
    printed = capsys.readouterr().out
    assert "| Lumiere | 332.49 | 37.54 |" in printed
    assert "FVD-emoji: compares with no other row" in printed
    stored = json.loads((tmp_path / "out" / "ucf101.json").read_text(encoding="utf-8"))
    assert stored["generation"]["num_inference_steps"] == 1
    assert "--shard" not in stored["command"]
    assert stored["scores"]["is"]["metric"] == "IS-emoji"
    assert main([*words, "--shard", "two"]) == 2
    assert "--shard two: give I/N" in capsys.readouterr().err
