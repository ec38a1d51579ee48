"""Judges, trained on real clips alone, who say what a clip shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openlumiere.data.emoji.drawing import Atlas
from openlumiere.data.emoji.scenes import TRANSPARENT, Scene, Split

from .classifier import ClassifierConfig, SubjectClassifier, subject_classifier
from .motion import MotionConfig, MotionJudge, motion_judge
from .strict import StrictConfig, strict_classifier
from .tracks import as_clip, background, moving_fraction, on_contrast, transparent

MEASURES = ("subject", "background", "motion")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One clip: the scene that was asked for, and what the judges saw.

    Attributes:
        index: within the split.
        subject: as the strict judge sees it, where there is one; else as the forgiving one does.
        meant: the subject by the forgiving judge, who looks past blur and noise.
    """

    split: str
    index: int
    seed: int
    scene: Scene
    subject: str
    probability: float  # of the subject told
    background: str
    motion: str
    moving: float  # fraction of adjacent pairs of frames that differ
    meant: str = ""

    def right(self, measure: str) -> bool:
        """Whether one of MEASURES was judged as asked."""
        return getattr(self, measure) == getattr(self.scene, measure)

    def as_dict(self) -> dict[str, Any]:
        asked = {measure: getattr(self.scene, measure) for measure in MEASURES}
        told = {measure: getattr(self, measure) for measure in MEASURES}
        return {
            "index": self.index, "seed": self.seed, "caption": self.scene.caption, "size": self.scene.size,
            "place": self.scene.place, "asked": asked, "told": told, "probability": round(self.probability, 4),
            "moving_fraction": round(self.moving, 4), "meant": self.meant, "phase": self.scene.phase,
            "period": self.scene.period,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Judges:
    """Those who say what a clip shows."""

    subject: SubjectClassifier
    motion: MotionJudge
    strict: SubjectClassifier | None = None

    def cards(self) -> dict[str, Any]:
        """What each was trained on and how often it is right."""
        strict = {} if self.strict is None else {"strict": self.strict.card}
        return {**strict, "subject": self.subject.card, "motion": self.motion.card}

    def verdict(
        self, frames: np.ndarray, scene: Scene, *, split: Split = "train", index: int = 0, seed: int = 0
    ) -> Verdict:
        """Judge a clip, uint8 or float in [0, 1], shape (F, H, W, 3), or with straight alpha as a fourth channel."""
        cut = transparent(frames)
        opaque = on_contrast(frames)
        meant, probability = self.subject.classify(opaque)
        subject = meant
        if self.strict is not None:
            subject, probability = self.strict.classify(opaque)
        return Verdict(
            split=split,
            index=index,
            seed=seed,
            scene=scene,
            subject=subject,
            probability=probability,
            background=TRANSPARENT if cut else background(as_clip(opaque))[0],
            motion=self.motion.classify(opaque),
            moving=moving_fraction(opaque),
            meant=meant,
        )


def load_judges(
    atlases: Mapping[str, Atlas],
    folder: Path,
    *,
    subject: ClassifierConfig | None = None,
    motion: MotionConfig | None = None,
    strict: StrictConfig | None = None,
    sharp: Mapping[str, Atlas] | None = None,
    spoiled: Path | None = None,
    progress: bool = True,
) -> Judges:
    """Read the judges from `folder`, or train them on these subjects and keep them there.

    Args:
        strict: of the judge that refuses what an eye would; None = there is none.
        sharp: the subjects' animations in more pixels, for that one; None = the same.
        spoiled: folder of weak models' clips that it is to refuse, see `strict_classifier`.
    """
    critic = None
    if strict is not None:
        critic = strict_classifier(sharp or atlases, folder, config=strict, spoiled=spoiled, progress=progress)
    return Judges(
        strict=critic,
        subject=subject_classifier(atlases, folder, config=subject, progress=progress),
        motion=motion_judge(atlases, folder, config=motion, progress=progress),
    )
