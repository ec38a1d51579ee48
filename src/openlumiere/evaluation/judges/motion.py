"""Which of the vocabulary's motions a clip shows: a small network on the subject's track."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from openlumiere.data.emoji.drawing import Atlas, draw
from openlumiere.data.emoji.scenes import SceneSampler, Split, vocabulary
from openlumiere.evaluation import cache
from openlumiere.evaluation.metrics.pixels import SIDE, as_clip, moving_fraction
from openlumiere.evaluation.metrics.tracks import FEATURES, track_features, track_indices

from .classifier import degrade

# A clip in which fewer pairs of frames differ shows no motion at all, not even "still": the subjects' own
# animations go on in every real clip.
FROZEN_BELOW = 0.1
FROZEN = "frozen"


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """Network and training of the motion classifier; the defaults take about a minute on one CPU thread."""

    hidden: int = 96
    dropout: float = 0.1
    clips: int = 3000  # real clips that it is trained on
    steps: int = 2400
    batch_size: int = 100
    lr: float = 2e-3
    weight_decay: float = 0.05
    num_frames: int = 80
    held_out_clips: int = 444
    seed: int = 0


class MotionClassifier(nn.Module):
    """Perceptron on standardised track features, (N, FEATURES) -> (N, motions).

    Attributes:
        motions: keys, in the order of the logits.
        card: configuration, fingerprint of the data, accuracy and confusions on real clips of the test split; set by
            `motion_classifier`.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.motions, self.config = list(vocabulary()["motions"]), config
        self.card: cache.Card = {}
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("scale", torch.ones(FEATURES))
        self.layers = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(FEATURES, config.hidden),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, len(self.motions)),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # Beyond six deviations a feature says no more than "far out".
        return self.layers(((features - self.mean) / self.scale).clamp(-6.0, 6.0))

    @torch.inference_mode()
    def classify(self, frames: np.ndarray | torch.Tensor) -> str:
        """Return the motion of a clip, a key of the vocabulary, or `FROZEN` where nothing moves at all.

        Args:
            frames: (F, H, W, 3), uint8 or float in [0, 1].
        """
        if moving_fraction(frames) < FROZEN_BELOW:
            return FROZEN
        features = track_features(as_clip(frames, track_indices(len(frames))))
        return self.motions[int(self(features[None]).argmax())]


def motion_classifier(
    atlases: Mapping[str, Atlas], folder: Path, *, config: MotionConfig | None = None, progress: bool = True
) -> MotionClassifier:
    """Return the motion classifier of these subjects: read from `folder`, or trained and kept there when absent."""
    config = config or MotionConfig()
    data = cache.data_fingerprint(atlases)
    path = cache.cached_path(folder, "motion", data, dataclasses.asdict(config))
    network = MotionClassifier(config)
    if cache.restore(path, network):
        return network
    network = train(atlases, config, progress=progress)
    matrix = confusion(network, atlases)
    network.card = {
        "motions": network.motions,
        "config": dataclasses.asdict(config),
        "data": data,
        "accuracy": {
            "held-out combinations": sum(row.get(motion, 0) for motion, row in matrix.items())
            / sum(sum(row.values()) for row in matrix.values())
        },
        "confusion": matrix,
    }
    cache.save(path, network, network.card)
    return network


def train(atlases: Mapping[str, Atlas], config: MotionConfig, *, progress: bool = True) -> MotionClassifier:
    """Train on the tracks of real clips of the train split, every other one blurred and noised."""
    scenes = SceneSampler({key: atlas.names for key, atlas in atlases.items()}, split="train", seed=config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    indices = track_indices(config.num_frames).tolist()
    features, labels = [], []
    network = MotionClassifier(config)
    for index in tqdm(range(config.clips), desc="training the motion classifier", unit="clip", disable=not progress):
        scene = scenes(index)
        rgb, _ = draw(scene, atlases[scene.subject], size=SIDE, num_frames=config.num_frames, frames=indices)
        clip = (rgb.transpose(0, 1) + 1.0) / 2.0
        features.append(track_features(degrade(clip, generator) if index % 2 else clip))
        labels.append(network.motions.index(scene.motion))
    inputs, targets = torch.stack(features), torch.tensor(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = MotionClassifier(config).train()
        network.mean.copy_(inputs.mean(0))
        network.scale.copy_(inputs.std(0) + 1e-3)
        optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
        for _ in range(config.steps):
            chosen = torch.randint(len(inputs), (config.batch_size,))
            noisy = inputs[chosen] + 0.1 * network.scale * torch.randn(config.batch_size, FEATURES)
            optimizer.zero_grad()
            F.cross_entropy(network(noisy), targets[chosen]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def confusion(
    network: MotionClassifier, atlases: Mapping[str, Atlas], *, split: Split = "combinations"
) -> dict[str, dict[str, int]]:
    """Return how often each motion of real clips was taken for each: ``{shown: {predicted: clips}}``."""
    config = network.config
    scenes = SceneSampler({key: atlas.names for key, atlas in atlases.items()}, split=split, seed=config.seed + 1)
    matrix: dict[str, dict[str, int]] = {}
    for index in range(config.held_out_clips):
        scene = scenes(index)
        rgb, _ = draw(scene, atlases[scene.subject], size=SIDE, num_frames=config.num_frames)
        predicted = network.classify((rgb.permute(1, 2, 3, 0) + 1.0) / 2.0)
        row = matrix.setdefault(scene.motion, {})
        row[predicted] = row.get(predicted, 0) + 1
    return matrix
