"""Placing, offloading, quantizing and compiling a tiny pipeline of diffusers."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from diffusers.hooks import HookRegistry
from transformers import UMT5Config, UMT5EncoderModel

import tiny
from openlumiere.errors import LumiereError
from openlumiere.generation.backends import memory
from openlumiere.generation.backends.base import Loading

NEWER = pytest.mark.skipif(
    version("diffusers") < "0.42", reason="older versions of diffusers offload to accelerators alone"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_wan(tmp_path_factory.mktemp("memory"))


def save_wan(folder: Path) -> Path:
    """Save a tiny Wan pipeline."""
    torch.manual_seed(0)
    tokenizer = tiny.t5_tokenizer(folder / "words")
    pipe = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(
            UMT5Config(vocab_size=len(tokenizer), d_model=32, d_ff=64, d_kv=16, num_heads=2, num_layers=2)
        ),
        transformer=WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=32, in_channels=4, out_channels=4,
            text_dim=32, freq_dim=32, ffn_dim=128, num_layers=2, rope_max_seq_len=32,
        ),
        vae=AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
                             latents_mean=[0.0] * 4, latents_std=[1.0] * 4),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )  # fmt: skip
    pipe.save_pretrained(folder / "wan")
    return folder / "wan"


def load(folder: Path, loading: Loading | None = None) -> WanPipeline:
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    more = memory.quantization_config(loading or Loading(), index)
    pipe: WanPipeline = WanPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True, **more)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make(pipe: WanPipeline) -> torch.Tensor:
    clip: torch.Tensor = pipe(
        "a tiger", height=16, width=16, num_frames=5, num_inference_steps=1, output_type="pt",
        generator=torch.Generator().manual_seed(0), max_sequence_length=8,
    ).frames  # fmt: skip
    return clip


@pytest.fixture(scope="module")
def plain(folder: Path) -> torch.Tensor:
    return make(load(folder))


def test_nothing_asked_for_changes_nothing(folder: Path, plain: torch.Tensor):
    pipe = load(folder)
    assert memory.prepare(pipe, Loading(device="cpu")) == ()
    assert torch.equal(make(pipe), plain)
    assert not pipe.vae.use_tiling


@NEWER
def test_layers_offloaded_in_groups_make_the_same_clip(folder: Path, plain: torch.Tensor):
    pipe = load(folder)
    memory.offload_groups(pipe, torch.device("cpu"))  # each layer is "moved" to the CPU: the hooks are the GPU's own
    hooked = [
        module for name in ("text_encoder", "transformer", "vae") for module in getattr(pipe, name).modules()
        if HookRegistry.check_if_exists_or_initialize(module).get_hook("group_offloading") is not None
    ]  # fmt: skip
    assert len(hooked) > 50
    assert torch.allclose(make(pipe), plain, atol=1e-5)


@NEWER
def test_networks_are_offloaded_one_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "meta", torch.cpu, raising=False)  # whose cache diffusers empties
    pipe = load(folder)
    notes = memory.prepare(pipe, Loading(device="meta", offload="model"))
    assert [note.partition(":")[0] for note in notes] == ["VAE tiling and slicing", "offload model"]
    assert pipe._execution_device.type == "meta"
    assert {pipe.text_encoder.device.type, pipe.transformer.device.type, pipe.vae.device.type} == {"cpu"}
    pipe.transformer._hf_hook.pre_forward(pipe.transformer)
    assert pipe.transformer.device.type == "meta"
    assert pipe.vae.device.type == "cpu"


def test_blocks_that_repeat_are_compiled(folder: Path):
    pipe = load(folder)
    (note,) = memory.prepare(pipe, Loading(device="cpu", compile=True))
    assert note.startswith("compile: 2 blocks")
    assert all(block._compiled_call_impl is not None for block in pipe.transformer.blocks)


@pytest.mark.parametrize("offload", ["model", "group", "frames"])
def test_offloading_that_saves_nothing_is_refused(folder: Path, offload: str):
    with pytest.raises(LumiereError, match=f"--offload {offload}"):
        memory.prepare(load(folder), Loading(device="cpu", offload=offload))


@pytest.mark.parametrize(("kind", "error"), [("int8", 0.05), ("float8", 0.15)])
def test_quantized_networks_are_smaller_and_make_nearly_the_same_clip(
    folder: Path, plain: torch.Tensor, kind: str, error: float
):
    pytest.importorskip("torchao")
    loading = Loading(device="cpu", quantize=kind)
    pipe = load(folder, loading)
    assert memory.prepare(pipe, loading)[-1].startswith(f"quantize {kind}")
    assert memory.weight_bytes([pipe.transformer]) < 0.5 * memory.weight_bytes([load(folder).transformer])
    assert (make(pipe) - plain).norm() < error * plain.norm()


def test_int4_needs_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory.extras, "require", lambda *modules: None)
    with pytest.raises(LumiereError, match="int4: bitsandbytes needs a CUDA GPU, not cpu; choose int8"):
        load(folder, Loading(device="cpu", quantize="int4"))


def test_a_library_that_is_missing_is_named_with_its_extra(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LumiereError, match=r"torchao is not installed; .*openlumiere\[quantize\]"):
        load(folder, Loading(device="cpu", quantize="int8"))


def test_a_motion_adapters_network_is_not_quantized():
    index = {"motion_adapter": ["diffusers", "MotionAdapter"], "unet": ["diffusers", "UNet2DConditionModel"]}
    with pytest.raises(LumiereError, match="--quantize int8: this model cannot"):
        memory.quantization_config(Loading(quantize="int8"), index)
