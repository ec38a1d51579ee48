"""What training tells of layouts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

import tiny
from openlumiere.training.config_files import parse
from openlumiere.training.stages.denoising import DenoisingTask


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(unet: Any, batch: dict[str, Any], *, dropout: float) -> torch.Tensor | None:
    config = parse({"stage": "t2i", "output": "-", "data": {"layout_dropout": dropout}})
    task = SimpleNamespace(config=config, device=torch.device("cpu"))
    return DenoisingTask.draw_layout(task, unet, batch, seeded(0))  # type: ignore[arg-type]


def test_training_tells_what_the_data_hold_to_networks_that_take_it() -> None:
    unet, pixels, layout = tiny.unet("bundled-layout"), torch.zeros(400, 3, 2, 8, 8), tiny.random_layout(400, 2)
    told = drawn(unet, {"pixels": pixels, "layout": layout}, dropout=0.15)
    assert told is not None
    kept = told[:, :, 5].amin(1) == 1
    assert 0.8 < kept.float().mean() < 0.9
    assert torch.equal(told[kept], layout[kept])
    assert (told[~kept] == 0).all()
    assert torch.equal(drawn(unet, {"pixels": pixels}, dropout=0.0), torch.zeros(400, 2, 6))
    assert drawn(tiny.unet("bundled"), {"pixels": pixels, "layout": layout}, dropout=0.0) is None
