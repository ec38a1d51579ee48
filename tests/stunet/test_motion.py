"""Temporal attention taken from AnimateDiff motion adapters."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import MotionAdapter

import tiny
from openlumiere import LumierePipeline
from openlumiere.errors import LumiereError
from openlumiere.pipelines.inflate import inflate
from openlumiere.stunet import STUNet, blocks
from openlumiere.stunet.motion import _rotary_biases, carry_motion, motion_options

CHANNELS = (8, 16, 24)  # of tiny U-Nets


def adapter(**options: Any) -> MotionAdapter:
    """A random adapter for tiny U-Nets of two layers a level."""
    torch.manual_seed(3)
    shape = {"block_out_channels": CHANNELS, "motion_num_attention_heads": 2, "motion_norm_num_groups": 1}
    made = MotionAdapter(**(shape | options)).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight += 0.1 * torch.randn(weight.shape)
    return made


def inflated(motion: MotionAdapter, **options: Any) -> STUNet:
    t2i = tiny.unet("stable-diffusion")
    return STUNet.from_unet(t2i, **(motion_options(motion, t2i) | options))


def test_each_self_attention_becomes_a_block():
    motion = adapter()
    net = inflated(motion)
    found = carry_motion(net.temporal, motion, projections=True)
    assert [(module.place, module.carried, module.fresh) for module in found] == [
        ("down.0", 2, 0), ("down.1", 2, 0), ("mid.0", 2, 0), ("up.0", 2, 0), ("up.1", 2, 0), ("up.2", 2, 0),
    ]  # fmt: skip
    assert net.temporal.mid[0].num_heads == 2
    assert all(stack[1].projection.weight.any() for stack in (*net.temporal.down[-1], *net.temporal.up[0]))


@torch.no_grad()
def test_attention_without_positions_is_the_adapters(monkeypatch: pytest.MonkeyPatch):
    motion = adapter()
    module = motion.mid_block.motion_modules[0]
    transformer = module.transformer_blocks[0]
    # What is carried is equal where the norms are: a clip whose channels are normalised, and stay so.
    module.norm.weight.fill_(1), module.norm.bias.zero_()
    module.proj_in.weight.copy_(torch.eye(CHANNELS[-1])[torch.randperm(CHANNELS[-1])]), module.proj_in.bias.zero_()
    monkeypatch.setattr(blocks, "_rotate", lambda x: x)
    net = inflated(motion)
    carry_motion(net.temporal, motion, positions=False, projections=True)

    frames = 8
    clip = torch.nn.functional.layer_norm(torch.randn(frames, 5, 4, CHANNELS[-1]), CHANNELS[-1:]).permute(0, 3, 1, 2)
    tokens = clip.permute(2, 3, 0, 1).reshape(20, frames, -1)
    attended = transformer.attn1(transformer.norm1(module.proj_in(tokens)))
    expected = (attended @ module.proj_out.weight.T).reshape(5, 4, frames, -1).permute(2, 3, 0, 1)
    got = net.temporal.mid[0](clip, frames) - clip
    assert expected.std() > 0.01
    assert torch.allclose(got, expected, atol=1e-4)


@torch.no_grad()
def test_positions_become_distances():
    motion = adapter(block_out_channels=(8, 16, 64), motion_num_attention_heads=1)
    attention = motion.mid_block.motion_modules[0].transformer_blocks[0].attn1
    embeddings = motion.mid_block.motion_modules[0].transformer_blocks[0].pos_embed.pe[0, :16]
    query, key = (bias.expand(1, 16, -1) for bias in _rotary_biases(attention, embeddings))
    got = (blocks._rotate(query) @ blocks._rotate(key).transpose(1, 2))[0]
    centred = embeddings - embeddings.mean(0)
    scores = attention.to_q(centred) @ attention.to_k(centred).T
    expected = torch.tensor([scores.diagonal(-d).mean() for d in range(-15, 16)])
    got = torch.tensor([got.diagonal(-d).mean() for d in range(-15, 16)])
    assert torch.corrcoef(torch.stack([got, expected]))[0, 1] > 0.95


def test_projections_may_stay_zero_so_that_the_network_is_still_the_t2i():
    motion = adapter()
    given = tiny.inputs(tiny.unet("stable-diffusion"))
    plain = tiny.run(inflated(motion).eval(), given)
    for projections in (False, True):
        net = inflated(motion).eval()
        carry_motion(net.temporal, motion, projections=projections)
        assert torch.equal(tiny.run(net, given), plain) is not projections


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ({"block_out_channels": (8, 16, 32)}, "coarsest level has 32 channels, the text-to-image model's 24"),
        ({"motion_layers_per_block": 1}, "has 1 modules in its coarsest down block, the text-to-image model 2 layers"),
    ],
)
def test_adapters_of_another_shape_are_refused(shape: dict[str, Any], problem: str):
    motion = adapter(**shape)
    with pytest.raises(LumiereError, match=f"--motion: .*{problem}"):
        carry_motion(inflated(motion).temporal, motion)


def test_heads_of_another_number_are_refused():
    motion = adapter()
    with pytest.raises(LumiereError, match="2 heads on 24 channels, the network 6 on 24; leave attention_head_dim out"):
        carry_motion(inflated(motion, attention_head_dim=4).temporal, motion)


def test_inflate_takes_an_adapters_folder(tmp_path: Path):
    tiny.stable_diffusion(tmp_path / "words").save_pretrained(tmp_path / "t2i")
    adapter().save_pretrained(tmp_path / "adapter")
    printed = inflate(str(tmp_path / "t2i"), tmp_path / "clips", motion=str(tmp_path / "adapter"))
    assert re.search(r"^down\.0 +2 +0 +feed-forward$", printed, re.MULTILINE)
    net = LumierePipeline.from_pretrained(tmp_path / "clips").unet
    assert net.config["attention_head_dim"] == 12
    with pytest.raises(LumiereError, match=r"--motion: .*t2i.* is no motion adapter"):
        inflate(str(tmp_path / "t2i"), tmp_path / "more", motion=str(tmp_path / "t2i"))
    assert not (tmp_path / "more").exists()
