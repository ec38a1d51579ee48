"""Does a motion adapter's attention help STUNet learn? Loss after equal steps, with and without it.

On the emoji loops, at 16 x 16 pixels, everything is trained here: a tiny T2I on frames; an AnimateDiff adapter on it,
on clips; then, from several seeds, the temporal layers of the inflated T2I, fresh and with the adapter's attention
carried over in each way that `carry_motion` has. The loss is that of v, on loops that no training saw.

    python benchmarks/warm_start.py --data data/emoji
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import nn

from openlumiere import STUNet
from openlumiere.data.emoji.shards import iterate
from openlumiere.stunet.motion import carry_motion, motion_options

_FRAMES, _TEXT_DIM = 16, 16
_WIDTHS = (16, 32)
_WAYS: dict[str, dict[str, bool] | None] = {
    "fresh": None,
    "attention": {"positions": False, "projections": False},
    "attention, positions": {"positions": True, "projections": False},
    "attention, projections": {"positions": False, "projections": True},
    "attention, positions, projections": {"positions": True, "projections": True},
}

Predict = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Loops:
    """Loops (F, 12, 8, 8), pixels folded by two in [-1, 1], each with a text of its own, (1, text_dim)."""

    loops: list[torch.Tensor]
    texts: torch.Tensor

    def draw(self, batch: int, generator: torch.Generator, frames: int = _FRAMES) -> tuple[torch.Tensor, ...]:
        """Return noisy clips (B, 12, F, 8, 8), what is to be predicted of them (v), timesteps and texts."""
        chosen = torch.randint(len(self.loops), (batch,), generator=generator)
        clips = []
        for loop in (self.loops[int(i)] for i in chosen):
            start = int(torch.randint(len(loop), (1,), generator=generator))
            clips.append(loop[(start + torch.arange(frames)) % len(loop)])
        clean = torch.stack(clips).transpose(1, 2)
        spread = (torch.randperm(batch, generator=generator) + torch.rand(1, generator=generator)) / batch
        timesteps = (spread * 1000).long().clamp(max=999)
        noise = torch.randn(clean.shape, generator=generator)
        alpha = _SCHEDULER.alphas_cumprod[timesteps][:, None, None, None, None]
        signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
        return signal * clean + sigma * noise, signal * noise - sigma * clean, timesteps, self.texts[chosen]


_SCHEDULER = DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)


def read(folder: Path, count: int) -> tuple[Loops, Loops]:
    """Read loops over white, five in six for training."""
    found = []
    for _, frames in islice(iterate(folder), count):
        rgba = torch.from_numpy(np.ascontiguousarray(frames)).float() / 255
        rgb = (rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:])).permute(0, 3, 1, 2)
        small = nn.functional.adaptive_avg_pool2d(rgb, 16) * 2 - 1
        found.append(nn.functional.pixel_unshuffle(small, 2))
    texts = torch.randn(len(found), 1, _TEXT_DIM, generator=torch.Generator().manual_seed(9))
    cut = max(len(found) * 5 // 6, 1)
    return Loops(found[:cut], texts[:cut]), Loops(found[cut:], texts[cut:])


@torch.no_grad()
def held_out_loss(predict: Predict, loops: Loops) -> float:
    """Return the mean squared error of v over the same twelve clips each time."""
    generator = torch.Generator().manual_seed(77)
    losses = []
    for _ in range(3):
        noisy, target, timesteps, texts = loops.draw(4, generator)
        losses.append((predict(noisy, timesteps, texts) - target).square().mean().item())
    return float(np.mean(losses))


def train(
    predict: Predict,
    weights: list[nn.Parameter],
    loops: Loops,
    *,
    steps: int,
    seed: int,
    batch: int = 2,
    frames: int = _FRAMES,
) -> None:
    """Take steps of AdamW, ten of them to warm up."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(weights, lr=2e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 10)
        noisy, target, timesteps, texts = loops.draw(batch, generator, frames)
        loss = (predict(noisy, timesteps, texts) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def trained_t2i(loops: Loops, steps: int) -> UNet2DConditionModel:
    """Train a text-to-image network on single frames."""
    torch.manual_seed(0)
    net = UNet2DConditionModel(
        sample_size=8, in_channels=12, out_channels=12, block_out_channels=_WIDTHS, layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=8, attention_head_dim=4, cross_attention_dim=_TEXT_DIM,
    )  # fmt: skip
    train(
        lambda x, t, text: net(x[:, :, 0], t, text).sample[:, :, None],
        list(net.parameters()), loops, steps=steps, batch=32, frames=1, seed=1,
    )  # fmt: skip
    return net.requires_grad_(False).eval()


def trained_adapter(t2i: UNet2DConditionModel, loops: Loops, steps: int) -> MotionAdapter:
    """Train an AnimateDiff adapter on a T2I; its layers out start at zero, as AnimateDiff's did."""
    torch.manual_seed(0)
    adapter = MotionAdapter(
        block_out_channels=_WIDTHS, motion_layers_per_block=1, motion_num_attention_heads=4,
        motion_norm_num_groups=8, motion_max_seq_length=32,
    )  # fmt: skip
    for module in adapter.modules():
        if hasattr(module, "proj_out"):
            nn.init.zeros_(module.proj_out.weight)
            nn.init.zeros_(module.proj_out.bias)
    net = UNetMotionModel.from_unet2d(copy.deepcopy(t2i), adapter)
    net.freeze_unet2d_params()
    train(
        lambda x, t, text: net(x, t, text.repeat_interleave(x.shape[2], dim=0)).sample,
        [weight for weight in net.parameters() if weight.requires_grad], loops, steps=steps, seed=5,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:  # the network holds copies of the adapter's modules
        net.save_motion_modules(folder)
        trained: MotionAdapter = MotionAdapter.from_pretrained(folder)
    return trained


def warm_start(
    t2i: UNet2DConditionModel, adapter: MotionAdapter, way: dict[str, bool] | None, data: tuple[Loops, Loops], *,
    steps: int, seed: int,
) -> list[float]:  # fmt: skip
    """Return the test loss at the start, after a third of the steps, two thirds, and all of them."""
    torch.manual_seed(seed)
    net = STUNet.from_unet(copy.deepcopy(t2i), **motion_options(adapter, t2i))
    if way is not None:
        carry_motion(net.temporal, adapter, **way)

    def predict(x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return net(x, t, text).sample

    losses, weights = [held_out_loss(predict, data[1])], list(net.temporal.parameters())
    for part in range(3):
        train(predict, weights, data[0], steps=max(steps // 3, 1), seed=100 + 10 * seed + part)
        losses.append(held_out_loss(predict, data[1]))
    return losses


def main() -> int:
    """Print the losses of each way, and their mean over seeds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of lumiere data emoji")
    parser.add_argument("--loops", type=int, default=96)
    parser.add_argument("--steps", type=int, nargs=3, default=(400, 300, 120), help="of the T2I, adapter, STUNet")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the losses here")
    options = parser.parse_args()
    data = read(options.data, options.loops)
    t2i = trained_t2i(data[0], options.steps[0])
    adapter = trained_adapter(t2i, data[0], options.steps[1])
    found: dict[str, list[list[float]]] = {name: [] for name in _WAYS}
    for seed in range(options.seeds):
        for name, way in _WAYS.items():
            losses = warm_start(t2i, adapter, way, data, steps=options.steps[2], seed=seed)
            found[name].append(losses)
            print(f"seed {seed}  {name:<34}", *(f"{loss:.4f}" for loss in losses), flush=True)
    for name, runs in found.items():
        print(f"mean    {name:<34}", *(f"{loss:.4f}" for loss in np.mean(runs, axis=0)))
    if options.json:
        options.json.write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
