"""What people ask of a conditioned model, as the video and the mask that `LumierePipeline` takes.

    task = animate(photo, num_frames=80)
    clip = task.finish(pipe("a tiger walking to the left", **task.given)[0][0])

Pictures are (H, W, 3) and clips (F, H, W, 3), uint8 or float in [0, 1], or with straight alpha as a fourth channel, at
the size to be made: that of the base model, or of its second stage. Masks are (H, W) or (F, H, W), 1 or True = change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from openlumiere.errors import LumiereError

from .inputs import lay_frames_over


@dataclass(frozen=True)
class Task:
    """A clip of which a part is to be made.

    Attributes:
        video: (F, H, W, 3 or 4); what lies under the mask is not looked at.
        mask: bool, (F, H, W), True = make this; None = all of it is an example to start from (`restyle`).
        before: frames that come unchanged before the ones made.
        num_frames: of the result, without `before`; what was made beyond that only fills up the network's frames.
    """

    video: np.ndarray
    mask: np.ndarray | None
    num_frames: int
    before: np.ndarray | None = None

    @property
    def given(self) -> dict[str, Any]:
        """Arguments of `LumierePipeline`."""
        return {"video": self.video, "mask": self.mask, "num_frames": len(self.video)}

    @property
    def made_anew(self) -> np.ndarray | None:
        """What `finish` returns that was not given, bool (F, H, W); None = everything."""
        if self.mask is None:
            return None
        made = self.mask[: self.num_frames]
        if self.before is None:
            return made
        return np.concatenate([np.zeros((len(self.before), *made.shape[1:]), bool), made])

    def filled_up(self, num_frames: int) -> Task:
        """The same with frames added at its end, all to be made, until there are so many as a network wants."""
        more = num_frames - len(self.video)
        if more <= 0:
            return self
        video = np.concatenate([self.video, self.video[-1:].repeat(more, axis=0)])
        mask = None if self.mask is None else np.concatenate([self.mask, np.ones((more, *self.mask.shape[1:]), bool)])
        return replace(self, video=video, mask=mask)

    def with_context_of(self, frames_per_latent: int) -> Task:
        """The same clip that goes on, of which a network sees whole latents: so many frames each, after the first.

        Args:
            frames_per_latent: fewer frames than these are left of the context's start; they come back as they are.
        """
        assert self.mask is not None  # as of every clip that goes on
        context = int((~self.mask.any((1, 2))).sum())
        cut = (context - 1) % frames_per_latent
        if cut == 0:
            return self
        before = self.video[:cut] if self.before is None else np.concatenate([self.before, self.video[:cut]])
        return Task(self.video[cut:], self.mask[cut:], self.num_frames - cut, before)

    def finish(self, made: np.ndarray, *, background: str = "white") -> np.ndarray:
        """The whole result: what was made, (F, H, W, 3 or 4), without what filled it up, after what came before it.

        Args:
            background: what that is laid over if it is transparent, and what was made is not.
        """
        made = made[: self.num_frames]
        if self.before is None:
            return made
        before = self.before / np.float32(255) if self.before.dtype == np.uint8 else self.before
        if before.shape[-1] > made.shape[-1]:
            before = lay_frames_over(before, background)
        return np.concatenate(_alike(before.astype(made.dtype), made))


def _alike(*clips: np.ndarray) -> list[np.ndarray]:
    """All with alpha if one has it."""
    if len({clip.shape[-1] for clip in clips}) == 1:
        return list(clips)
    solid = [(clip, 255 if clip.dtype == np.uint8 else 1) for clip in clips]
    return [
        clip if clip.shape[-1] == 4 else np.concatenate([clip, np.full_like(clip[..., :1], one)], axis=-1)
        for clip, one in solid
    ]


def animate(picture: np.ndarray, num_frames: int, *, last: np.ndarray | None = None) -> Task:
    """Image-to-video: a clip that starts with a picture, and ends with another where one is given."""
    ends = [picture] if last is None else _alike(picture, last)
    picture = ends[0]
    video = picture[None].repeat(num_frames, axis=0)
    mask = np.ones(video.shape[:3], bool)
    for index, given in zip((0, -1), ends, strict=False):
        if given.shape != picture.shape:
            raise LumiereError(f"the last picture is {given.shape[:2]}, the first {picture.shape[:2]}: make them equal")
        video[index], mask[index] = given, False
    return Task(video, mask, num_frames)


def cinemagraph(picture: np.ndarray, region: np.ndarray, num_frames: int) -> Task:
    """A picture of which a region moves while the rest stands still."""
    if not region.any():
        raise LumiereError("nothing may move: the mask is black everywhere; paint white what should move")
    video = picture[None].repeat(num_frames, axis=0)
    mask = np.broadcast_to(region.astype(bool), video.shape[:3]).copy()
    mask[0] = False
    return Task(video, mask, num_frames)


def inpaint(clip: np.ndarray, region: np.ndarray) -> Task:
    """A clip of which a region, or one region in each frame, is made anew."""
    if not region.any():
        raise LumiereError("nothing would change: the mask is black everywhere; paint white what should change")
    return Task(clip, np.broadcast_to(region.astype(bool), clip.shape[:3]).copy(), len(clip))


def outpaint(clip: np.ndarray, height: int, width: int) -> Task:
    """A clip in the middle of a larger frame, what lies around it to be made."""
    frames, h, w, _ = clip.shape
    if h > height or w > width or (h, w) == (height, width):
        raise LumiereError(f"a frame of {width}x{height} leaves no room around a clip of {w}x{h} pixels")
    top, left = (height - h) // 2, (width - w) // 2
    around = ((0, 0), (top, height - h - top), (left, width - w - left))
    mask = np.pad(np.zeros((frames, h, w), bool), around, constant_values=True)
    return Task(np.pad(clip, (*around, (0, 0)), mode="edge"), mask, frames)


def extend(clip: np.ndarray, num_frames: int, *, context: int) -> Task:
    """A clip that goes on for `num_frames` more.

    Args:
        context: of its last frames so many are what the network sees; those before them come back as they are.
    """
    context = min(context, len(clip))
    seen = clip[len(clip) - context :]
    video = np.concatenate([seen, seen[-1:].repeat(num_frames, axis=0)])
    mask = np.ones(video.shape[:3], bool)
    mask[:context] = False
    return Task(video, mask, len(video), before=clip[: len(clip) - context] if len(clip) > context else None)


def interpolate(clip: np.ndarray, factor: int) -> Task:
    """A clip with `factor` - 1 new frames between any two."""
    if len(clip) < 2 or factor < 2:
        raise LumiereError("there is nothing to fill in: two frames and a factor of 2 at least are wanted")
    count = (len(clip) - 1) * factor + 1
    video = clip.repeat(factor, axis=0)[:count]
    mask = np.ones(video.shape[:3], bool)
    mask[::factor] = False
    return Task(video, mask, count)


def restyle(clip: np.ndarray) -> Task:
    """A clip to be made anew from a noisy version of it (SDEdit, Meng et al. 2021): call with ``strength``."""
    return Task(clip, None, len(clip))
