"""How far clips are from real ones as a whole, by two sets of features that know nothing of each other.

FVD-emoji sees 16 frames of 32 pixels, so it knows motion and is blind to sharpness; EfficientNet-Lite0 sees single
frames at their own size. Fréchet distances grow as sets get smaller, so each is given as a ratio to the distance of
other real clips, of the same number, from the same real ones: 1 is as near as real clips are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from openlumiere.bundled import models_root
from openlumiere.evaluation.features import emoji as emoji_features
from openlumiere.evaluation.features.imagenet import NAME, frame_features
from openlumiere.evaluation.features.networks import EMOJI_FOLDER
from openlumiere.evaluation.metrics.frechet import frechet, within_span
from openlumiere.evaluation.metrics.pixels import as_clip

MODEL, REAL, OTHER = "model", "real", "other real"
FVD = "FVD-emoji"
_FRAMES = 4  # of each clip that are looked at one by one


def shown_frames(num_frames: int) -> np.ndarray:
    """Return the frames of a clip that are looked at, spread from the first to the last; shape (16,)."""
    return emoji_features.spread_frames(num_frames)


class Sharpness:
    """Gathers features of a model's clips, of the real ones of the same scenes, and of other real ones."""

    def __init__(self) -> None:
        self._network = emoji_features.load(models_root() / EMOJI_FOLDER)
        self._clips: dict[str, list[np.ndarray]] = {MODEL: [], REAL: [], OTHER: []}
        self._frames: dict[str, list[np.ndarray]] = {MODEL: [], REAL: [], OTHER: []}

    def add(self, which: str, shown: np.ndarray) -> None:
        """Add the `shown_frames` of a clip, opaque, uint8 (16, S, S, 3), to one of the sets."""
        small = (as_clip(shown, side=emoji_features.SIDE) * 255).round().to(torch.uint8)
        clip = small.permute(0, 2, 3, 1).numpy()[None]
        with torch.inference_mode():
            self._clips[which].append(self._network.features(emoji_features.as_input(clip)).numpy())
        single = shown[np.linspace(0, len(shown) - 1, _FRAMES).round().astype(int)]
        self._frames[which].append(frame_features(single))

    def report(self) -> dict[str, Any]:
        """Return for each set of features the distances from real clips, and their ratio; nothing below two clips."""
        if min(map(len, self._clips.values())) < 2:
            return {}
        found = {}
        for name, sets in ((FVD, self._clips), (NAME, self._frames)):
            features = {which: np.concatenate(parts) for which, parts in sets.items()}
            features = dict(zip(features, within_span(list(features.values())), strict=True))
            model, other = (frechet(features[REAL], features[which]) for which in (MODEL, OTHER))
            found[name] = {"model": model, "real": other, "ratio": model / other if other else None}
        return found
