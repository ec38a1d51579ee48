"""UCF101 (Soomro et al. 2012) as it is on disk, the prompts of its classes, and which clips papers compare."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from openlumiere.errors import LumiereError
from openlumiere.evaluation.features.clip_sets import ClipFile, Sampling


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How many clips are compared, and which.

    Attributes:
        generated, real: clips; of the real ones all, where the split holds fewer.
        real_sampling: which 16 frames of a real clip.
        classes: "even": class after class in turn; "training": as often as in the training split.
        size: that clips are brought to, pixels.
        splits: of the Inception Score.
    """

    name: str
    generated: int
    real: int
    real_sampling: Sampling = "centre"
    classes: Literal["even", "training"] = "even"
    size: int = 256
    splits: int = 10


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(name="videopoet", generated=10_000, real=10_000),
        Variant(name="make-a-video", generated=10_100, real=10_100),
        Variant(name="stylegan-v", generated=2048, real=2048, real_sampling="random", classes="training"),
    )
}


@dataclass(frozen=True)
class Layout:
    """UCF101 as it is on disk: class names in the official order, and the clips of a training split by class."""

    classes: list[str]
    training: list[tuple[ClipFile, str]]


def read_layout(data: str | Path, *, split: int = 1) -> Layout:
    """Read the official layout: ``UCF-101/CLASS/v_*.avi`` and ``ucfTrainTestlist/*.txt``, side by side in `data`.

    Args:
        split: 1, 2 or 3: which training list.

    Raises:
        LumiereError: parts that are missing, malformed lists, clips that are listed and not there.
    """
    data = Path(data)
    videos, lists = data / "UCF-101", data / "ucfTrainTestlist"
    for folder, holds in ((videos, "the classes' folders of clips"), (lists, "the split files")):
        if not folder.is_dir():
            raise LumiereError(f"{folder} is missing: give --data the folder of UCF-101 and ucfTrainTestlist ({holds})")
    classes = [words[-1] for words in _words(lists / "classInd.txt", 2)]
    if len(set(classes)) != len(classes) or not classes:
        raise LumiereError(f"{lists / 'classInd.txt'} names no classes, or one twice; get it again")
    training, missing = [], []
    for (name,) in ((words[0],) for words in _words(lists / f"trainlist{split:02d}.txt", 2)):
        label = name.partition("/")[0]
        if label not in classes:
            raise LumiereError(f"{lists}: trainlist{split:02d}.txt has the class {label}, classInd.txt has not")
        path = videos / name
        if not path.is_file():
            missing.append(name)
        training.append((ClipFile(name, path, path.suffix.lower()), label))
    if missing:
        raise LumiereError(f"{videos} lacks {len(missing)} clips of trainlist{split:02d}.txt, such as {missing[0]}")
    return Layout(classes, training)


def _words(path: Path, count: int) -> list[list[str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LumiereError(f"cannot read {path}; get UCF101's split files for action recognition") from error
    rows = [line.split() for line in lines if line.strip()]
    if any(len(row) != count for row in rows):
        raise LumiereError(f"{path} is malformed: each line has {count} words; get it again")
    return rows


def class_prompts(classes: Sequence[str], file: Path | None = None) -> dict[str, str]:
    """Return a prompt for each class: "a video of apply eye makeup" for ApplyEyeMakeup, or as a JSON file says.

    Raises:
        LumiereError: a file that is no JSON object of texts, or lacks a class.
    """
    if file is None:
        return {name: f"a video of {' '.join(re.findall('[A-Z][a-z]*|[^A-Z]+', name)).lower()}" for name in classes}
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LumiereError(
            f"cannot read the prompts from {file} ({error}); write a JSON object, class to text"
        ) from error
    lacking = [name for name in classes if not isinstance(said, dict) or not isinstance(said.get(name), str)]
    if lacking:
        raise LumiereError(f"{file} has no prompt for {lacking[0]}; write one for each class of classInd.txt")
    return {name: said[name] for name in classes}


def choose_variant(name: str, clips: int | None) -> Variant:
    """Return a variant by name, or one of fewer clips, which then carries the number in its name."""
    if name not in VARIANTS:
        raise LumiereError(f"--variant {name}: choose from {', '.join(VARIANTS)}")
    variant = VARIANTS[name]
    if clips is None or clips == variant.generated:
        return variant
    if not 2 <= clips <= variant.generated:
        raise LumiereError(f"--clips {clips}: {name} has {variant.generated}; give 2 or more, and no more than that")
    # Fewer than two clips a split make no score; the name says that it is another measurement anyway.
    return dataclasses.replace(
        variant, name=f"{name}-{clips}-clips", generated=clips, real=min(clips, variant.real),
        splits=min(variant.splits, clips // 2),
    )  # fmt: skip


def generated_classes(variant: Variant, layout: Layout, *, seed: int) -> list[str]:
    """Return the class of each clip to make."""
    if variant.classes == "even":
        return [layout.classes[i % len(layout.classes)] for i in range(variant.generated)]
    order = np.random.default_rng([seed, 0xC1A55]).permutation(len(layout.training))
    return [layout.training[order[i % len(order)]][1] for i in range(variant.generated)]
