"""A subject that is a square, and judges that have hardly learnt anything: for protocols, whatever they find."""

from __future__ import annotations

from pathlib import Path

import torch

from openlumiere.data.emoji.drawing import Atlas
from openlumiere.evaluation.judges import Judges, load_judges
from openlumiere.evaluation.judges.classifier import ClassifierConfig
from openlumiere.evaluation.judges.motion import MotionConfig


def square(key: str = "tiger") -> Atlas:
    """A reddish square as a subject's animation, of one frame."""
    frames = torch.zeros(1, 4, 32, 32, dtype=torch.uint8)
    frames[:, :, 8:24, 8:24] = 255
    frames[:, 1:3, 8:24, 8:24] = 40
    return Atlas(key, [key], frames)


def hasty_judges(atlases: dict[str, Atlas], folder: Path, *, num_frames: int) -> Judges:
    """Judges after a few steps, for clips of `num_frames`."""
    return load_judges(
        atlases, folder, progress=False,
        subject=ClassifierConfig(width=4, steps=3, batch_size=4, held_out_clips=2),
        motion=MotionConfig(clips=20, steps=5, batch_size=4, num_frames=num_frames, held_out_clips=2),
    )  # fmt: skip
