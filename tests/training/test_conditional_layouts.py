"""What stage `conditional` tells of layouts: as much as is known where clips are completed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tiny
from openlumiere.diffusion.layout import layout_of
from openlumiere.training.stages.conditional import Conditional, ConditionalModelConfig

LAYOUT = layout_of(torch.tensor([0.1, -0.2, 0.5, 1.0]).expand(1, 8, -1))


def told(mask: torch.Tensor, **model: Any) -> torch.Tensor:
    """Return the layouts that 400 clips of one mask, (8, 16, 16), are told."""
    count = 400
    pipe = tiny.conditioned(layout=True)
    stage: Any = SimpleNamespace(
        config=SimpleNamespace(model=ConditionalModelConfig(**model), data=SimpleNamespace(layout_dropout=0.0)),
        codec=pipe.codec, module=pipe.unet, device=torch.device("cpu"),
    )  # fmt: skip
    for name in ("frame_conditions", "draw_layout"):
        setattr(stage, name, getattr(Conditional, name).__get__(stage))
    condition = pipe.encode_condition(torch.zeros(count, 3, 8, 16, 16), mask.expand(count, 1, 8, 16, 16))
    batch = {"layout": LAYOUT.expand(count, -1, -1)}
    return Conditional.conditions_beside(stage, condition, batch, torch.Generator().manual_seed(0))["layout"]


def first_frame() -> torch.Tensor:
    mask = torch.zeros(8, 16, 16)
    mask[0] = 1
    return mask


def region() -> torch.Tensor:
    mask = torch.ones(8, 16, 16)
    mask[:, 4:8, 4:8] = 0
    return mask


@pytest.mark.parametrize("mask", [first_frame(), region(), torch.zeros(8, 16, 16)])
def test_layouts_are_exact_by_default(mask: torch.Tensor) -> None:
    assert torch.equal(told(mask), LAYOUT.expand(400, -1, -1))


def test_where_frames_are_given_layouts_are_a_little_off() -> None:
    layouts = told(first_frame(), layout_jitter=0.05, region_layout_dropout=1.0)
    off = layouts - LAYOUT
    assert torch.equal(off, off[:, :1].expand_as(off))  # a whole clip by the same
    assert off[:, 0, :3].std(0).tolist() == pytest.approx([0.05] * 3, rel=0.15)
    assert (off[..., 3:] == 0).all()


def test_where_regions_alone_are_given_many_are_told_none() -> None:
    layouts = told(region(), layout_jitter=0.05, region_layout_dropout=0.7)
    none = (layouts == 0).all(-1).all(-1)
    assert 0.63 < none.float().mean() < 0.77
    assert torch.equal(layouts[~none], LAYOUT.expand(int((~none).sum()), -1, -1))


def test_text_alone_is_told_them_as_they_are() -> None:
    assert torch.equal(
        told(torch.zeros(8, 16, 16), layout_jitter=0.05, region_layout_dropout=1.0), LAYOUT.expand(400, -1, -1)
    )
