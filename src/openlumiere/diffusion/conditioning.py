"""Conditioning on a part of a clip: C, what is given, and M, where it is given (the paper's ⟨J, C, M⟩).

M is 1 where C is given, as in the paper. Users say it the other way round, as in diffusers' inpainting pipelines: white
is what should change. `given_where` turns one into the other, and nothing else does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from openlumiere.errors import LumiereError

from .ground import edge_of
from .transport import transported

_GROUND = 0.1  # of 2: what differs by less from the ground is ground


def given_where(change: torch.Tensor) -> torch.Tensor:
    """Turn a user's mask in [0, 1], 1 or white = change, into M: float, 1 = given; any shape."""
    return (change < 0.5).float()


def masked(clips: torch.Tensor, mask: torch.Tensor, *, blank: float = 0.0) -> torch.Tensor:
    """Return C: clips where they are given, and blank elsewhere; (B, C, F, H, W) by (B, 1, F, H, W).

    Args:
        blank: 0, which is gray, or `alpha.EMPTY`, which is transparent, for clips with premultiplied alpha.
    """
    if mask.shape != (len(clips), 1, *clips.shape[2:]):
        raise LumiereError(f"a mask of shape {tuple(mask.shape)} does not fit clips of shape {tuple(clips.shape)}")
    mask = mask.to(clips)
    return clips * mask + blank * (1 - mask)


def propagate_in_time(clips: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Propagate C and M in time: a frame sees what it is not given as other frames are given it.

    Where the paper leaves C blank, a network has to carry details through all of its temporal levels; here each frame
    sees them where they were. Between two frames C is a blend, beyond the last one it is that one's; M is 1 / (1 + d),
    d frames from where C was given, so that 1 still means given, and less a guess.

    Args:
        clips: C, (B, C, F, h, w), of pixel blocks as channels or of latents.
        mask: M, (B, m, F, h, w), where m divides C as `pixel_unshuffle` lays channels out.

    Returns:
        Both, of the shapes that they had; 0 where a position is given in no frame.
    """
    copies = (1, clips.shape[1] // mask.shape[1], 1, 1, 1)
    near = _Nearest(mask > 0.5, dim=2)
    first, last = (clips.gather(2, frames.repeat(copies)) for frames in (near.first, near.last))
    known = mask.amax(2, keepdim=True) > 0.5
    blend = torch.lerp(first, last, near.share.to(clips).repeat(copies)) * known.to(clips).repeat(copies)
    return blend, known.to(mask) / (1 + near.away)


def move_along(frames: torch.Tensor, at: torch.Tensor, layout: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Fill a clip from some whole frames of it, each moved to where its subject is then, see `diffusion.transport`.

    Between two that are given it is a blend of both, beyond the last one it is that one. What none of them shows, as it
    lay outside of the frame, is the ground along their edges.

    Args:
        frames: pixels, (C, S, H, W); a subject that turns turns in pixels alone, as a latent is a patch that doesn't.
        at: which frames of the clip they are, rising, (S,).
        layout: where the subject is, (F, 6), told in all frames.

    Returns:
        The clip, (C, F, H, W), and where it is known, bool (F, H, W): inside of the frame, or beyond an edge at which
        there is nothing but ground.
    """
    given = torch.zeros(len(layout), dtype=torch.bool, device=layout.device)
    given[at] = True
    near = _Nearest(given, dim=0)
    pictures, layout = frames.transpose(0, 1), layout.to(frames)
    ground = edge_of(frames).flatten(1).median(1).values[:, None, None]
    # The last channel says how much of a pixel was inside of the frame.
    shown = torch.cat([pictures - ground, torch.ones_like(pictures[:, :1])], dim=1)
    differs = (pictures - ground).abs().amax(1, keepdim=True)
    moved: torch.Tensor | None = None
    cut_off = torch.zeros(len(layout), *pictures.shape[2:], dtype=pictures.dtype, device=pictures.device)
    for found, share in ((near.first, 1 - near.share), (near.last, near.share)):
        rows = share.nonzero()[:, 0]
        if len(rows):
            side = torch.searchsorted(at, found[rows])
            part = transported(shown[side], layout[at[side]], layout[rows]) * share[rows, None, None, None].to(frames)
            if moved is None:
                moved = torch.zeros(len(layout), *part.shape[1:], dtype=part.dtype, device=part.device)
            moved[rows] += part
            cut_off[rows] += transported(differs[side], layout[at[side]], layout[rows], beyond="border")[:, 0]
    assert moved is not None  # every frame has a nearest one
    colours, seen = moved.transpose(0, 1).tensor_split([-1])
    return colours / seen.clamp(min=1e-3) + ground[:, None], (seen[0] > 0.01) | (cut_off < _GROUND)


class _Nearest:
    """For every frame the nearest ones before and after it, itself included, where something is given.

    Args:
        given: bool, of any shape.
        dim: the dimension of frames.

    Attributes:
        first, last: their indices; the same one twice where there is none on one side, and any where there is none.
        share: of the last in a blend of both, by their distances.
        away: frames to the nearer.
    """

    def __init__(self, given: torch.Tensor, *, dim: int) -> None:
        count = given.shape[dim]
        at = torch.arange(count, device=given.device).reshape(-1, *[1] * (given.ndim - 1 - dim)).expand(given.shape)
        before = torch.where(given, at, -1).cummax(dim).values
        after = torch.where(given, at, count).flip(dim).cummin(dim).values.flip(dim)
        share = (at - before).float() / (after - before).clamp(min=1)
        self.share = torch.where(before < 0, 1, torch.where(after == count, 0, share))
        self.first, self.last = before.clamp(min=0), after.clamp(max=count - 1)
        from_before = torch.where(before < 0, count, at - before)
        self.away = torch.minimum(from_before, torch.where(after == count, count, after - at))


def downsample_mask(mask: torch.Tensor, factor: int) -> torch.Tensor:
    """Return M at the resolution of a latent space: 1 where all of a block's pixels are given.

    (B, 1, F, H, W) -> (B, 1, F, H / factor, W / factor).
    """
    return mask if factor == 1 else -F.max_pool3d(-mask, (1, factor, factor))


def paste(clips: torch.Tensor, given: torch.Tensor, mask: torch.Tensor, *, feather: int = 0) -> torch.Tensor:
    """Put what was given back over what was made; (B, C, F, H, W), M as (B, 1, F, H, W).

    Args:
        feather: pixels over which the given part fades into the made one, inside the given part; 0 = a hard border.
    """
    weight = mask.to(clips)
    if feather > 0:
        # Given pixels that are nearer than `feather` to a border count less, linearly: average M over growing squares.
        rings = [_eroded(weight, radius) for radius in range(feather + 1)]
        weight = torch.stack(rings).mean(0)
    return torch.lerp(clips, given.to(clips), weight.expand_as(clips))  # exact at both ends


def _eroded(mask: torch.Tensor, radius: int) -> torch.Tensor:
    size = (1, 2 * radius + 1, 2 * radius + 1)
    return -F.max_pool3d(-mask, size, stride=1, padding=(0, radius, radius))
