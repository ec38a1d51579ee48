"""Ways in which a generated subject fails in an eye's judgement, done to real ones.

Each takes premultiplied RGBA in [0, 1], (N, 4, S, S), of which the first N subjects are to be spoiled, and returns as
many. Strengths are drawn so that a person who looks at the picture at its own size sees the fault; lengths are
fractions of the side, so that frames of any size are spoiled alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

Spoiler = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def blurred(rgba: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Blur by a Gaussian, its deviation 1.5 to 5 % of the side."""
    return torch.stack(
        [blur(one[None], s)[0] for one, s in zip(rgba, _draw(rgba, generator, 0.015, 0.05), strict=True)]
    )


def warped(rgba: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Deform elastically (Simard et al. 2003): a smooth random field of shifts of some 3 to 7 % of the side."""
    return bend(rgba, _draw(rgba, generator, 0.03, 0.07), generator)


def blended(rgba: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mix two subjects: half transparent, or each in its own random regions."""
    other = rgba.roll(1, 0)
    regions = _field(rgba, 1, 5, generator)
    share = torch.where(
        torch.rand(len(rgba), 1, 1, 1, generator=generator) < 0.5,
        torch.sigmoid(4 * regions),
        0.3 + 0.4 * torch.rand(len(rgba), 1, 1, 1, generator=generator),
    )
    return torch.lerp(rgba, other, share)


def coarse(rgba: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Upsample a picture of 12 to 32 pixels, as blocks or smoothly."""
    made = []
    for one in rgba:
        cells = int(torch.randint(12, 33, (), generator=generator))
        mode = ("nearest", "bilinear", "bicubic")[int(torch.randint(3, (), generator=generator))]
        small = F.interpolate(one[None], size=(cells, cells), mode="area")
        made.append(F.interpolate(small, size=one.shape[-2:], mode=mode)[0].clamp(0, 1))
    return torch.stack(made)


def grainy(rgba: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Add noise to the subject, white or in spots, with a deviation of 10 to 25 % of its range."""
    noise = torch.randn(rgba.shape, generator=generator)
    spots = F.interpolate(F.avg_pool2d(noise, 4) * 4, size=rgba.shape[-2:], mode="bilinear")
    noise = torch.where(torch.rand(len(rgba), 1, 1, 1, generator=generator) < 0.5, noise, spots)
    noise = noise * _draw(rgba, generator, 0.1, 0.25)[:, None, None, None]
    return torch.cat([(rgba[:, :3] + noise[:, :3] * rgba[:, 3:]).clamp(min=0).minimum(rgba[:, 3:]), rgba[:, 3:]], 1)


def halved(rgba: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Remove a third to two thirds of the subject, beyond a blurred, straight edge in a random direction."""
    side = rgba.shape[-1]
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    angle = torch.rand(len(rgba), generator=generator)[:, None, None] * 2 * math.pi
    along = axis[None, None, :] * torch.cos(angle) + axis[None, :, None] * torch.sin(angle)
    wanted = 1 / 3 + torch.rand(len(rgba), generator=generator) / 3
    edges = []
    for line, alpha, share in zip(along, rgba[:, 3], wanted, strict=True):
        order = line.flatten().argsort()
        mass = alpha.flatten()[order].cumsum(0)
        edges.append(line.flatten()[order[int(torch.searchsorted(mass, mass[-1] * share).clamp(max=len(mass) - 1))]])
    kept = torch.sigmoid((along - torch.stack(edges)[:, None, None]) * side / 4)
    return rgba * kept[:, None]


def blobs(rgba: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw as an undertrained network does: bent, smeared, its parts not where they belong."""
    bent = bend(rgba, _draw(rgba, generator, 0.02, 0.05), generator)
    other = torch.lerp(bent, bent.roll(1, 0), 0.3 * torch.rand(len(rgba), 1, 1, 1, generator=generator))
    smeared = [blur(one[None], s)[0] for one, s in zip(other, _draw(rgba, generator, 0.01, 0.03), strict=True)]
    return torch.stack(smeared)


SPOILERS: dict[str, Spoiler] = {
    "blurred": blurred, "warped": warped, "blended": blended, "coarse": coarse, "grainy": grainy, "halved": halved,
    "blobs": blobs,
}  # fmt: skip


def blur(rgba: torch.Tensor, deviation: float | torch.Tensor) -> torch.Tensor:
    """Blur (N, C, S, S) by a Gaussian with one deviation, a fraction of the side."""
    sigma = max(float(deviation) * rgba.shape[-1], 1e-3)
    reach = max(math.ceil(3 * sigma), 1)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    kernel = (weights / weights.sum()).expand(rgba.shape[1], 1, -1)
    flat = F.pad(rgba, (reach, reach, reach, reach), mode="replicate")
    flat = F.conv2d(flat, kernel[..., None, :], groups=rgba.shape[1])
    return F.conv2d(flat, kernel[..., None], groups=rgba.shape[1])


def bend(rgba: torch.Tensor, amount: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift each pixel by a smooth random field whose deviation is `amount`, (N,), of the side."""
    shift = _field(rgba, 2, 6, generator) * 2 * amount[:, None, None, None]  # a frame is 2 wide
    grid = F.affine_grid(torch.eye(2, 3).repeat(len(rgba), 1, 1), list(rgba.shape), align_corners=False)
    return F.grid_sample(rgba, grid + shift.permute(0, 2, 3, 1), align_corners=False)


def _field(rgba: torch.Tensor, channels: int, cells: int, generator: torch.Generator) -> torch.Tensor:
    """Smooth noise of mean 0 and deviation 1 over a grid of cells, (N, channels, S, S)."""
    coarse_noise = torch.randn(len(rgba), channels, cells, cells, generator=generator)
    field = F.interpolate(coarse_noise, size=rgba.shape[-2:], mode="bicubic")
    return field / field.flatten(2).std(-1)[..., None, None]


def _draw(rgba: torch.Tensor, generator: torch.Generator, low: float, high: float) -> torch.Tensor:
    return low + (high - low) * torch.rand(len(rgba), generator=generator)
