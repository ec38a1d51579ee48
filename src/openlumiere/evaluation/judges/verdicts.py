"""What classifiers see in a clip, beside the scene that was asked for; and how often the two agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from openlumiere.data.emoji.drawing import Atlas
from openlumiere.data.emoji.scenes import TRANSPARENT, Scene, Split, speed
from openlumiere.evaluation.metrics.pixels import as_clip, background, moving_fraction, on_contrast, transparent
from openlumiere.tables import wilson

from .classifier import ClassifierConfig, SubjectClassifier, subject_classifier
from .motion import MotionClassifier, MotionConfig, motion_classifier
from .strict import StrictConfig, strict_classifier

MEASURES = ("subject", "background", "motion")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One clip: the scene that was asked for, and what the classifiers saw.

    Attributes:
        index: within the split.
        subject: as the strict classifier sees it, where there is one; else as the forgiving one does.
        meant: the subject by the forgiving classifier, which looks past blur and noise.
    """

    split: str
    index: int
    seed: int
    scene: Scene
    subject: str
    probability: float  # of the subject
    background: str
    motion: str
    moving: float  # fraction of adjacent pairs of frames that differ
    meant: str = ""

    def right(self, measure: str) -> bool:
        """Return whether one of MEASURES was seen as asked."""
        return getattr(self, measure) == getattr(self.scene, measure)

    def as_dict(self) -> dict[str, Any]:
        asked = {measure: getattr(self.scene, measure) for measure in MEASURES}
        seen = {measure: getattr(self, measure) for measure in MEASURES}
        return {
            "index": self.index, "seed": self.seed, "caption": self.scene.caption, "size": self.scene.size,
            "place": self.scene.place, "asked": asked, "told": seen, "probability": round(self.probability, 4),
            "moving_fraction": round(self.moving, 4), "meant": self.meant, "phase": self.scene.phase,
            "period": self.scene.period,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Judges:
    """The classifiers that say what a clip shows."""

    subject: SubjectClassifier
    motion: MotionClassifier
    strict: SubjectClassifier | None = None

    def cards(self) -> dict[str, Any]:
        """Return what each was trained on and how often it is right."""
        strict = {} if self.strict is None else {"strict": self.strict.card}
        return {**strict, "subject": self.subject.card, "motion": self.motion.card}

    def verdict(
        self, frames: np.ndarray, scene: Scene, *, split: Split = "train", index: int = 0, seed: int = 0
    ) -> Verdict:
        """Classify a clip, uint8 or float in [0, 1], shape (F, H, W, 3), or with straight alpha as a fourth channel."""
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
    large: Mapping[str, Atlas] | None = None,
    spoiled: Path | None = None,
    progress: bool = True,
) -> Judges:
    """Read the classifiers from `folder`, or train them on these subjects and keep them there.

    Args:
        strict: of the classifier that refuses what an eye would; None = there is none.
        large: the subjects' animations in more pixels, for that one; None = the same.
        spoiled: folder of weak models' clips that it is to refuse, see `strict_classifier`.
    """
    critic = None
    if strict is not None:
        critic = strict_classifier(large or atlases, folder, config=strict, spoiled=spoiled, progress=progress)
    return Judges(
        strict=critic,
        subject=subject_classifier(atlases, folder, config=subject, progress=progress),
        motion=motion_classifier(atlases, folder, config=motion, progress=progress),
    )


def accuracies(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the accuracies over clips: of each measure, of all three at once, by motion and by subject."""
    found: dict[str, Any] = {"clips": len(verdicts)}
    for measure in MEASURES:
        found[measure] = _share(v.right(measure) for v in verdicts)
    found["all three"] = _share(all(v.right(m) for m in MEASURES) for v in verdicts)
    found["subject, whatever its sharpness"] = _share(v.meant == v.scene.subject for v in verdicts)
    moving = [v.moving for v in verdicts]
    found["moving_fraction"] = {"mean": float(np.mean(moving)), "least": min(moving)} if moving else None
    for measure in MEASURES:
        found[f"{measure}_by_{measure}"] = _by(verdicts, measure, partial(_asked, measure))
    repeated = [v for v in verdicts if v.scene.period]
    found["motion_by_phase"] = _by(repeated, "motion", lambda v: f"from {int(4 * v.scene.phase) / 4:.2f}")
    found["motion_by_speed"] = _by(verdicts, "motion", lambda v: speed(v.scene) or "usual")
    confusion: dict[str, dict[str, int]] = {}
    for v in verdicts:
        row = confusion.setdefault(v.scene.motion, {})
        row[v.motion] = row.get(v.motion, 0) + 1
    found["motion_confusion"] = confusion
    return found


def _share(outcomes: Iterable[bool]) -> dict[str, Any]:
    listed = list(outcomes)
    right, of = sum(listed), len(listed)
    return {"right": right, "of": of, "accuracy": right / of if of else None, "interval_95": wilson(right, of)}


def _asked(measure: str, verdict: Verdict) -> str:
    return getattr(verdict.scene, measure)


def _by(verdicts: Sequence[Verdict], measure: str, group: Callable[[Verdict], str]) -> dict[str, Any]:
    groups: dict[str, list[bool]] = {}
    for v in verdicts:
        groups.setdefault(group(v), []).append(v.right(measure))
    return {key: _share(groups[key]) for key in sorted(groups)}
