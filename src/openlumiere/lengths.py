"""How many frames a model can make."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """The lengths of clips, in frames, that a model makes.

    Attributes:
        multiple, offset: a clip has a multiple of the first, plus the second.
        window: from so many frames on any number will do, as longer clips are made in windows; None = never.
        longest: None = there is no end.
    """

    multiple: int = 1
    offset: int = 0
    window: int | None = None
    longest: int | None = None

    def nearest(self, num_frames: float) -> int:
        """Return the length that is nearest to a number."""
        if self.window and num_frames >= self.window:
            return round(num_frames)
        return self._of(round((num_frames - self.offset) / self.multiple))

    def enough(self, num_frames: int) -> int:
        """Return the smallest length that is no less than a number, or the longest."""
        if self.window and num_frames >= self.window:
            return num_frames
        return self._of(-((self.offset - num_frames) // self.multiple))

    def _of(self, steps: int) -> int:
        if self.longest is not None:
            steps = min(steps, (self.longest - self.offset) // self.multiple)
        return max(steps, 0 if self.offset else 1) * self.multiple + self.offset
