"""What the network makes of a layout: where the subject is in each frame."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import tiny
from openlumiere import STUNet
from openlumiere.diffusion.layout import LAYOUT_DIM
from openlumiere.errors import LumiereError

WITH_LAYOUT = ["bundled-layout", "class-beside-time"]


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(name: str, *, awake: bool = False, **options: Any) -> tuple[STUNet, dict[str, Any]]:
    t2i = tiny.unet(name)
    inputs = tiny.inputs(t2i)
    inputs.pop("class_labels")
    net = STUNet.from_unet(t2i, **options).eval()
    return tiny.wake(net) if awake else net, inputs


@torch.no_grad()
def run(net: STUNet, inputs: dict[str, Any], **more: Any) -> torch.Tensor:
    return net(**inputs, **more).sample


@pytest.mark.slow
@pytest.mark.parametrize("conditioning", [False, True], ids=["paper", "conditioned"])
@pytest.mark.parametrize("name", WITH_LAYOUT)
@torch.no_grad()
def test_a_fresh_network_is_its_t2i_at_each_frames_layout(name: str, conditioning: bool) -> None:
    """Without resampling of time, frame by frame; with it, where frames and layouts are equal."""
    t2i = tiny.unet(name)
    net, inputs = network(name, temporal_conditioning=conditioning, resampled_levels=[])
    layout = tiny.random_layout(2, 8)
    frames = inputs["sample"].transpose(1, 2).flatten(0, 1)
    text, timestep = (inputs[key].repeat_interleave(8, dim=0) for key in ("encoder_hidden_states", "timestep"))
    expected = t2i(frames, timestep, text, class_labels=layout.flatten(0, 1)).sample
    made = run(net, inputs, layout=layout)
    assert_close(made.transpose(1, 2).flatten(0, 1), expected)

    net, _ = network(name, temporal_conditioning=conditioning)
    still = inputs | {"sample": inputs["sample"][:, :, :1].expand(-1, -1, 8, -1, -1)}
    alike = layout[:, :1].expand(-1, 8, -1)
    picture = t2i(
        still["sample"][:, :, 0], inputs["timestep"], inputs["encoder_hidden_states"], class_labels=alike[:, 0]
    )
    made = run(net, still, layout=alike)
    assert_close(made, picture.sample[:, :, None].expand_as(made))


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_LAYOUT)
def test_nothing_given_is_zeros_and_labels_are_a_layout_for_all_frames(name: str) -> None:
    net, inputs = network(name, awake=True, temporal_conditioning=True)
    untold = run(net, inputs)
    assert torch.equal(untold, run(net, inputs, layout=torch.zeros(2, 8, LAYOUT_DIM)))
    one = tiny.random_layout(2, 1)
    told = run(net, inputs, layout=one.expand(-1, 8, -1))
    assert torch.equal(told, run(net, inputs, class_labels=one[:, 0]))
    assert not torch.allclose(told, untold, atol=1e-3)


@pytest.mark.slow
def test_coarser_levels_are_told_the_frames_that_they_keep() -> None:
    """What is told of odd frames reaches the finest level alone; what is told of even ones, every level."""
    net, inputs = network("bundled-layout", temporal_conditioning=True, awake=True)
    told: dict[int, list[torch.Tensor]] = {}
    for block in net.spatial.down_blocks:
        for resnet in block.resnets:
            resnet.register_forward_pre_hook(lambda _m, args: told.setdefault(len(args[1]) // 2, []).append(args[1]))
    layout = tiny.random_layout(2, 8)
    run(net, inputs, layout=layout)
    before, told = told, {}
    changed = layout.clone()
    changed[:, 1::2] += 1
    run(net, inputs, layout=changed)
    assert sorted(before) == [2, 4, 8]
    assert not torch.equal(before[8][0], told[8][0])
    for frames in (2, 4):
        assert torch.equal(before[frames][0], told[frames][0])


@pytest.mark.slow
def test_the_temporal_layers_learn_from_the_layout_too() -> None:
    net, inputs = network("bundled-layout", temporal_conditioning=True, awake=True)
    net(**inputs, layout=tiny.random_layout(2, 8)).sample.square().mean().backward()
    conditioning = net.temporal.conditioning
    assert conditioning is not None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in conditioning.layout.parameters())
    plain = STUNet.from_unet(tiny.unet("bundled"), temporal_conditioning=True)
    assert plain.temporal.conditioning.layout is None


@pytest.mark.slow
def test_layouts_that_do_not_fit_are_one_line() -> None:
    net, inputs = network("bundled-layout")
    with pytest.raises(LumiereError, match=r"\(2, 8, 6\)"):
        run(net, inputs, layout=tiny.random_layout(2, 4))
    with pytest.raises(LumiereError, match="not both"):
        run(net, inputs, layout=tiny.random_layout(2, 8), class_labels=torch.zeros(2, 6))
    plain = STUNet.from_unet(copy.deepcopy(tiny.unet("bundled")))
    assert not plain.takes_layout
    with pytest.raises(LumiereError, match="not trained to be told"):
        run(plain, inputs, layout=tiny.random_layout(2, 8))
