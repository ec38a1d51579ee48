"""Which set of emoji a clip is drawn with: a small network on single frames of real clips of each set."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from openlumiere.data.emoji.drawing import Atlas
from openlumiere.data.emoji.scenes import SceneSampler, Split
from openlumiere.evaluation import cache

from .classifier import ClassifierConfig, SubjectClassifier, draw_frame, fit_classifier

CONFIG = ClassifierConfig(steps=800, held_out_clips=240)
Sets = Mapping[str, Mapping[str, Atlas]]  # by name of the set, then of the subject


def style_classifier(
    sets: Sets, folder: Path, *, config: ClassifierConfig = CONFIG, progress: bool = True
) -> SubjectClassifier:
    """Return the classifier of sets: read from `folder`, or trained and kept there when absent.

    It knows every picture of every set, as at this size some sets differ in single pictures more than in manner; it is
    measured on combinations of the test split.
    """
    fingerprint = hashlib.sha256()
    for name in sorted(sets):
        fingerprint.update(f"{name} {cache.data_fingerprint(sets[name])}".encode())
    data = fingerprint.hexdigest()
    path = cache.cached_path(folder, "style", data, dataclasses.asdict(config))
    network = SubjectClassifier(sorted(sets), config)
    if cache.restore(path, network):
        return network
    frames = _frames(sets, config, seed=config.seed, split="train")
    network = fit_classifier(sorted(sets), frames, config, title="training the style classifier", progress=progress)
    unseen = _frames(sets, config, seed=config.seed + 1, split="combinations")
    right = 0
    for index in range(config.held_out_clips):
        frame, name = unseen(index)
        right += network.classify(frame.permute(1, 2, 0)[None])[0] == name
    network.card = {
        "sets": sorted(sets), "config": dataclasses.asdict(config), "data": data,
        "accuracy": {"single frames of held-out combinations": right / config.held_out_clips},
    }  # fmt: skip
    cache.save(path, network, network.card)
    return network


def _frames(
    sets: Sets, config: ClassifierConfig, *, seed: int, split: Split
) -> Callable[[int], tuple[torch.Tensor, str]]:
    """Return a function of n to the n-th frame and its set, in turn."""
    names = sorted(sets)
    samplers = {
        name: SceneSampler({key: a.names for key, a in sets[name].items()}, split=split, seed=seed) for name in names
    }
    generator = torch.Generator().manual_seed(seed)

    def frame(index: int) -> tuple[torch.Tensor, str]:
        name = names[index % len(names)]
        scene = samplers[name](index)
        return draw_frame(scene, sets[name][scene.subject], config, generator), name

    return frame
