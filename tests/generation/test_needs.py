"""What clips need of memory, computed without weights, against what real networks take on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    MotionAdapter,
    UNetMotionModel,
    WanTransformer3DModel,
)
from safetensors import safe_open
from torch.profiler import ProfilerActivity, profile

import tiny
import tiny_backends
import tiny_transformers
from openlumiere import counting
from openlumiere.errors import LumiereError
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.backends import find, needs, tracing
from openlumiere.generation.backends.base import Loading
from openlumiere.generation.backends.memory import tile
from openlumiere.generation.backends.source import Source

GB = 10**9
TEXT = Abilities(model="wan", family="wan", tasks=("generate",), width=64, height=48, num_frames=5)


def measured(run: Callable[[], Any]) -> int:
    """The peak of what PyTorch's allocator of the CPU gave, by PyTorch's profiler."""
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        kept = run()
        del kept
    live = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


NETWORKS: dict[str, tuple[Callable[[], Any], tuple[int, int, int]]] = {
    "wan": (
        lambda: WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=32, in_channels=4, out_channels=4,
            text_dim=32, freq_dim=32, ffn_dim=128, num_layers=2, rope_max_seq_len=64,
        ), (9, 32, 32)),
    "stunet": (lambda: tiny.inflated("stable-diffusion")[0], (16, 32, 32)),
    "animatediff": (
        lambda: UNetMotionModel.from_unet2d(
            tiny.unet("stable-diffusion"),
            MotionAdapter(block_out_channels=(8, 16, 24), motion_num_attention_heads=2, motion_norm_num_groups=4),
        ), (8, 32, 32)),
    "sd-vae": (
        lambda: AutoencoderKL(block_out_channels=(8, 16), norm_num_groups=4, latent_channels=4,
                              down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                              sample_size=32), (8, 32, 32)),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_activations_are_near_to_what_the_allocator_gives(name: str):
    build, shape = NETWORKS[name]
    calls = {}
    for device in ("meta", "cpu"):
        net = build().eval().to(device)
        calls[device] = (
            tracing.decode(net, shape, torch.float32) if name.endswith("vae")
            else tracing.denoise(net, shape, torch.float32)
        )  # fmt: skip
    computed, real = counting.peak_bytes(calls["meta"]), measured(calls["cpu"])
    print(f"{name}: computed {computed / 1e6:.2f} MB, measured {real / 1e6:.2f} MB, {computed / real - 1:+.1%}")
    assert computed == pytest.approx(real, rel=0.15)


def test_offloading_and_tiling_are_counted():
    net = NETWORKS["sd-vae"][0]().eval().to("meta")
    whole = counting.peak_bytes(tracing.decode(net, (4, 24, 24), torch.float32))
    assert tile(net) == ["tiling", "slicing"]
    assert counting.peak_bytes(tracing.decode(net, (4, 24, 24), torch.float32)) < whole / 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from test_memory import save_wan

    return save_wan(tmp_path_factory.mktemp("needs"))


def stored(folder: Path) -> int:
    """The number of weights that the headers of a component's files name."""
    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            count += sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in file.keys())  # noqa: SIM118
    return count


def test_weights_are_those_of_the_files(folder: Path):
    found = needs.needs(Source(str(folder)), TEXT, dtype=torch.float32, gpu=False)
    assert {part.name: part.weights for part in found.components} == {
        name: 4 * stored(folder / name) for name in ("text_encoder", "transformer", "vae")
    }


@pytest.mark.slow
def test_weights_of_the_bundled_model_are_those_of_its_files():
    source = Source("emoji")
    found = needs.needs(source, find.read_abilities("emoji"), num_frames=16, dtype=torch.float32, gpu=False)
    assert source.main.folder is not None
    folders = {found.components[-1].name: "super_resolution/unet"}
    for part in found.components:
        file = source.main.folder / folders.get(part.name, part.name)
        # The gate's schedule lies in it too.
        assert part.weights == pytest.approx(4 * stored(file), rel=1e-3)
    assert "unet" in {part.name for part in found.components if part.activations}


