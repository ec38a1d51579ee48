"""The loss of a batch is the mean of its parts' losses, whichever process computes which: in every stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import default_collate

import tiny
from openlumiere.diffusion.draws import BatchShare
from openlumiere.training.config_files import parse
from openlumiere.training.stages import make_stage
from openlumiere.training.stages.base import Stage

CPU = torch.device("cpu")
TOTAL = 6


def stage_of(name: str, loops: Path, *overrides: str, unet: bool = True) -> Stage:
    words = [f"data.folder={loops}", *([] if unet else ["model.unet={}"]), *overrides]
    return make_stage(parse(tiny.TRAINING | {"stage": name, "output": "-"}, words), CPU)


@pytest.fixture(scope="module")
def stages(loops: Path, vae: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stage]:
    """Untrained ones, each on the one before where it needs one."""
    folder = tmp_path_factory.mktemp("stages")
    torch.manual_seed(0)
    t2i = stage_of("t2i", loops, "text.dropout=0.5")
    t2i.export(folder / "t2i")
    t2v = stage_of(
        "t2v", loops, f"model.t2i={folder / 't2i'}", "data.window=4", "optim.noise_correlation=0.5",
        "optim.uniform_timesteps=0.3", "model.temporal={temporal_conditioning: true}", unet=False,
    )  # fmt: skip
    t2v.export(folder / "t2v")
    return {
        "t2i": t2i,
        "t2v": t2v,
        "conditional": stage_of("conditional", loops, f"model.t2i={folder / 't2v' / 'pipeline'}", unet=False),
        "ssr-image": stage_of(
            "ssr-image", loops, f"model.vae={vae}", "model.size=32", "model.scale=2", "model.pixel_unshuffle=2",
            "data.channels=4", "model.max_noise_level=100",
        ),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t2i", "t2v", "conditional", "ssr-image"])
@pytest.mark.parametrize("processes", [2, 3, 6])
def test_a_batchs_loss_is_the_mean_of_its_parts(stages: dict[str, Stage], name: str, processes: int) -> None:
    stage = stages[name]
    items = [stage.dataset[index] for index in range(TOTAL)]
    count = TOTAL // processes
    with torch.no_grad():
        # The last convolution starts at zero somewhere: what the network says should matter.
        for weight in stage.module.parameters():
            if not weight.any():
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
        whole = float(stage.loss(stage.module, default_collate(items), torch.Generator().manual_seed(5)))
        parts = []
        for rank in range(processes):
            first = rank * count
            share = BatchShare(torch.Generator().manual_seed(5), first, count, TOTAL)
            parts.append(float(stage.loss(stage.module, default_collate(items[first : first + count]), share)))
    assert sum(parts) / processes == pytest.approx(whole, rel=1e-4)
    assert len(set(parts)) == processes
