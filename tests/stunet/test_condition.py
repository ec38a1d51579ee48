"""⟨C, M⟩ inside the network: how its coarser levels of time see it, and a gate that knows its noise schedule."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from openlumiere import STUNet
from openlumiere.errors import LumiereError

FRAMES, CHANNELS, MASKS = 8, 12, 4  # of tiny's "bundled" structure: pixels folded by 2


@cache
def network(**options: Any) -> STUNet:
    """In mid-training, of pixels folded by 2; its inflation blocks see ⟨C, M⟩."""
    net = STUNet.from_unet(
        tiny.unet("bundled"), condition_channels=CHANNELS + MASKS, condition_blocks=True, **options
    ).eval()
    return tiny.wake(net)


def inputs_given(net: STUNet, frames: list[int], seed: int = 5) -> dict[str, Any]:
    """A noisy clip of which `frames` are given."""
    inputs = tiny.inputs(net.spatial, batch=1, frames=FRAMES)
    clip = torch.randn(inputs["sample"].shape, generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(1, 1, FRAMES, 8, 8)
    mask[:, :, frames] = 1
    return inputs | {"sample": torch.cat([inputs["sample"], clip * mask, mask.expand(-1, MASKS, -1, -1, -1)], dim=1)}


@torch.no_grad()
def run(net: STUNet, inputs: dict[str, Any]) -> torch.Tensor:
    return net(**inputs).sample


def seen_by_coarsest_level(net: STUNet, inputs: dict[str, Any]) -> torch.Tensor:
    """C and M as the middle block sees them, (F / 4, C, H / 4, W / 4)."""
    seen: list[torch.Tensor] = []
    layer = net.temporal.mid[0].given_linear
    hook = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].permute(0, 3, 1, 2)))
    run(net, inputs)
    hook.remove()
    return seen[0]


@pytest.mark.slow
@pytest.mark.parametrize("frame", range(FRAMES))
def test_a_frame_is_seen_at_every_level_of_time_wherever_it_is(frame: int) -> None:
    net = network()
    inputs = inputs_given(net, [frame])
    seen = seen_by_coarsest_level(net, inputs)
    wanted = torch.zeros(2, CHANNELS + MASKS, 2, 2)
    clip = inputs["sample"][0, CHANNELS:, frame]
    wanted[frame // 4] = torch.nn.functional.adaptive_avg_pool2d(clip, 2)
    torch.testing.assert_close(seen, wanted)


def test_each_position_is_seen_where_it_is_given_most_surely() -> None:
    """As `diffusion.conditioning.propagate_in_time` leaves M: 1 where given, less the further away that is."""
    net = network()
    inputs = tiny.inputs(net.spatial, batch=1, frames=FRAMES)
    generator = torch.Generator().manual_seed(3)
    clip = torch.randn(inputs["sample"].shape, generator=generator)
    mask = torch.rand(1, MASKS, FRAMES, 8, 8, generator=generator)
    seen = seen_by_coarsest_level(net, inputs | {"sample": torch.cat([inputs["sample"], clip, mask], dim=1)})
    wanted = torch.zeros(2, CHANNELS + MASKS, 8, 8)
    for group in range(2):
        best = mask[0, :, 4 * group : 4 * group + 4].argmax(dim=1) + 4 * group  # (MASKS, H, W)
        wanted[group, CHANNELS:] = mask[0].gather(1, best[:, None])[:, 0]
        wanted[group, :CHANNELS] = clip[0].gather(1, best.repeat(CHANNELS // MASKS, 1, 1)[:, None])[:, 0]
    torch.testing.assert_close(seen, torch.nn.functional.adaptive_avg_pool2d(wanted, 2))


@pytest.mark.slow
@pytest.mark.parametrize("frames", [[0], [0, 4], [4], list(range(FRAMES)), []], ids=str)
def test_frames_that_coarse_levels_keep_are_seen_alike_by_both_rules(frames: list[int]) -> None:
    net = network()
    old = network(condition_pooling="first")  # of the same weights
    inputs = inputs_given(net, frames)
    assert torch.equal(run(net, inputs), run(old, inputs))
    late = inputs_given(net, [*frames, FRAMES - 1] if len(frames) < FRAMES else [FRAMES - 1])
    assert not torch.allclose(run(net, late), run(old, late), atol=1e-4)


def test_models_saved_before_the_rule_keep_what_they_learned(tmp_path: Path) -> None:
    net = network(condition_pooling="first")
    net.save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text(encoding="utf-8")
    line = '  "condition_pooling": "first",\n'
    assert line in config
    (tmp_path / "config.json").write_text(config.replace(line, ""), encoding="utf-8")
    back = STUNet.from_pretrained(tmp_path)
    assert back.config["condition_pooling"] == "first"
    inputs = inputs_given(net, [FRAMES - 1])
    assert torch.equal(run(back, inputs), run(net, inputs))


@pytest.mark.slow
def test_new_networks_pool_by_the_maximum(tmp_path: Path) -> None:
    net = STUNet.from_unet(tiny.unet("bundled"))
    net.add_condition_channels(CHANNELS + MASKS)
    net.add_condition_to_blocks()
    assert net.config["condition_pooling"] == network().config["condition_pooling"] == "max"
    net.save_pretrained(tmp_path / "net")
    net.save_temporal(tmp_path / "temporal")
    assert STUNet.from_pretrained(tmp_path / "net").config["condition_pooling"] == "max"
    again = STUNet.from_unet(tiny.unet("bundled"), temporal=tmp_path / "temporal")
    assert again.config["condition_pooling"] == "max"


@pytest.mark.slow
def test_a_gate_without_a_noise_schedule_is_refused(tmp_path: Path) -> None:
    t2i = tiny.unet("bundled")
    with pytest.raises(LumiereError, match="add_gate") as error:
        STUNet.from_unet(copy.deepcopy(t2i), condition_channels=CHANNELS + MASKS, condition_gate=1000)
    assert "\n" not in str(error.value)
    net = STUNet.from_unet(copy.deepcopy(t2i), condition_channels=CHANNELS + MASKS)
    net.add_gate(torch.linspace(0.999, 0, 1000), "v_prediction")
    tiny.wake(net).save_temporal(tmp_path)
    again = STUNet.from_unet(t2i, temporal=tmp_path)  # whose weights hold the schedule
    assert torch.equal(again.temporal.gate.of_given, net.temporal.gate.of_given)
    assert run(again, inputs_given(net, [0, 7])).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"condition_blocks": True}, "condition_channels"),
        ({"condition_channels": CHANNELS, "condition_blocks": True}, "more than 12"),
        ({"condition_channels": CHANNELS + MASKS, "condition_pooling": "mean"}, "'first' or 'max'"),
    ],
)
def test_conditions_that_fit_nothing_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(LumiereError, match=words) as error:
        STUNet.from_unet(tiny.unet("bundled"), **options)
    assert "\n" not in str(error.value)


def test_blocks_grown_with_a_condition_start_blind_to_it() -> None:
    net = STUNet.from_unet(tiny.unet("bundled"), condition_channels=CHANNELS + MASKS, condition_blocks=True)
    looking = [p for name, p in net.named_parameters() if "given_" in name]
    assert looking
    assert all((p == 0).all() for p in looking)
