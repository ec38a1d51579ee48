"""STUNet on disk, and what it refuses to be made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

import tiny
from openlumiere import STUNet
from openlumiere.errors import LumiereError
from tiny import inflated, run


def assert_one_line(error: BaseException) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 400


@pytest.mark.slow
@pytest.mark.parametrize("name", list(tiny.UNETS))
def test_save_and_load_to_the_bit(name: str, tmp_path: Path) -> None:
    net, _, given_ = inflated(name, temporal_conditioning=True, resampled_levels=[1], attention_layers=1)
    tiny.wake(net).save_pretrained(tmp_path)
    back = STUNet.from_pretrained(tmp_path)
    assert dict(back.config)["resampled_levels"] == [1]
    ours, theirs = net.state_dict(), back.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert torch.equal(run(net, given_), run(back, given_))
    assert not any(p.requires_grad for p in back.spatial.parameters())
    assert all(p.requires_grad for p in back.temporal.parameters())


@pytest.mark.slow
def test_temporal_weights_travel_to_another_t2i_of_the_same_shape(tmp_path: Path) -> None:
    options: dict[str, Any] = {"resampled_levels": [0], "attention_layers": 1, "temporal_width": 0.5}
    net, t2i, given_ = inflated("stable-diffusion", **options, temporal_conditioning=True)
    tiny.wake(net).save_temporal(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"temporal.safetensors", "temporal.json"}

    again = STUNet.from_unet(t2i, temporal=tmp_path)  # the options came along
    assert torch.equal(run(again, given_), run(net, given_))

    other = tiny.unet("stable-diffusion", seed=9)
    moved = STUNet.from_unet(other, temporal=tmp_path)
    for key, value in net.temporal.state_dict().items():
        assert torch.equal(moved.temporal.state_dict()[key], value)
    assert not torch.allclose(run(moved, given_), run(net, given_), atol=1e-3)


@pytest.mark.slow
def test_temporal_weights_of_another_shape_are_refused_in_one_line(tmp_path: Path) -> None:
    net, *_ = inflated("stable-diffusion")
    net.save_temporal(tmp_path)
    with pytest.raises(LumiereError, match="another shape") as error:
        STUNet.from_unet(tiny.unet("stable-diffusion-2"), temporal=tmp_path)
    assert_one_line(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "cut", "json"])
def test_damaged_temporal_weights_are_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    net, t2i, _ = inflated("stable-diffusion")
    net.save_temporal(tmp_path)
    weights = tmp_path / "temporal.safetensors"
    match damage:
        case "missing":
            weights.unlink()
        case "cut":
            weights.write_bytes(weights.read_bytes()[:1000])
        case "json":
            (tmp_path / "temporal.json").write_text("{", encoding="utf-8")
    with pytest.raises(LumiereError, match="cannot read") as error:
        STUNet.from_unet(t2i, temporal=tmp_path)
    assert_one_line(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 2, 6, 81])
def test_a_length_that_the_levels_do_not_divide_is_refused(frames: int) -> None:
    net, t2i, _ = inflated("stable-diffusion")
    with pytest.raises(LumiereError, match="multiple of 4") as error:
        net(**tiny.inputs(t2i, frames=frames))
    assert_one_line(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resampled_levels": [2]}, "down-samplers are 0 to 1"),
        ({"resampled_levels": [-1]}, "down-samplers are 0 to 1"),
        ({"resampled_levels": [0, 0]}, "once"),
        ({"temporal_init": "random"}, "'identity' or 'he'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(LumiereError, match=words) as error:
        STUNet.from_unet(tiny.unet("stable-diffusion"), **options)
    assert_one_line(error.value)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="temporal_widht"):
        STUNet.from_unet(tiny.unet("stable-diffusion"), temporal_widht=1.0)


K_BLOCKS: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["KDownBlock2D", "KCrossAttnDownBlock2D"],
    "up_block_types": ["KCrossAttnUpBlock2D", "KUpBlock2D"],
    "mid_block_type": None,
    "act_fn": "gelu",
    "attention_head_dim": 8,
    "cross_attention_dim": 16,
    "norm_num_groups": None,
    "resnet_time_scale_shift": "scale_shift",
}


def test_other_structures_are_refused() -> None:
    for t2i, words in (
        (UNet2DConditionModel.from_config(K_BLOCKS), "KDownBlock2D"),
        (UNet2DConditionModel.from_config(tiny.UNETS["stable-diffusion"] | {"dual_cross_attention": True}), "dual"),
        (nn.Linear(1, 1), "Linear"),
    ):
        with pytest.raises(LumiereError, match=words) as error:
            STUNet.from_unet(t2i)  # type: ignore[arg-type]
        assert_one_line(error.value)
