"""The benchmarks run, and their exact figures hold."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.utils import logging

import tiny
from openlumiere import LumierePipeline, STUNet
from openlumiere.bundled import DEFAULT_MODEL, bundled_folder
from openlumiere.data.emoji.drawing import Sprites
from openlumiere.data.emoji.shards import load_atlases
from openlumiere.diffusion.layout import path_through
from openlumiere.diffusion.way_points import parse_way_points
from openlumiere.evaluation.cache import eight_bit, write_array
from openlumiere.evaluation.clips import clip_path
from openlumiere.pipelines.text import MINILM

pytestmark = pytest.mark.slow  # processes that measure

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
OPTIONAL = "lumiere-pytorch"  # the `bench` extra


def start(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    source = str(BENCHMARKS.parent / "src")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a benchmark within this process; returns its exit code, and what it printed and said of errors."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = torch.get_num_threads(), logging.get_verbosity()

    def run(script: str, *arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        code = importlib.import_module(Path(script).stem).main()
        return code, *capsys.readouterr()

    yield run
    torch.set_num_threads(before[0])
    logging.set_verbosity(before[1])


def results(run: Run, tmp_path: Path, script: str, *arguments: str) -> tuple[dict[str, Any], str]:
    file = tmp_path / "figures.json"
    code, printed, errors = run(script, *arguments, "--json", str(file))
    assert code == 0, errors
    return json.loads(file.read_text()), printed


@pytest.fixture
def small(tmp_path: Path) -> str:
    """A shape of a few thousand parameters."""
    recipes = {
        "t2i": tiny.TRAINING | {"output": "-", "model": tiny.TRAINING["model"] | {"size": 32}},
        "t2v": {"stage": "t2v", "output": "-", "model": {"t2i": "-"}},
    }
    (tmp_path / "small").mkdir()
    for name, tree in recipes.items():
        (tmp_path / "small" / f"{name}.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return str(tmp_path / "small")


def test_what_a_gpu_is_measured_by_runs_on_the_cpu(run: Run, tmp_path: Path, small: str) -> None:
    options = ("--device", "cpu", "--shape", small, "--frames", "8,16", "--rounds", "1")
    sections = ("--sections", "ceilings", "contestants", "convolutions", "ways", "correct")
    found, printed = results(
        run, tmp_path, "gpu.py", *options, *sections, "--ways", "float32", "bfloat16", "channels-last"
    )
    assert found["left_out"] == []
    assert "failed" not in printed
    rows = {(row["contestant"], row["mode"], row["frames"]): row for row in found["contestants"]}
    assert len(rows) == 3 * 2 * 2
    assert all(row["ms"] > 0 for row in rows.values())
    assert rows["STUNet", "training", 16]["peak_GiB"] < rows["UNetMotionModel", "training", 16]["peak_GiB"]
    assert len(found["ways"]) == 3 * 2
    assert all(row["of_peak"] > 0 for row in found["ways"])
    errors = {row["way"]: row["relative_error"] for row in found["correct"]}
    assert errors["float32"] < 1e-5 < errors["bfloat16"] < 0.05
    found, printed = results(run, tmp_path, "gpu.py", *options, "--minutes", "0")
    assert "left out" in printed
    assert found["left_out"][0] == "ceilings"


def test_step_measures_every_contestant(run: Run, tmp_path: Path, small: str) -> None:
    options = ("--frames", "8", "--rounds", "2", "--threads", "1", "--layout", "channels-last")
    found, printed = results(run, tmp_path, "step.py", "--shape", small, *options)
    names = {row["contestant"] for row in found["results"]}
    assert names | {OPTIONAL} == {"STUNet", "fixed-rate", "UNetMotionModel", OPTIONAL}
    # What is not there is named, with the reason.
    assert set(found["missing"]) == {OPTIONAL} - names
    assert (f"cannot run {OPTIONAL}: " in printed) == (OPTIONAL not in names)
    assert len(found["results"]) == len(names) * 2  # modes
    rows = {(row["contestant"], row["mode"], row["frames"]): row for row in found["results"]}
    for (name, mode, frames), row in rows.items():
        assert len(row["seconds"]) == 2
        assert 0 < row["seconds_min"] <= row["seconds_median"]
        assert row["weight_bytes"] > 0 < row["work_bytes"]
        if mode == "training":  # keeps activations for the backward pass, and does more
            assert row["work_bytes"] > rows[name, "forward", frames]["work_bytes"]
            assert row["flops"] > 1.5 * rows[name, "forward", frames]["flops"]
    for mode in ("forward", "training"):
        ours, fixed = rows["STUNet", mode, 8], rows["fixed-rate", mode, 8]
        assert ours["flops"] < fixed["flops"]
        assert ours["work_bytes"] < fixed["work_bytes"]
    assert found["machine"]["threads"] == 1


def test_time_resampling_saves_the_known_share_of_stable_diffusions_layers(run: Run, tmp_path: Path) -> None:
    found, _ = results(
        run, tmp_path, "step.py", "--shape", "sd15", "--flops-only", "--modes", "forward",
        "--contestants", "STUNet,fixed-rate",
    )  # fmt: skip
    [spatial] = found["spatial_layers"]
    assert spatial["frames"] == 80
    assert spatial["ratio"] == pytest.approx(1.66, abs=0.02)
    # One picture takes 0.8 TFLOPs at 64 x 64 (0.4 tera multiply-adds, the figure often quoted).
    assert spatial["fixed_rate_flops"] / 80 == pytest.approx(0.80e12, rel=0.05)


def test_peak_memory_is_what_is_alive_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from measure import peak_bytes

    mebi = 2**20
    before = torch.ones(64 * mebi, dtype=torch.uint8)

    def step() -> None:
        first = torch.ones(10 * mebi, dtype=torch.uint8)
        del first
        second, third = torch.ones(4 * mebi, dtype=torch.uint8), torch.ones(3 * mebi, dtype=torch.uint8)
        assert len(second) + len(third) < len(before)

    assert peak_bytes(step, torch.device("cpu")) == pytest.approx(10 * mebi, rel=0.01)


def test_the_bundled_models_shape_is_that_of_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from shapes import load_shape

    config = json.loads((bundled_folder(DEFAULT_MODEL) / "unet" / "config.json").read_text(encoding="utf-8"))
    shape = load_shape(DEFAULT_MODEL)
    assert shape.clip(80) == (1, config["unet"]["in_channels"], 80, 16, 16)
    assert list(shape.unet["block_out_channels"]) == config["unet"]["block_out_channels"]


def test_a_mistyped_shape_is_one_line() -> None:
    done = start("step.py", "--shape", "emoji-nono")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "emoji-nano" in done.stderr


def test_windows_take_less_memory_than_one_pass_and_so_grow_more_slowly(
    run: Run, tmp_path: Path, tiny_model: Path
) -> None:
    found, printed = results(
        run,
        tmp_path,
        "windows.py",
        "--model",
        str(tiny_model),
        "--stage",
        "base",
        "--frames",
        "8,16,48",
        "--threads",
        "1",
    )
    assert found["window"] == 8
    by = {(row["frames"], row["way"]): row for row in found["results"]}
    assert set(by) == {(8, "windows"), (16, "windows"), (16, "one pass"), (48, "windows"), (48, "one pass")}
    assert by[48, "windows"]["bytes"] < by[48, "one pass"]["bytes"] / 2
    assert all(row["seconds"] > 0 for row in by.values())
    assert "windows of 8, 1 at a time" in printed
    code, _, errors = run("windows.py", "--model", str(tiny_model), "--frames", "8")
    assert code == 2
    assert "has no second stage" in errors


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4, attention_head_dim=2, cross_attention_dim=384,
    )  # fmt: skip
    folder = tmp_path / "tiny"
    LumierePipeline(
        unet=STUNet.from_unet(unet), scheduler=DDIMScheduler(), text_encoder_id=MINILM, window_frames=8
    ).save_pretrained(folder)
    return folder


def test_generate_measures_whole_processes(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    found, printed = results(
        run, tmp_path, "generate.py", "a red heart", "--model", str(tiny_model), "--frames", "4", "--steps", "2",
        "--runs", "1", "--threads", "1", "--max-seconds", "0.001",
    )  # fmt: skip
    [one] = found["runs"]
    assert {"load", "denoise", "write", "total"} <= set(one["stages"])
    assert 0 < one["stages"]["total"] <= one["wall"] + 0.1
    assert one["user"] > 0
    assert 50e6 < one["peak_rss"] < 5e9  # PyTorch alone takes more than 50 MB
    assert "aim 0.001 s: missed" in printed


def test_generate_says_why_the_command_failed(run: Run, tmp_path: Path) -> None:
    code, _, errors = run("generate.py", "--model", str(tmp_path / "nowhere"), "--runs", "1")
    assert code == 2
    assert "unknown model" in errors.splitlines()[-1]


def test_real_esrgans_weights_are_read_as_ncnn_writes_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import realesrgan

    torch.manual_seed(0)
    first, slopes, last = torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.PReLU(5), torch.nn.Conv2d(5, 48, 3, padding=1)
    torch.nn.init.uniform_(slopes.weight)
    first.weight.data = first.weight.data.half().float()
    half = first.weight.detach().half().numpy().tobytes()
    written = b"".join([
        (0x01306B47).to_bytes(4, "little"), half + bytes(-len(half) % 4), first.bias.detach().numpy().tobytes(),
        slopes.weight.detach().numpy().tobytes(),
        bytes(4), last.weight.detach().numpy().tobytes(), last.bias.detach().numpy().tobytes(),
    ])  # fmt: skip
    (tmp_path / "net.bin").write_bytes(written)
    lines = [
        "7767517", "8 9", "Input input 0 1 data", "Split split 1 2 data a b",
        f"Convolution c0 1 1 b c 0=5 1=3 4=1 5=1 6={first.weight.numel()}", "PReLU p 1 1 c d 0=5",
        f"Convolution c1 1 1 d e 0=48 1=3 4=1 5=1 6={last.weight.numel()}", "PixelShuffle s 1 1 e f 0=4",
        "Interp i 1 1 a g 0=1 1=4.0 2=4.0", "BinaryOp add 2 1 f g output",
    ]  # fmt: skip
    (tmp_path / "net.param").write_text("\n".join(lines) + "\n")
    net = realesrgan.read(tmp_path / "net.param", tmp_path / "net.bin")
    frames = torch.rand(2, 3, 6, 7)
    wanted = torch.nn.functional.pixel_shuffle(last(slopes(first(frames))), 4)
    wanted = wanted + torch.nn.functional.interpolate(frames, scale_factor=4)
    torch.testing.assert_close(net(frames), wanted, atol=1e-5, rtol=1e-4)
    clip = (torch.rand(2, 6, 7, 4) * 255).byte().numpy()
    made = net.upscale(clip)
    assert made.shape == (2, 24, 28, 4)
    assert 0 <= made.min() <= made.max() <= 1
    (tmp_path / "net.bin").write_bytes(written + bytes(4))
    with pytest.raises(realesrgan.CannotReadError, match="4 bytes more"):
        realesrgan.read(tmp_path / "net.param", tmp_path / "net.bin")
    (tmp_path / "net.bin").write_bytes(written[:-4])
    with pytest.raises(realesrgan.CannotReadError, match="end too early"):
        realesrgan.read(tmp_path / "net.param", tmp_path / "net.bin")


def test_real_esrgan_itself_sharpens_an_edge_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import realesrgan

    try:
        net = realesrgan.load()
    except realesrgan.CannotReadError as error:
        pytest.skip(str(error))
    clip = np.full((1, 32, 32, 3), 40, dtype=np.uint8)
    clip[:, :, 16:] = 210
    made = net.upscale(clip)[0]
    assert made.shape == (128, 128, 3)
    np.testing.assert_allclose(made[32:96, 8:48], 40 / 255, atol=0.05)
    np.testing.assert_allclose(made[32:96, 80:120], 210 / 255, atol=0.05)


def test_warm_starts_are_compared(run: Run, tmp_path: Path):
    from tiny_data import make_data

    make_data(tmp_path / "emoji")
    found, printed = results(
        run, tmp_path, "warm_start.py", "--data", str(tmp_path / "emoji"), "--loops", "2", "--steps", "2", "2", "3",
        "--seeds", "1",
    )  # fmt: skip
    starts = {name: runs[0][0] for name, runs in found.items()}
    assert starts["attention"] == starts["fresh"] != starts["attention, projections"]  # whose projections are not zero
    assert "mean    attention, positions " in printed


def test_paths_are_measured(run: Run, tmp_path: Path, loops: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny.conditioned(layout=True)
    pipe.register_to_config(text_encoder_id=MINILM)
    pipe.save_pretrained(tmp_path / "model")
    words = [str(tmp_path / "model"), "--data", str(loops), "--subjects", "tiger", "--frames", "8", "--steps", "1"]
    found, printed = results(run, tmp_path, "paths.py", *words, "-o", str(tmp_path / "made"))
    assert len(found["clips"]) == 6
    assert (tmp_path / "made" / "sheet.png").exists()
    assert "figure eight" in printed
    # Clips that are drawn along the path are where they should be; of one that stands still it is told how far not.
    monkeypatch.syspath_prepend(BENCHMARKS)
    import paths

    sprites = Sprites(load_atlases(loops, ["tiger"], side=256))
    for shape, text in paths.SHAPES.items():
        path = path_through(parse_way_points(text), 8, default=torch.tensor([0, 0, 0.75, 0]).expand(8, -1)).numpy()
        clip = paths._drawn(sprites, "tiger", path if shape != "line" else path[:1].repeat(8, axis=0))
        write_array(clip_path(tmp_path / "drawn", f"{shape}-tiger".replace(" ", "-")), eight_bit(clip))
    found, _ = results(run, tmp_path, "paths.py", *words, "-o", str(tmp_path / "drawn"))
    told = {clip["shape"]: np.mean(clip["pixels"]) for clip in found["clips"]}
    assert told.pop("line") > 25  # half of the way, on average, is 38; but what leaves the frame is not seen
    assert max(told.values()) < 0.5


def test_a_model_that_is_told_no_place_is_refused_by_paths(run: Run, tmp_path: Path) -> None:
    model = tiny.saved(tiny.conditioned(), tmp_path / "plain")
    code, _, errors = run("paths.py", str(model), "-o", str(tmp_path / "made"))
    assert code == 2
    assert errors.splitlines()[-1].startswith(f"paths.py: error: {model} is not told where its subject goes")
