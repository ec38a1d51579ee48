"""Judges, trained on real clips alone, who say what a clip shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openlumiere.data.compose import Atlas
from openlumiere.data.scenes import Scene, Split

from .classifier import ClassifierConfig, SubjectClassifier, subject_classifier
from .motion import MotionConfig, MotionJudge, motion_judge
from .tracks import as_clip, background, moving_fraction

MEASURES = ("subject", "background", "motion")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One clip: the scene that was asked for, and what the judges saw. `index` counts within the split."""

    split: str
    index: int
    seed: int
    scene: Scene
    subject: str
    probability: float  # of the subject told
    background: str
    motion: str
    moving: float  # fraction of adjacent pairs of frames that differ

    def right(self, measure: str) -> bool:
        """Whether one of MEASURES was judged as asked."""
        return getattr(self, measure) == getattr(self.scene, measure)

    def as_dict(self) -> dict[str, Any]:
        asked = {measure: getattr(self.scene, measure) for measure in MEASURES}
        told = {measure: getattr(self, measure) for measure in MEASURES}
        return {
            "index": self.index, "seed": self.seed, "caption": self.scene.caption, "size": self.scene.size,
            "place": self.scene.place, "asked": asked, "told": told, "probability": round(self.probability, 4),
            "moving_fraction": round(self.moving, 4),
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Judges:
    """Those who say what a clip shows."""

    subject: SubjectClassifier
    motion: MotionJudge

    def verdict(
        self, frames: np.ndarray, scene: Scene, *, split: Split = "train", index: int = 0, seed: int = 0
    ) -> Verdict:
        """Judge a clip, uint8 or float in [0, 1], shape (F, H, W, 3)."""
        subject, probability = self.subject.classify(frames)
        return Verdict(
            split=split,
            index=index,
            seed=seed,
            scene=scene,
            subject=subject,
            probability=probability,
            background=background(as_clip(frames))[0],
            motion=self.motion.classify(frames),
            moving=moving_fraction(frames),
        )


def load_judges(
    atlases: Mapping[str, Atlas],
    folder: Path,
    *,
    subject: ClassifierConfig | None = None,
    motion: MotionConfig | None = None,
    progress: bool = True,
) -> Judges:
    """Read the judges from `folder`, or train them on these subjects and keep them there."""
    return Judges(
        subject=subject_classifier(atlases, folder, config=subject, progress=progress),
        motion=motion_judge(atlases, folder, config=motion, progress=progress),
    )
