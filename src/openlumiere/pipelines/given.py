"""A clip of which a part is given, at both sizes of a cascade."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from openlumiere.diffusion.alpha import lay_over, premultiply, unpremultiply
from openlumiere.diffusion.conditioning import downsample_mask, given_where, paste
from openlumiere.diffusion.upsampling import downsample
from openlumiere.errors import LumiereError

from .inputs import as_clips, as_mask, rgb


@dataclass(frozen=True)
class InpaintInput:
    """A clip and where it is given, as (B, 3, F, H, W) in [-1, 1] and M as (B, 1, F, H, W).

    For models with alpha the clip has 4 channels, premultiplied.

    Attributes:
        clips, mask: at the base model's size.
        sharp_clips, sharp_mask: at the second stage's, where the user gave so much.
    """

    clips: torch.Tensor
    mask: torch.Tensor
    sharp_clips: torch.Tensor | None = None
    sharp_mask: torch.Tensor | None = None

    @classmethod
    def read(
        cls, video: Any, mask: Any | None, shape: tuple[int, int, int, int], scale: int,
        *, alpha: bool = False, background: str = "white",
    ) -> InpaintInput:  # fmt: skip
        """From what a user passes.

        Args:
            video: as `as_clips`; at the base's size, or `scale` times as wide and high.
            mask: as `as_mask`, for that size; None = nothing is given.
            shape: clips, frames, height and width of the base's clips.
            alpha: keep the video's transparency, for models that have it.
            background: what it is laid over where they have not.

        Raises:
            LumiereError: if they fit neither size.
        """
        clips = as_clips(video)
        if alpha or clips.shape[1] == 4:
            clips = premultiply(clips)
        if not alpha and clips.shape[1] == 4:
            clips = lay_over(clips, rgb(background))
        batch, frames, *size = shape
        sharp = tuple(side * scale for side in size)
        found = tuple(clips.shape[3:])
        if len(clips) not in (1, batch) or clips.shape[2] != frames or found not in (tuple(size), sharp):
            either = f"{size[0]} x {size[1]}" + (f" or {sharp[0]} x {sharp[1]}" if scale > 1 else "")
            raise LumiereError(
                f"{len(clips)} video(s) of {clips.shape[2]} frames of {found[0]} x {found[1]} pixels, for {batch} "
                f"clip(s) of {frames} frames of {either}: resize"
            )
        clips = clips.expand(batch, -1, -1, -1, -1)
        if mask is None:
            where = torch.zeros(batch, 1, *clips.shape[2:])
        else:
            where = given_where(as_mask(mask, tuple(clips.shape)))
        if found == tuple(size):
            return cls(clips, where)
        return cls(downsample(clips, scale), downsample_mask(where, scale), clips, where)

    def to(self, device: torch.device, dtype: torch.dtype) -> InpaintInput:
        """What the network sees of it there; what is only pasted stays where it is."""
        return replace(self, clips=self.clips.to(device, dtype), mask=self.mask.to(device, dtype))

    def over(self, background: str) -> InpaintInput:
        """The same, opaque: laid over a colour."""
        sharp = None if self.sharp_clips is None else lay_over(self.sharp_clips, rgb(background))
        return replace(self, clips=lay_over(self.clips, rgb(background)), sharp_clips=sharp)

    def paste_onto(self, pixels: torch.Tensor, *, feather: int = 0) -> torch.Tensor:
        """Put what is given over clips of either size; where it is not known at theirs, leave them as they are."""
        for clips, mask in ((self.clips, self.mask), (self.sharp_clips, self.sharp_mask)):
            if clips is not None and mask is not None and clips.shape[2:] == pixels.shape[2:]:
                return paste(pixels, clips.to(pixels.device), mask.to(pixels.device), feather=feather)
        return pixels


def paste_given(
    frames: np.ndarray, video: np.ndarray, mask: np.ndarray, *, feather: int = 0, background: str = "white"
) -> np.ndarray:
    """Put what is given over a finished clip of its size: (F, H, W, 3 or 4) in [0, 1], as the pipeline does itself.

    Args:
        video, mask, feather: as `LumierePipeline`'s.
        background: what a transparent video is laid over where the finished clip is opaque.
    """
    made = as_clips(frames)
    alpha = made.shape[1] == 4
    count, height, width, _ = frames.shape
    given = InpaintInput.read(video, mask, (1, count, height, width), 1, alpha=alpha, background=background)
    pixels = given.paste_onto(premultiply(made) if alpha else made, feather=feather)
    pixels = (unpremultiply(pixels) if alpha else pixels)[0]
    return ((pixels + 1) / 2).clamp(0, 1).permute(1, 2, 3, 0).numpy()
