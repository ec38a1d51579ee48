"""Masks as users have them: one rule for every form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from openlumiere.diffusion.conditioning import given_where
from openlumiere.errors import LumiereError
from openlumiere.pipelines.inputs import as_mask

SHAPE = (2, 3, 4, 2, 3)  # batch, channels, frames, height, width
CHANGE = np.array([[0, 1, 0], [1, 1, 0]], bool)


def of_mode(mode: str) -> Image.Image:
    return Image.fromarray(CHANGE.astype(np.uint8) * 255).convert(mode)


@pytest.mark.parametrize(
    "mask",
    [
        CHANGE, CHANGE.astype(np.uint8), CHANGE.astype(np.uint8) * 255, CHANGE.astype(np.int64),
        CHANGE.astype(np.int32) * 255, CHANGE.astype(np.float32), CHANGE.astype(np.float64) * 0.6, CHANGE + 0.0,
        torch.from_numpy(CHANGE), torch.from_numpy(CHANGE.astype(np.uint8)), torch.from_numpy(CHANGE).long() * 255,
        torch.from_numpy(CHANGE).half(), torch.from_numpy(CHANGE).to(torch.bfloat16),
        of_mode("L"), of_mode("1"), of_mode("RGB"), of_mode("RGBA"), Image.fromarray(CHANGE.astype(np.uint8)),
        [of_mode("L")] * 4, np.broadcast_to(CHANGE, (4, 2, 3)), np.broadcast_to(CHANGE, (2, 4, 2, 3)).astype(np.uint8),
    ],
    ids=lambda mask: f"{type(mask).__name__} {getattr(mask, 'dtype', getattr(mask, 'mode', ''))}",
)  # fmt: skip
def test_every_form_says_the_same(mask: Any) -> None:
    found = given_where(as_mask(mask, SHAPE))
    assert torch.equal(found, torch.from_numpy(~CHANGE).float().expand(2, 1, 4, 2, 3))


@pytest.mark.parametrize(("value", "changes"), [(0, False), (2, False), (127, False), (128, True), (254, True)])
def test_integers_above_1_are_of_255(value: int, changes: bool) -> None:
    mask = np.full((2, 3), value, np.uint8)
    assert (given_where(as_mask(mask, SHAPE)) == 1 - changes).all()


@pytest.mark.parametrize(("value", "changes"), [(0.49, False), (0.5, True)])
def test_floats_change_from_a_half(value: float, changes: bool) -> None:
    assert (given_where(as_mask(np.full((2, 3), value), SHAPE)) == 1 - changes).all()


@pytest.mark.parametrize(
    "mask", [CHANGE * 255.0, CHANGE - 1.0, CHANGE.astype(np.int64) * 256, -CHANGE.astype(np.int64), CHANGE * np.nan]
)
def test_other_values_are_refused(mask: np.ndarray) -> None:
    with pytest.raises(LumiereError, match="scale it"):
        as_mask(mask, SHAPE)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(LumiereError, match="resize it"):
        as_mask(np.zeros((3, 3)), SHAPE)
