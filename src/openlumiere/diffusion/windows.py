"""Temporal MultiDiffusion: a clip of any length, denoised in overlapping windows of frames.

At every denoising step each window is denoised by itself, and the predictions for a frame are averaged. That is
Lumiere's answer to ``argmin_J' sum_i || J'|_i - Phi(J_i) ||^2`` (its equation 1; Bar-Tal et al. 2023): the objective
falls apart into one least-squares problem a frame, whose solution is the mean over the windows that see the frame, a
weighted mean if the squares are weighted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import TypeAlias

import torch

from openlumiere.clock import frame_position, swing
from openlumiere.errors import LumiereError


@dataclass(frozen=True)
class Windows:
    """Windows over a clip, and how much each counts at each of its frames.

    Attributes:
        frames: int64, (W, L): the frames that each window sees, in its order.
        weights: float32, (W, L), positive; those of one frame sum to 1 over the windows that see it.
        num_frames: of the clip.
    """

    frames: torch.Tensor
    weights: torch.Tensor
    num_frames: int

    def __len__(self) -> int:
        return len(self.frames)


def plan_windows(
    num_frames: int, length: int, overlap: int = 2, *, loop: bool = False, tapered: bool = False
) -> Windows:
    """Plan windows of `length` frames that overlap by `overlap` frames at least and together cover the clip.

    The last window is shifted back into the clip rather than padded, and so overlaps by more. A clip that one window
    covers gets one window, of the clip's own length.

    Args:
        num_frames: of the clip.
        length: T' in the paper.
        overlap: frames that neighbours share, below `length`; 2 in the paper.
        loop: the clip's end flows into its start: windows wrap around, evenly spaced, two of them at least.
        tapered: weigh a window's frames less towards its ends, linearly, rather than all alike.
    """
    if num_frames < 1 or length < 1:
        raise LumiereError(f"windows of {length} frames over a clip of {num_frames}: both must be 1 or more")
    if not 0 <= overlap < length:
        raise LumiereError(f"windows of {length} frames cannot overlap by {overlap}: choose 0 to {length - 1}")
    if num_frames < length:  # a loop shorter than its windows needs no more of them than one as long
        length, overlap = num_frames, overlap * num_frames // length
    step = max(length - overlap, 1)
    if loop:
        count = max(-(-num_frames // step), 2)
        starts = torch.arange(count) * num_frames // count
    elif length == num_frames:
        starts = torch.zeros(1, dtype=torch.int64)
    else:
        count = -(-(num_frames - length) // step) + 1
        starts = (torch.arange(count) * step).clamp(max=num_frames - length)
    frames = (starts[:, None] + torch.arange(length)) % num_frames
    weights = _taper(length).expand(len(frames), -1) if tapered else torch.ones(frames.shape)
    total = torch.zeros(num_frames).index_add_(0, frames.flatten(), weights.flatten())
    return Windows(frames, weights / total[frames], num_frames)


def frame_positions(frames: torch.Tensor, num_frames: int, *, loop: bool = False) -> torch.Tensor:
    """Return the position in the clip of frames: float32 of the same shape, see `clock.frame_position`.

    Args:
        frames: indices into the clip, any shape.
        loop: the position swings, as a pendulum does, from the start to the end and back: a path that leads anywhere
            must lead back if the clip's end is to flow into its start.
    """
    position = frame_position(frames.float(), num_frames)
    return swing(position) if loop else position


def _taper(length: int) -> torch.Tensor:
    """A triangle, positive at its ends."""
    position = torch.arange(length, dtype=torch.float32)
    return torch.minimum(position + 1, length - position)


Predict: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _whole(part: torch.Tensor) -> torch.Tensor:
    return part


@dataclass(frozen=True)
class Denoiser:
    """A network on one device.

    Attributes:
        predict: called with some windows of each of B clips, (B * w, C, L, H, W), clips outermost, and the windows'
            frames, (w, L); returns the prediction for each, (B * w, C', L, H', W'). Or several such functions, each of
            which makes a part of the prediction, as the halves of guidance: several devices share them too.
        device: where `predict` wants the windows; None = wherever the clip is.
        merge: makes the prediction of the parts', which it gets in order, on the clip's device.
    """

    predict: Predict | Sequence[Predict]
    device: torch.device | None = None
    merge: Callable[..., torch.Tensor] = _whole

    @property
    def parts(self) -> Sequence[Predict]:
        """The functions that make a prediction's parts."""
        return (self.predict,) if callable(self.predict) else self.predict

    def make(self, part: int, clip: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Predict a part for windows of a clip, (B, C, F, H, W) -> (B * w, C', L, H', W'), on the clip's device."""
        windows = clip[:, :, frames.to(clip.device)].transpose(1, 2).flatten(0, 1)
        return self.parts[part](windows if self.device is None else windows.to(self.device), frames).to(clip.device)


def denoise_in_windows(
    denoisers: Sequence[Denoiser], clip: torch.Tensor, windows: Windows, *, batch_size: int = 1
) -> torch.Tensor:
    """One step's prediction for a whole clip: (B, C, F, H, W) -> (B, C', F, H', W'), on the clip's own device.

    Deterministic solvers take steps that are affine in the prediction, so averaging predictions averages what the
    steps lead to.

    Args:
        denoisers: one, or one on each of several devices, which then share the windows, and the parts of each window's
            prediction. A clip kept on the CPU never lies on any of them as a whole.
        batch_size: windows that a denoiser gets at once: more are faster, fewer take less memory.
    """
    if clip.shape[2] != windows.num_frames:
        raise LumiereError(f"windows over {windows.num_frames} frames do not fit a clip of {clip.shape[2]}")
    merged: torch.Tensor | None = None
    for frames, weights, out in _predictions(denoisers, clip, windows, batch_size):
        if len(windows) == 1:
            return out[:, :, 0]
        out = out * weights.to(out)[:, :, None, None]
        if merged is None:
            merged = out.new_zeros(*out.shape[:2], windows.num_frames, *out.shape[4:])
        merged.index_add_(2, frames.flatten().to(clip.device), out.flatten(2, 3))
    assert merged is not None
    return merged


def _predictions(
    denoisers: Sequence[Denoiser], clip: torch.Tensor, windows: Windows, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Frames, weights and prediction of each batch of windows, in order whoever made them, so that sums are too.

    A prediction is (B, C', w, L, H', W').
    """
    batches = list(zip(windows.frames.split(batch_size), windows.weights.split(batch_size), strict=True))
    count = len(denoisers[0].parts)
    made = _made(denoisers, clip, [(part, frames) for frames, _ in batches for part in range(count)])
    for frames, weights in batches:
        out = denoisers[0].merge(*islice(made, count))
        yield frames, weights, out.unflatten(0, (len(clip), -1)).transpose(1, 2)


def _made(
    denoisers: Sequence[Denoiser], clip: torch.Tensor, work: Sequence[tuple[int, torch.Tensor]]
) -> Iterator[torch.Tensor]:
    """Make parts of some windows, each on the device that is idle first; in order."""
    if len(denoisers) == 1:
        for part, frames in work:
            yield denoisers[0].make(part, clip, frames)
        return
    idle: SimpleQueue[Denoiser] = SimpleQueue()
    for denoiser in denoisers:
        idle.put(denoiser)
    grad = torch.is_grad_enabled()  # which threads don't inherit

    def make(item: tuple[int, torch.Tensor]) -> torch.Tensor:
        denoiser = idle.get()
        try:
            with torch.set_grad_enabled(grad):
                return denoiser.make(item[0], clip, item[1])
        finally:
            idle.put(denoiser)

    with ThreadPoolExecutor(len(denoisers)) as pool:
        yield from pool.map(make, work)
