"""Training: real runs, in processes of their own, on a few hand-drawn loops."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import DDIMScheduler, UNet2DConditionModel
from hypothesis import settings
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import default_collate

from openlumiere import LumierePipeline
from openlumiere.cli import main
from openlumiere.errors import LumiereError
from openlumiere.pipelines.load import load_pipeline, load_super_resolution
from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline
from openlumiere.training import state
from openlumiere.training.config_files import load
from openlumiere.training.export import export
from openlumiere.training.loop import learning_rate
from openlumiere.training.masks import MIXTURE
from openlumiere.training.stages import make_stage
from openlumiere.training.stages.base import Stage
from openlumiere.video import read_clip
from runs import Runs, log_of, scalars

pytestmark = pytest.mark.slow  # whole runs

ROOT = Path(__file__).parents[2]
SOME = settings(max_examples=30, deadline=None)


@pytest.fixture(scope="module")
def ssr_overrides() -> list[str]:
    return [
        "model.size=32", "model.scale=2", "model.pixel_unshuffle=2", "model.max_noise_level=100",
        "model.residual_scale=4", "optim.max_steps=12", "checkpoint_every=6", "sample_every=12",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def ssr_image(runs: Runs, ssr_overrides: list[str]) -> Path:
    return runs.whole("ssr-image", *ssr_overrides)


@pytest.fixture(scope="module")
def ssr(runs: Runs, ssr_image: Path, ssr_overrides: list[str]) -> Path:
    """The folder of a whole run on windows of 4 frames out of 8."""
    more = [f"model.t2i={ssr_image / 'export'}", "model.unet={}", "data.window=4", "optim.batch_size=2"]
    return runs.whole("ssr", *ssr_overrides, *more)


def mean_loss(stage: Stage) -> float:
    batch = default_collate([stage.dataset[index] for index in range(1000, 1032)])
    with torch.no_grad():
        return float(stage.loss(stage.module, batch, torch.Generator().manual_seed(0)))


def test_t2i_learns_and_writes_what_it_promises(t2i: Path) -> None:
    loss = scalars(t2i, "loss")
    assert list(loss) == list(range(2, 41, 2))
    assert all(math.isfinite(value) for value in loss.values())
    # On the same items under the same noise, which the curve's points are not.
    stage = make_stage(load(t2i / "config.yaml"), torch.device("cpu"))
    untrained = mean_loss(stage)
    stage.module.load_state_dict(UNet2DConditionModel.from_pretrained(t2i / "export", subfolder="unet").state_dict())
    assert mean_loss(stage) < 0.85 * untrained
    rates, optim = scalars(t2i, "learning_rate"), load(t2i / "config.yaml").optim
    assert all(rates[step] == pytest.approx(learning_rate(optim, step - 1), rel=1e-5) for step in rates)
    assert min(scalars(t2i, "gradient_norm").values()) > 0
    assert [path.name for path in state.checkpoints(t2i)] == ["checkpoint-0000032", "checkpoint-0000040"]
    assert [path.name for path in sorted((t2i / "samples").iterdir())] == ["0000020.png", "0000040.png"]
    with Image.open(t2i / "samples" / "0000040.png") as sheet:
        assert sheet.size == (2 * 16 * 3, 16 * 3)
    assert not list(t2i.rglob("*.partial"))
    # What is exported is the average.
    exported = UNet2DConditionModel.from_pretrained(t2i / "export", subfolder="unet").state_dict()
    average = load_file(state.checkpoints(t2i)[-1] / "ema.safetensors")
    assert all(torch.equal(exported[name], value) for name, value in average.items())
    assert DDIMScheduler.from_pretrained(t2i / "export", subfolder="scheduler").config.rescale_betas_zero_snr


def test_a_run_says_what_it_does_and_how_long_it_takes(t2i: Path) -> None:
    log = log_of(t2i)
    assert re.search(
        r"t2i on cpu: 0\.\d\d M parameters to train, 0\.00 M frozen; starting anew, 40 steps of 4 samples; "
        rf"checkpoints in {t2i}",
        log,
    )
    assert re.search(r"t2i: +\d+%.*\| \d+/40 \[\d\d:\d\d<\d\d:\d\d", log)  # done, and left
    assert re.search(r"loss=0\.\d{4}", log)
    assert log.rstrip().endswith(f"wrote {t2i / 'export'}")


def test_t2v_trains_the_temporal_layers_alone(t2i: Path, t2v: Path) -> None:
    assert all(math.isfinite(value) for value in scalars(t2v, "loss").values())
    assert re.search(r"t2v on cpu: 0\.\d\d M parameters to train, 0\.[0-9]*[1-9][0-9]* M frozen", log_of(t2v))
    names = list(load_file(state.checkpoints(t2v)[-1] / "weights.safetensors"))
    assert names
    assert all(name.startswith("temporal.") for name in names)
    suffixes = sorted(path.name for path in (t2v / "samples").iterdir())
    assert suffixes == [f"0000012-0{i}{suffix}" for i in (0, 1) for suffix in (".png", ".webp")]
    clip = read_clip(t2v / "samples" / "0000012-00.webp")
    assert len(clip.frames) == 8
    assert clip.fps == pytest.approx(16, rel=0.02)
    assert {path.name for path in (t2v / "export" / "temporal").iterdir()} == {"temporal.safetensors", "temporal.json"}
    pipe = LumierePipeline.from_pretrained(t2v / "export" / "pipeline", text_encoder=None, tokenizer=None)
    frozen = UNet2DConditionModel.from_pretrained(t2i / "export", subfolder="unet").state_dict()
    spatial = pipe.unet.spatial.state_dict()
    assert all(torch.equal(spatial[name], value) for name, value in frozen.items())


def test_ssr_trains_the_temporal_layers_alone_and_shows_what_it_does(ssr_image: Path, ssr: Path) -> None:
    for run in (ssr_image, ssr):
        assert all(math.isfinite(value) for value in scalars(run, "loss").values())
        with Image.open(run / "samples" / "0000012.png") as picture:
            assert picture.size == (6 * 32, 3 * 32)  # enlarged, sharpened, real
    before = load_file(ssr_image / "export" / "unet" / "diffusion_pytorch_model.safetensors")
    after = load_file(ssr / "export" / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(after[f"spatial.{name}"], value) for name, value in before.items())
    assert any(after[name].any() for name in after if name.endswith("projection.weight") and "temporal" in name)
    pipe = load_super_resolution(str(ssr / "export" / "pipeline"))
    assert (pipe.config.window_frames, pipe.config.scale, pipe.config.noise_level) == (4, 2, 25)


def test_both_stages_are_exported_as_one_model_and_make_one_clip(t2v: Path, ssr: Path, tmp_path: Path) -> None:
    model, clip = tmp_path / "model", tmp_path / "clip.webp"
    arguments = ["export", str(t2v), "--super-resolution", str(ssr), "-o", str(model), "--upscale-steps", "1"]
    assert main(arguments) == 0
    pipe = LumierePipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(4)
    options = {"num_frames": 8, "num_inference_steps": 2}
    frames = pipe("a tiger", generator=generator, **options).frames
    assert frames.shape == (1, 8, 32, 32, 3)
    # Each stage alone, one after the other, gives the same.
    generator = torch.Generator().manual_seed(4)
    base = pipe("a tiger", generator=generator, upscale=False, **options).frames
    assert base.shape == (1, 8, 16, 16, 3)
    assert pipe.super_resolution is not None
    generator = torch.Generator().manual_seed(4)
    sharp = pipe.super_resolution(base, "a tiger", generator=generator, num_inference_steps=1).frames
    np.testing.assert_allclose(sharp, frames, atol=1e-5)

    command = ["generate", "a tiger", "--model", str(model), "--frames", "8", "--steps", "2", "--seed", "4"]
    assert main([*command, "-o", str(clip)]) == 0
    assert read_clip(clip).frames.shape[:3] == (8, 128, 128)  # enlarged to be looked at
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.webp", "model"]  # the base clip is gone


def test_a_clip_whose_sharpening_fails_is_kept_and_picked_up(
    t2v: Path, ssr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    assert main(["export", str(t2v), "--super-resolution", str(ssr), "-o", str(model), "--upscale-steps", "1"]) == 0

    def broken(*_: object, **__: object) -> None:
        raise MemoryError

    command = ["generate", "a tiger", "--model", str(model), "--frames", "8", "--steps", "2", "--seed", "4"]
    with monkeypatch.context() as patch:
        patch.setattr(LumiereSuperResolutionPipeline, "__call__", broken)
        assert main([*command, "-o", str(tmp_path / "clip.webp")]) == 2
    told = capsys.readouterr().err
    assert "out of memory" in told
    again = told.partition("sharpen it with: ")[2].splitlines()[0]
    assert main([*shlex.split(again)[1:], "--seed", "4"]) == 0
    assert read_clip(tmp_path / "clip.webp").frames.shape[0] == 8
    capsys.readouterr()
    assert main(["info", str(tmp_path / "clip.webp")]) == 0
    told = capsys.readouterr().out
    assert "a tiger" in told  # read off the base clip
    assert "lumiere upscale" in told
    assert main(shlex.split(told.strip().splitlines()[-1])[1:]) == 0

    # What the run itself exported is a second stage without a base.
    alone, base = str(ssr / "export" / "pipeline"), str(tmp_path / "clip.base.webp")
    assert main(["upscale", base, "--model", alone, "--seed", "4", "-o", str(tmp_path / "alone.webp")]) == 0
    assert read_clip(tmp_path / "alone.webp").frames.shape == read_clip(tmp_path / "clip.webp").frames.shape
    assert main(["generate", "a tiger", "--model", alone]) == 2
    assert "cannot generate: it can upscale" in capsys.readouterr().err

    without = tmp_path / "without"
    assert main(["export", str(t2v), "-o", str(without)]) == 0
    assert main(["upscale", str(tmp_path / "clip.base.webp"), "--model", str(without)]) == 2
    assert "cannot upscale: it can generate, restyle; models that can: emoji; to teach it: lumiere train ssr" in (
        capsys.readouterr().err
    )


def test_conditional_goes_on_from_a_clip_model_and_learns_to_be_given(
    runs: Runs, t2v: Path, t2v_overrides: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "conditional"
    clip_model = f"model.t2i={t2v / 'export' / 'pipeline'}"
    ways = [f"model.{way}=true" for way in ("condition_blocks", "condition_gate", "spread_condition")]
    code, log = runs.run(output, *t2v_overrides[1:], clip_model, "model.temporal={}", *ways, stage="conditional")
    assert code == 0, log
    assert all(math.isfinite(value) for value in scalars(output, "loss").values())
    samples = {path.name for path in (output / "samples").iterdir()}
    assert samples == {f"0000012-{kind.replace(' ', '-')}.webp" for kind in MIXTURE}
    before = load_file(t2v / "export" / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")
    pipe = load_pipeline(str(export(output, tmp_path / "model", dtype=torch.float32)))
    after = pipe.unet.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith("spatial."))
    assert after["temporal.condition_in.weight"].abs().max() > 0
    assert pipe.unet.config["condition_channels"] == pipe.condition_channels
    assert pipe.config.spread_condition
    assert after["temporal.gate.conv.bias"].ne(-4).any()
    assert after["temporal.down.0.0.given_conv.weight"].abs().max() > 0
    given = np.random.default_rng(0).random((8, 16, 16, 3), dtype=np.float32)
    change = np.ones((8, 1, 1))
    change[0] = 0
    made = pipe("a tiger", num_frames=8, video=given, mask=change, num_inference_steps=1)[0]
    np.testing.assert_allclose(made[0, 0], given[0], atol=1e-6)


def test_a_model_gets_its_second_stage_later(t2v: Path, ssr: Path, tmp_path: Path) -> None:
    at_once, later = tmp_path / "at-once", tmp_path / "later"
    export(t2v, at_once, super_resolution=ssr, upscale_steps=1)
    export(t2v, later)
    (later / "README.md").write_text("a card")
    (later / "styles" / "mine").mkdir(parents=True)
    export(later, later, super_resolution=ssr, upscale_steps=1)
    assert (later / "README.md").read_text() == "a card"
    assert (later / "styles" / "mine").is_dir()
    for part in ("unet", "super_resolution/unet"):
        one, other = (load_file(f / part / "diffusion_pytorch_model.safetensors") for f in (at_once, later))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = (json.loads((folder / "model_index.json").read_text()) for folder in (at_once, later))
    assert one == other
    assert not any(str(tmp_path) in file.read_text() for file in later.rglob("*.json"))  # where it was loaded from


def test_stages_that_read_prompts_differently_are_no_one_model(t2v: Path, ssr: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(ssr, other)
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["text"]["encoder"] = "sentence-transformers/another"
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(LumiereError, match="another text encoder"):
        export(t2v, tmp_path / "model", super_resolution=other)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.folder=nowhere"], "no shards in nowhere; make them with: lumiere data emoji"),
        (["data.kind=films"], "data.kind 'films': use emoji, folder, shards, pictures or artwork"),
        (["scheduler.betas=3"], "scheduler is not a DDIMScheduler's configuration"),
        (["model.unet.depth=3"], "model.unet is not a UNet2DConditionModel"),
        (["model.size=15"], "model.size, 15, must be a multiple of model.pixel_unshuffle, 2"),
    ],
)
def test_bad_settings_are_told_in_one_line(
    runs: Runs, tmp_path: Path, overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(runs.arguments(tmp_path / "out", *overrides)) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("lumiere: error: ")
    assert message in line


def test_training_leaves_the_callers_arithmetic_as_it_was(runs: Runs, tmp_path: Path) -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor always keeps denormals")
    for flushing in (True, False):
        torch.set_flush_denormal(flushing)
        assert main(runs.arguments(tmp_path / "out", "data.kind=films")) == 2
        assert ((torch.tensor(1e-38) * 1e-3).item() == 0) == flushing


def test_t2v_needs_a_t2i(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(runs.arguments(tmp_path / "out", stage="t2v")) == 2
    assert "stage t2v needs model.t2i" in capsys.readouterr().err
    assert main(runs.arguments(tmp_path / "out", f"model.t2i={tmp_path}", stage="t2v")) == 2
    assert f"cannot read a U-Net from model.t2i = {tmp_path}; train it first" in capsys.readouterr().err
