"""Which frames of a clip a data set shows: all, every n-th, or a window of consecutive ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from openlumiere.clock import frame_position
from openlumiere.errors import LumiereError


@dataclass(frozen=True)
class ShownFrames:
    """The frames that each item of a data set shows of its clip; those of item n are a pure function of (seed, n).

    Args:
        num_frames: length of the clips.
        stride: every n-th frame alone is shown, from the first.
        window: this many consecutive ones of them, from a random one on; 0 = all of them.

    Raises:
        LumiereError: a stride or a window that the clips are too short for.
    """

    num_frames: int
    stride: int = 1
    window: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.num_frames:
            raise LumiereError(
                f"a frame stride of {self.stride} in clips of {self.num_frames} frames: choose 1 to {self.num_frames}"
            )
        if not 0 <= self.window <= len(self.all):
            raise LumiereError(
                f"a window of {self.window} frames of clips of {len(self.all)}: choose 0 to {len(self.all)}"
            )

    @property
    def all(self) -> range:
        """The frames that windows are taken from."""
        return range(0, self.num_frames, self.stride)

    @property
    def whole(self) -> bool:
        """Whether every frame of a clip is shown."""
        return len(self) == self.num_frames

    def __len__(self) -> int:
        return self.window or len(self.all)

    def of(self, index: int) -> range:
        """Return the frames of its clip that item `index` shows."""
        if not self.window:
            return self.all
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        start = int(torch.randint(len(self.all) - self.window + 1, (), generator=generator))
        return self.all[start : start + self.window]

    def positions(self, frames: range) -> torch.Tensor | None:
        """Return where these frames are in their clip, (F,), see `clock.frame_position`.

        None for those of a whole clip, which are where networks take them to be.
        """
        if not self.window and self.num_frames % len(self.all) == 0:
            return None
        return frame_position(torch.tensor(list(frames)).float(), self.num_frames)