def part(name: str, **sizes: Any) -> needs.ComponentNeeds:
    own = {"linear": 0, "itemsize": 2, "layer": GB // 10, "activations": 0, "tiled": 0} | sizes
    return needs.ComponentNeeds(name=name, class_name=name, **own)


NEEDS = needs.Needs(
    model="large", width=832, height=480, num_frames=81, dtype="bfloat16", gpu=False,
    components=(
        part("text_encoder", weights=11 * GB, linear=5 * GB, layer=2 * GB),
        part("transformer", weights=28 * GB, linear=14 * GB, activations=3 * GB, tiled=3 * GB),
        part("vae", weights=GB, activations=6 * GB, tiled=GB),
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (46, Loading()),
        (43, Loading(memory=43 * GB)),
        (31, Loading(memory=31 * GB, offload="model")),
        (4, Loading(memory=4 * GB, offload="group")),
    ],
)
def test_the_fastest_way_that_fits_is_taken(memory: int, expected: Loading):
    on_gpu = replace(NEEDS, gpu=True)
    fits = [way for _, way in on_gpu.ways(Loading(memory=memory * GB)) if NEEDS.total(way) <= memory * GB]
    assert fits[0] == expected


def test_weights_in_few_bits_are_counted():
    loading = Loading(offload="model", memory=20 * GB)
    ways = {name: NEEDS.total(way) for name, way in replace(NEEDS, gpu=True).ways(loading)}
    assert ways["--offload model"] == 31 * GB
    assert ways["--offload model --quantize int8"] == 17 * GB
    assert ways["--offload model --quantize int4"] == pytest.approx(3 * GB + 14 * GB * 0.5625)


@pytest.mark.slow
def test_what_fits_nowhere_is_refused_with_what_would(folder: Path):
    with pytest.raises(
        LumiereError, match=r"^--memory 0\.00 GB: .*wan needs 0\.00 GB at least \(.*\) for 64x48, 5 frames"
    ):
        needs.within_memory(Source(str(folder)), TEXT, Loading(device="cpu", memory=1))
    assert needs.within_memory(Source(str(folder)), TEXT, Loading(device="cpu", memory=GB)) == Loading(device="cpu")


@pytest.mark.slow
def test_needs_print_as_a_table(folder: Path):
    printed = str(needs.needs(Source(str(folder)), TEXT, num_frames=5))
    assert "64x48, 5 frames, bfloat16, computed" in printed
    assert [line.split()[0] for line in printed.splitlines() if "Wan" in line] == ["transformer", "vae"]
    assert "--offload group --quantize int4" in printed


FAMILIES = {
    "animatediff": lambda folder: tiny_backends.save_animatediff(folder),
    "zeroscope": lambda folder: tiny_backends.save_zeroscope(folder),
    "svd": lambda folder: tiny_backends.save_svd(folder),
    "wan-i2v": lambda folder: tiny_transformers.save_wan(folder, "i2v"),
    "wan-vace": lambda folder: tiny_transformers.save_wan(folder, "vace"),
    "ltx": lambda folder: tiny_transformers.save_ltx(folder),
    "cogvideox": lambda folder: tiny_transformers.save_cogvideox(folder),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_computed(tmp_path: Path, family: str):
    source = Source(str(FAMILIES[family](tmp_path / "model")))
    abilities = find.read_abilities(source.name)
    frames = abilities.nearest_length(5)
    found = needs.needs(source, abilities, size=(64, 64), num_frames=frames, dtype=torch.float32)
    sizes = {part.name: part for part in found.components}
    denoiser = sizes.get("unet") or sizes["transformer"]
    assert denoiser.activations > 0
    assert sizes["vae"].activations >= sizes["vae"].tiled > 0
    assert found.total(Loading(offload="group")) < found.total(Loading())
