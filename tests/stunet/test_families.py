"""The U-Nets of published text-to-image models, on the meta device: inflated whole, counted, never run."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tiny
from openlumiere import STUNet
from openlumiere.stunet.summary import cost, levels, table

CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Published:
    """What is known of a model beside its config.

    Attributes:
        parameters: of its U-Net: exact where the weights' are known, else as its model card rounds them.
        tolerance: relative, of that rounding.
        frames: of each level, for a clip of 80.
        sizes: of each level.
    """

    parameters: float
    tolerance: float
    frames: list[int]
    sizes: list[int]


_IF_I = {"frames": [80, 40, 20, 10], "sizes": [64, 32, 16, 8]}
_IF_II = {"frames": [80, 40, 20, 10, 5], "sizes": [256, 128, 64, 32, 16]}
# The stage II cards don't print the channels: theirs are the multiples (1, 2, 4, 6, 8) of one width that give the
# published counts, in the block types, depths and options of diffusers' conversion script.
MODELS = {
    "stable-diffusion-1.5": Published(859_520_964, 0, [80, 40, 20, 10], [64, 32, 16, 8]),
    "stable-diffusion-2.1": Published(865_910_724, 0, [80, 40, 20, 10], [96, 48, 24, 12]),
    "stable-diffusion-xl-base-1.0": Published(2_567_463_684, 0, [80, 40, 20], [128, 64, 32]),
    "deepfloyd-if-i-m": Published(0.4e9, 0.1, **_IF_I),
    "deepfloyd-if-i-l": Published(0.9e9, 0.05, **_IF_I),
    "deepfloyd-if-i-xl": Published(4.3e9, 0.01, **_IF_I),
    "deepfloyd-if-ii-m": Published(0.45e9, 0.05, **_IF_II),
    "deepfloyd-if-ii-l": Published(1.2e9, 0.05, **_IF_II),
}


def test_there_is_a_config_for_each_model() -> None:
    assert {path.stem for path in CONFIGS.glob("*.json")} == set(MODELS)


@cache
def pair(name: str) -> tuple[dict[str, torch.Size], STUNet]:
    """Names and shapes of the T2I's weights, and the network grown from it."""
    config = json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        t2i = UNet2DConditionModel.from_config(config)
    before = {key: value.shape for key, value in t2i.state_dict().items()}
    return before, STUNet.from_unet(t2i)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_spatial_weight_is_accounted_for(name: str) -> None:
    before, net = pair(name)
    count = sum(shape.numel() for shape in before.values())
    assert count == pytest.approx(MODELS[name].parameters, rel=MODELS[name].tolerance, abs=0)
    after = {key: value.shape for key, value in net.state_dict().items()}
    spatial = {key.removeprefix("spatial."): shape for key, shape in after.items() if key.startswith("spatial.")}
    assert spatial == before
    assert all(key.startswith(("spatial.", "temporal.")) for key in after)
    assert not any(p.requires_grad for p in net.spatial.parameters())
    assert all(p.requires_grad for p in net.temporal.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_every_place_of_figure_4_is_inflated(name: str) -> None:
    _, net = pair(name)
    t2i, temporal = net.spatial, net.temporal
    last = len(t2i.down_blocks) - 1
    assert net.frame_multiple == 2**last
    assert [len(blocks) for blocks in temporal.down] == [len(block.resnets) for block in t2i.down_blocks]
    assert [len(blocks) for blocks in temporal.up] == [len(block.resnets) for block in t2i.up_blocks]
    assert len(temporal.downsamplers) == sum(b.downsamplers is not None for b in t2i.down_blocks) == last
    assert len(temporal.upsamplers) == sum(b.upsamplers is not None for b in t2i.up_blocks) == last
    # Attention at the coarsest level alone: where it is in full is where it can be afforded.
    attended = {key.split(".")[0] + key.split(".")[1] for key in temporal.state_dict() if "to_qkv" in key}
    assert attended == {f"down{last}", "up0", "mid0", "mid1"}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_levels_and_cost_are_reported(name: str) -> None:
    before, net = pair(name)
    rows = levels(net, 80)
    assert [row.frames for row in rows] == MODELS[name].frames
    assert [row.size for row in rows] == MODELS[name].sizes
    assert [row.blocks for row in rows] == ["convolution"] * (len(rows) - 1) + ["attention"]
    assert sum(row.added for row in rows) == sum(p.numel() for p in net.temporal.parameters())
    outside = ("conv_in", "conv_norm_out", "conv_out", "time_embedding", "add_embedding", "class_", "encoder_hid")
    assert sum(row.frozen for row in rows) == sum(
        shape.numel() for key, shape in before.items() if not key.startswith(outside)
    )
    printed = table(net, 80)
    for row in rows:
        assert f"{row.size}x{row.size}" in printed
    assert f"{sum(p.numel() for p in net.spatial.parameters()) / 1e6:.2f} M parameters frozen" in printed
    counted = re.search(r"one evaluation of 80 frames: (\S+) TFLOPs", printed)
    assert counted is not None
    # Each weight of the levels works on each frame, and most of them at each position too.
    assert float(counted[1]) * 1e12 > 2 * rows[-1].frames * rows[-1].size ** 2 / 8 * sum(row.frozen for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(tiny.UNETS))
def test_counted_flops_are_those_of_a_run(name: str) -> None:
    net = STUNet.from_unet(tiny.unet(name), temporal_conditioning=True)
    given = tiny.inputs(net.spatial, batch=1, frames=8)
    given["encoder_hidden_states"] = given["encoder_hidden_states"].repeat(1, 16, 1)[:, :77]
    # The counter doesn't know the CPU's fused attention; plain matrix products it does.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        net(**given)
    spent = cost(net, 8)
    assert spent.flops == counter.get_total_flops()
    assert spent.weight_bytes == 4 * sum(p.numel() for p in net.parameters())
    assert [row.frames for row in levels(net, 8)] == [8, 4, 2]
    assert f"{spent.flops / 1e12:.3g} TFLOPs" in table(net, 8)


@pytest.mark.slow
def test_resampling_time_saves_most_where_most_is_done() -> None:
    """Without temporal layers, Stable Diffusion 1.5's shape is 1.66 times cheaper than at a fixed frame rate."""
    config = json.loads((CONFIGS / "stable-diffusion-1.5.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        t2i = UNet2DConditionModel.from_config(config)
        clip = torch.empty(1, 4, 16, 64, 64)
        time, text = torch.empty(1), torch.empty(1, 77, 768)

    def spatial_flops(resampled: list[int] | None) -> int:
        net = STUNet.from_unet(t2i, resampled_levels=resampled)
        with torch.no_grad(), FlopCounterMode(net, display=False, depth=3) as counter:
            net(clip, time, text)
        counts = counter.get_flop_counts()
        return counter.get_total_flops() - sum(
            sum(flops.values()) for module, flops in counts.items() if module == "STUNet.temporal" or _is_block(module)
        )

    assert spatial_flops([]) / spatial_flops(None) == pytest.approx(1.66, abs=0.02)


def _is_block(module: str) -> bool:
    """Of the modules that `FlopCounterMode` names, the outermost of the temporal half that run."""
    parts = module.split(".")
    return parts[:2] == ["STUNet", "temporal"] and len(parts) == {"down": 5, "up": 5, "mid": 3}.get(parts[2], 4)
