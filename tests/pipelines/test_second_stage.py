"""The second stage inside a pipeline: on disk in both layouts, on devices, in dtypes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tiny
from openlumiere import LumierePipeline
from openlumiere.errors import LumiereError
from openlumiere.evaluation.cache import weights_hash
from openlumiere.pipelines.load import load_pipeline, load_super_resolution
from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline


@pytest.fixture(scope="module")
def cascade() -> LumierePipeline:
    return tiny.conditioned(upscale=True)


@pytest.fixture(scope="module")
def saved(cascade: LumierePipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    cascade.register_to_config(text_encoder_id="sentence-transformers/all-MiniLM-L6-v2")
    cascade.super_resolution.register_to_config(text_encoder_id="sentence-transformers/all-MiniLM-L6-v2")
    cascade.save_pretrained(folder)
    return folder


def make(pipe: LumierePipeline, **options: Any) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    options = {"num_frames": 8, "guidance_scale": 2.0, "generator": torch.Generator().manual_seed(3)} | options
    return pipe("a tiger", **options)[0]


def old_layout(saved: Path, folder: Path) -> Path:
    """The same model as it was saved before the second stage was a pipeline of its own."""
    pipe = LumierePipeline.from_pretrained(saved, super_resolution=None)
    pipe.save_pretrained(folder)
    stage = LumiereSuperResolutionPipeline.from_pretrained(saved / "super_resolution")
    stage.unet.save_pretrained(folder / "sr_unet")
    stage.scheduler.save_pretrained(folder / "sr_scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index["sr_unet"] = ["openlumiere.stunet.model", "STUNet"]
    index["sr_scheduler"] = ["diffusers", "DPMSolverMultistepScheduler"]
    index["super_resolution"] = {"pixel_unshuffle": 2, "scale": 2, "num_inference_steps": 1, "window_frames": 8}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.slow
def test_it_is_saved_whole_in_a_folder_of_its_own(saved: Path, cascade: LumierePipeline) -> None:
    assert {path.name for path in (saved / "super_resolution").iterdir()} == {"model_index.json", "scheduler", "unet"}
    assert not (saved / "text_encoder").exists()
    index = json.loads((saved / "model_index.json").read_text())
    assert index["super_resolution"] == ["openlumiere.pipelines.super_resolution", "LumiereSuperResolutionPipeline"]
    assert not {"sr_unet", "sr_scheduler"} & set(index)
    assert cascade.super_resolution.text_encoder is cascade.text_encoder  # saving leaves it as it was
    alone = load_super_resolution(str(saved / "super_resolution"), device="cpu")
    assert alone.text_encoder is not None
    back = load_pipeline(str(saved), device="cpu")
    assert back.super_resolution.text_encoder is back.text_encoder
    np.testing.assert_allclose(make(back), make(cascade), atol=1e-5)


@pytest.mark.slow
def test_older_layouts_are_read_and_saved_anew(saved: Path, cascade: LumierePipeline, tmp_path: Path) -> None:
    old = load_pipeline(str(old_layout(saved, tmp_path / "old")), device="cpu")
    assert old.super_resolution.config.num_inference_steps == 1
    assert old.super_resolution.text_encoder is old.text_encoder
    assert weights_hash(old) == weights_hash(load_pipeline(str(saved), device="cpu"))
    np.testing.assert_allclose(make(old), make(cascade), atol=1e-5)
    old.save_pretrained(tmp_path / "new")
    for path in sorted((tmp_path / "new").rglob("*.safetensors")):
        twin = load_file(saved / path.relative_to(tmp_path / "new"))
        assert all(torch.equal(value, twin[name]) for name, value in load_file(path).items())
    assert (tmp_path / "new" / "super_resolution" / "unet").is_dir()


@pytest.mark.slow
def test_the_bundled_models_layout_is_read() -> None:
    pipe = load_pipeline("emoji", device="cpu")
    assert pipe.super_resolution.config.residual_scale == 8.0
    assert pipe.super_resolution.config.max_text_length == 24
    assert pipe.super_resolution.unet.spatial.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_it_can_be_left_out(saved: Path, tmp_path: Path) -> None:
    for folder in (saved, old_layout(saved, tmp_path / "old")):
        pipe = LumierePipeline.from_pretrained(folder, super_resolution=None)
        assert pipe.super_resolution is None
        assert pipe.scale == 1
        pipe.save_pretrained(tmp_path / "without")
        assert LumierePipeline.from_pretrained(tmp_path / "without").super_resolution is None


@pytest.mark.slow
def test_dtypes_reach_it(saved: Path, tmp_path: Path) -> None:
    for folder in (saved, old_layout(saved, tmp_path / "old")):
        pipe = LumierePipeline.from_pretrained(folder, torch_dtype=torch.bfloat16)
        assert pipe.super_resolution.unet.dtype == torch.bfloat16
        assert pipe.to(torch.float32).super_resolution.unet.dtype == torch.float32
    pipe.save_pretrained(tmp_path / "variant", variant="fp16")
    assert list((tmp_path / "variant" / "super_resolution" / "unet").glob("*.fp16.safetensors"))
    assert LumierePipeline.from_pretrained(tmp_path / "variant", variant="fp16").super_resolution is not None


def test_a_text_encoder_that_comes_later_is_shared(cascade: LumierePipeline) -> None:
    tokenizer, encoder = cascade.tokenizer, cascade.text_encoder
    cascade.register_modules(text_encoder=None, tokenizer=None)
    assert cascade.super_resolution.text_encoder is None
    cascade.register_modules(text_encoder=encoder, tokenizer=tokenizer)
    assert cascade.super_resolution.text_encoder is encoder


# --- What is refused, before anything is computed ---------------------------------------------------------------------


@pytest.fixture
def idle(cascade: LumierePipeline) -> Any:
    """The cascade, whose networks must not run."""
    parts = [cascade.unet, cascade.super_resolution.unet, cascade.text_encoder]
    hooks = [part.register_forward_pre_hook(lambda *_: pytest.fail("refused too late")) for part in parts]
    yield cascade
    for hook in hooks:
        hook.remove()


def test_upscaling_without_a_second_stage_is_refused_at_once() -> None:
    pipe = tiny.conditioned()
    pipe.unet.register_forward_pre_hook(lambda *_: pytest.fail("refused only after denoising"))
    with pytest.raises(LumiereError, match="no super-resolution stage"):
        make(pipe, upscale=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_inference_steps": 0}, "at least 1"),
        ({"generator": [torch.Generator()] * 2}, "2 generators for 1 clips"),
        ({"window_frames": 0}, "must be 1 or more"),
        ({"callback_on_step_end_tensor_inputs": ("latents", "noise")}, "'noise' is not among 'latents', 'denoised'"),
        ({"prompt_embeds": torch.zeros(2, 3, 384)}, "2 prompt_embeds for 1 clips"),
        ({"prompt_embeds": torch.zeros(1, 3, 4)}, r"reads \(clips, tokens, 384\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_input_of_the_second_stage(idle: LumierePipeline, options: dict[str, Any], words: str) -> None:
    with pytest.raises(LumiereError, match=words) as error:
        idle.super_resolution(np.zeros((8, 8, 8, 3), np.float32), **options)
    assert "\n" not in str(error.value)


def test_clips_are_padded_for_the_calls_windows_not_the_models(cascade: LumierePipeline) -> None:
    """Of 5 frames and windows of 4 none has to be padded, though the model's own windows have 8."""
    seen: list[int] = []
    stage = cascade.super_resolution
    hook = stage.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2]))
    clip = np.random.default_rng(0).random((5, 8, 8, 3), dtype=np.float32)
    noise = torch.randn(1, 12, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    frames = stage(clip, latents=noise, window_frames=4)[0]
    hook.remove()
    assert set(seen) == {4}
    assert frames.shape == (1, 5, 16, 16, 3)
