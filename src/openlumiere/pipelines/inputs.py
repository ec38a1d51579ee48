"""Clips and masks as users have them, to tensors; and a clip of which a part is given, at both sizes of a cascade."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from openlumiere.diffusion.alpha import lay_over, premultiply, unpremultiply
from openlumiere.diffusion.conditioning import downsample_mask, given_where, move_along, paste
from openlumiere.diffusion.upsampling import downsample
from openlumiere.errors import LumiereError
from openlumiere.video import colour


def rgb(colour_name: str) -> tuple[float, float, float]:
    """Return a colour's name or ``#rrggbb`` as red, green and blue in [0, 1]."""
    red, green, blue = (value / 255 for value in colour(colour_name))
    return red, green, blue


def lay_frames_over(frames: np.ndarray, background: str) -> np.ndarray:
    """Lay frames of straight alpha over a colour: (F, H, W, 4), uint8 or in [0, 1], -> (F, H, W, 3) in [0, 1]."""
    pixels = (frames / np.float32(255) if frames.dtype == np.uint8 else frames).astype(np.float32)
    return pixels[..., :3] * pixels[..., 3:] + np.array(rgb(background), np.float32) * (1 - pixels[..., 3:])


def as_clips(clip: torch.Tensor | np.ndarray | list[Any]) -> torch.Tensor:
    """Return one clip or a batch as (B, 3 or 4, F, H, W) in [-1, 1]; alpha stays straight.

    Args:
        clip: a tensor, (F, 3, H, W) or (B, F, 3, H, W), or an array, (F, H, W, 3) or (B, F, H, W, 3), in [0, 1] or of
            uint8, or the same with alpha as a fourth colour; or a list of PIL images, or of such lists.

    Raises:
        LumiereError: no frames, or another shape.
    """
    if isinstance(clip, list):
        if not clip:
            raise LumiereError("the clip has no frames")
        if isinstance(clip[0], (list, np.ndarray, torch.Tensor)):
            return torch.cat([as_clips(each) for each in clip])
        clip = np.stack([np.asarray(frame.convert("RGBA" if "A" in frame.getbands() else "RGB")) for frame in clip])
    if isinstance(clip, np.ndarray):
        clip = torch.from_numpy(np.ascontiguousarray(clip)).movedim(-1, -3)
    if clip.dtype == torch.uint8:
        clip = clip.float() / 255
    if clip.ndim == 4:
        clip = clip[None]
    if clip.ndim != 5 or clip.shape[2] not in (3, 4) or 0 in clip.shape:
        raise LumiereError(
            f"a clip of shape {tuple(clip.shape)} cannot be read: frames of 3 colours, or 4 with alpha, are wanted"
        )
    return clip.transpose(1, 2).float() * 2 - 1


def as_mask(mask: torch.Tensor | np.ndarray | Any, shape: tuple[int, ...]) -> torch.Tensor:
    """Return a user's mask, 1 or white = change, for clips of the shape (B, C, F, H, W), as (B, 1, F, H, W) in [0, 1].

    Booleans are 0 and 1, and floats in [0, 1] are taken as they are. Integers, and so PIL images, are 0 and 1 if no
    value is above 1, else 0 to 255: 0 and 1, and 0 and 255, both say what they look like. A value of 0.5 or 128 and
    above changes a pixel, one below keeps it.

    Args:
        mask: a tensor or array, (H, W) for all frames, (F, H, W) for all clips, or (B, F, H, W); a PIL image of any
            mode, or a list of them, one a frame.

    Raises:
        LumiereError: another shape, or values beyond these.
    """
    if isinstance(mask, list):
        mask = np.stack([np.array(frame.convert("L")) for frame in mask])
    elif not isinstance(mask, (torch.Tensor, np.ndarray)):
        mask = np.array(mask.convert("L"))
    values = mask if isinstance(mask, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(mask))
    batch, _, *clip = shape
    wanted = (batch, *clip)
    if values.ndim not in (2, 3, 4) or any(
        a not in (1, b) for a, b in zip(values.shape[::-1], wanted[::-1], strict=False)
    ):
        raise LumiereError(
            f"a mask of shape {tuple(values.shape)} does not fit {batch} clip(s) of {tuple(clip)}: resize it"
        )
    integers = not (values.is_floating_point() or values.dtype == torch.bool)
    values = values.float()
    if integers and values.max() > 1:
        values = values / 255
    if not ((values >= 0) & (values <= 1)).all():  # NaN is neither
        raise LumiereError("a mask holds values outside [0, 1], or 0 to 255 for integers: scale it")
    return values.expand(wanted)[:, None]


@dataclass(frozen=True)
class InpaintInput:
    """A clip and where it is given: (B, 3, F, H, W) in [-1, 1], and M, (B, 1, F, H, W).

    For models with alpha the clip has 4 channels, premultiplied.

    Attributes:
        clips, mask: at the base model's size.
        high_res_clips, high_res_mask: at the second stage's, where the user gave so much.
    """

    clips: torch.Tensor
    mask: torch.Tensor
    high_res_clips: torch.Tensor | None = None
    high_res_mask: torch.Tensor | None = None

    @classmethod
    def read(
        cls, video: Any, mask: Any | None, shape: tuple[int, int, int, int], scale: int,
        *, alpha: bool = False, background: str = "white",
    ) -> InpaintInput:  # fmt: skip
        """Read what a user passes.

        Args:
            video: as `as_clips`; at the base's size, or `scale` times as wide and high.
            mask: as `as_mask`, for that size; None = nothing is given.
            shape: clips, frames, height and width of the base's clips.
            alpha: keep the video's transparency, for models that have it.
            background: what it is laid over where they have not.

        Raises:
            LumiereError: they fit neither size.
        """
        clips = as_clips(video)
        if alpha or clips.shape[1] == 4:
            clips = premultiply(clips)
        if not alpha and clips.shape[1] == 4:
            clips = lay_over(clips, rgb(background))
        batch, frames, *size = shape
        high_res = tuple(side * scale for side in size)
        found = tuple(clips.shape[3:])
        if len(clips) not in (1, batch) or clips.shape[2] != frames or found not in (tuple(size), high_res):
            either = f"{size[0]} x {size[1]}" + (f" or {high_res[0]} x {high_res[1]}" if scale > 1 else "")
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

    @property
    def whole_frames(self) -> torch.Tensor:
        """Which frames are given whole, bool (B, F)."""
        return self.mask.flatten(3).amin(3)[:, 0] > 0.5

    @property
    def is_transparent(self) -> bool:
        """Whether it has alpha, and something of it is see-through."""
        return self.clips.shape[1] == 4 and bool((self.clips[:, 3] < 0).any())

    @property
    def all_in_high_res(self) -> torch.Tensor | None:
        """The clips at the second stage's size, if all of them is given; else None."""
        whole = self.high_res_mask is not None and bool((self.high_res_mask > 0.5).all())
        return self.high_res_clips if whole else None

    def to(self, device: torch.device, dtype: torch.dtype) -> InpaintInput:
        """Move what the network sees to a device; what is only pasted stays where it is."""
        return replace(self, clips=self.clips.to(device, dtype), mask=self.mask.to(device, dtype))

    def moved_along(self, layout: torch.Tensor, rigid: torch.Tensor) -> InpaintInput:
        """Return the same, some clips of which are given in all frames: moved there along with their subject.

        Args:
            layout: where subjects are, (B, F, 6), see `diffusion.layout`.
            rigid: which clips, bool (B,); those stay as they are of which no frame is given whole.
        """
        parts = {"clips": self.clips, "mask": self.mask}
        if self.high_res_clips is not None and self.high_res_mask is not None:
            parts |= {"high_res_clips": self.high_res_clips, "high_res_mask": self.high_res_mask}
        parts = {name: part.clone() for name, part in parts.items()}
        whole = self.whole_frames
        for row in (rigid.to(whole.device) & whole.any(1)).nonzero()[:, 0].tolist():
            at = whole[row].nonzero()[:, 0]
            for clips, mask in (("clips", "mask"), ("high_res_clips", "high_res_mask")):
                if clips in parts:
                    there = at.to(parts[clips].device)
                    filled, _ = move_along(parts[clips][row, :, there], there, layout[row].to(parts[clips].device))
                    known = parts[mask][row] > 0.5
                    parts[clips][row] = torch.where(known, parts[clips][row], filled.to(parts[clips]))
                    parts[mask][row] = 1
        return replace(self, **parts)

    def over(self, background: str) -> InpaintInput:
        """Return the same, opaque: laid over a colour."""
        high_res = None if self.high_res_clips is None else lay_over(self.high_res_clips, rgb(background))
        return replace(self, clips=lay_over(self.clips, rgb(background)), high_res_clips=high_res)

    def paste_onto(self, pixels: torch.Tensor, *, feather: int = 0) -> torch.Tensor:
        """Put what is given over clips of either size; where it is not known at theirs, leave them as they are."""
        for clips, mask in ((self.clips, self.mask), (self.high_res_clips, self.high_res_mask)):
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
