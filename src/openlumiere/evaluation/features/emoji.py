"""The feature network of FVD-emoji and IS-emoji: small, trained on real emoji clips, and part of the package.

It looks at 16 frames spread over a clip and classifies which emoji they show and how it moves. Its features know
nothing of real videos, so the scores made with it carry its name and compare with nothing but each other.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from openlumiere import files
from openlumiere.bundled import write_checksums
from openlumiere.data.emoji.drawing import Atlas, draw
from openlumiere.data.emoji.scenes import SceneSampler, Split, vocabulary
from openlumiere.data.emoji.shards import load_atlases
from openlumiere.errors import LumiereError
from openlumiere.evaluation import cache, training
from openlumiere.evaluation.metrics.frechet import frechet

WEIGHTS, CONFIG = "features.safetensors", "config.json"
FRAMES, SIDE = 16, 32  # of the clips that it looks at: frames, and pixels on a side
_TEST_SCENES = 3_000_017  # scenes of their own, far from those of training


@dataclass(frozen=True, kw_only=True)
class EmojiFeaturesConfig:
    """Network and training; the defaults take some five minutes on one idle CPU thread."""

    width: int = 16  # channels of the first layer
    features: int = 128  # channels of the last one: what FVD-emoji compares
    clips: int = 5000  # real clips that it is trained on, each seen many times
    steps: int = 1400
    batch_size: int = 48
    lr: float = 4e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.05
    num_frames: int = 80  # length of the clips that the frames are spread over
    held_out_clips: int = 592
    seed: int = 0


class EmojiFeatures(nn.Module):
    """Four space-time convolutions, an average over all positions, and two heads: subject and motion.

    Attributes:
        subjects, motions: keys, in the order of the heads' logits.
    """

    def __init__(self, subjects: list[str], motions: list[str], config: EmojiFeaturesConfig) -> None:
        super().__init__()
        self.subjects, self.motions, self.config = subjects, motions, config
        w = config.width
        self.body = nn.Sequential(
            *_layer(3, w, kernel=(3, 5, 5), stride=2),
            *_layer(w, 2 * w, stride=2),
            *_layer(2 * w, 4 * w, stride=2),
            *_layer(4 * w, config.features),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
        )
        self.subject = nn.Linear(config.features, len(subjects))
        self.motion = nn.Linear(config.features, len(motions))

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        """Return the last layer but one: (B, 3, 16, 32, 32) in [0, 1] -> (B, features), not negative."""
        return self.body(clips * 2.0 - 1.0)

    def forward(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits of subject and motion."""
        found = self.features(clips)
        return self.subject(found), self.motion(found)


def _layer(inputs: int, outputs: int, *, kernel: tuple[int, int, int] = (3, 3, 3), stride: int = 1) -> list[nn.Module]:
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    convolution = nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)
    return [convolution, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)]


def spread_frames(num_frames: int) -> np.ndarray:
    """Return the frames of a clip that are looked at, spread evenly from the first to the last; shape (16,)."""
    return np.linspace(0, num_frames - 1, FRAMES).round().astype(int)


def real_clips(
    atlases: Mapping[str, Atlas],
    count: int,
    *,
    split: Split = "train",
    num_frames: int = 80,
    seed: int = 0,
    progress: bool = False,
) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Draw clips of the data set as the network sees them, and what they show.

    Returns:
        uint8 (count, 16, 32, 32, 3), and (subject, motion) of each.
    """
    scenes = SceneSampler({key: atlas.names for key, atlas in atlases.items()}, split=split, seed=seed)
    clips, labels = np.empty((count, FRAMES, SIDE, SIDE, 3), np.uint8), []
    at = spread_frames(num_frames).tolist()
    for index in tqdm(range(count), "drawing real clips", unit="clip", disable=not progress):
        scene = scenes(index)
        rgb, _ = draw(scene, atlases[scene.subject], size=SIDE, num_frames=num_frames, frames=at)
        clips[index] = ((rgb.permute(1, 2, 3, 0) + 1.0) * 127.5).round().to(torch.uint8).numpy()
        labels.append((scene.subject, scene.motion))
    return clips, labels


def train(
    atlases: Mapping[str, Atlas], config: EmojiFeaturesConfig | None = None, *, progress: bool = True
) -> EmojiFeatures:
    """Train on real clips of the train split, each shifted by up to two pixels, so that no corner is learnt by heart.

    Neither noise nor blur is added: the features are to notice both.
    """
    config = config or EmojiFeaturesConfig()
    clips, labels = real_clips(atlases, config.clips, num_frames=config.num_frames, seed=config.seed, progress=progress)
    subjects, motions = sorted(atlases), list(vocabulary()["motions"])
    shown = torch.tensor([(subjects.index(subject), motions.index(motion)) for subject, motion in labels])
    network = training.build(lambda: EmojiFeatures(subjects, motions, config), seed=config.seed)
    generator = torch.Generator().manual_seed(config.seed)

    def loss_of(_step: int) -> torch.Tensor:
        chosen = torch.randint(len(clips), (config.batch_size,), generator=generator)
        batch = _shifted(as_input(clips[chosen.numpy()]), generator)
        subject, motion = network(batch)
        loss = F.cross_entropy(subject, shown[chosen, 0], label_smoothing=config.label_smoothing)
        return loss + F.cross_entropy(motion, shown[chosen, 1], label_smoothing=config.label_smoothing)

    title = "training the feature network"
    return training.fit(network, loss_of, config, title=title, warmup=0.15, progress=progress)


def as_input(clips: np.ndarray) -> torch.Tensor:
    """uint8 (B, 16, 32, 32, 3) -> (B, 3, 16, 32, 32) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(clips)).permute(0, 4, 1, 2, 3).float() / 255.0


def _shifted(batch: torch.Tensor, generator: torch.Generator, most: int = 2) -> torch.Tensor:
    padded = F.pad(batch, (most, most, most, most, 0, 0), mode="replicate")
    corners = torch.randint(2 * most + 1, (len(batch), 2), generator=generator).tolist()
    side = batch.shape[-1]
    return torch.stack([clip[..., y : y + side, x : x + side] for clip, (y, x) in zip(padded, corners, strict=True)])


@torch.inference_mode()
def accuracy(network: EmojiFeatures, atlases: Mapping[str, Atlas], *, split: Split) -> dict[str, float]:
    """Return the shares of real clips whose subject, and motion, are right."""
    config = network.config
    clips, labels = real_clips(
        atlases, config.held_out_clips, split=split, num_frames=config.num_frames, seed=_TEST_SCENES + config.seed
    )
    right = np.zeros(2)
    for start in range(0, len(clips), 64):
        subject, motion = network(as_input(clips[start : start + 64]))
        for s, m, (asked, moved) in zip(
            subject.argmax(1).tolist(), motion.argmax(1).tolist(), labels[start : start + 64], strict=True
        ):
            right += network.subjects[s] == asked, network.motions[m] == moved
    return {"subject": float(right[0] / len(clips)), "motion": float(right[1] / len(clips))}


@torch.inference_mode()
def sanity(
    network: EmojiFeatures, atlases: Mapping[str, Atlas], *, clips: int = 500, seed: int = 0
) -> dict[str, float]:
    """Return the FVD-emoji of real clips from other real clips, as they are and damaged: the second must be larger.

    Args:
        clips: of each set; scenes that no training run has seen.
    """
    drawn, _ = real_clips(
        atlases, 2 * clips, num_frames=network.config.num_frames, seed=_TEST_SCENES + network.config.seed + 1
    )
    here, there = drawn[:clips], drawn[clips:]  # not every other one: subjects go round in turn
    rng = np.random.default_rng([seed, 0x5A])
    orders = [rng.permutation(FRAMES) for _ in there]
    noise = rng.normal(0.0, 255 * 0.1, there.shape)
    damaged = {
        "real": there,
        "real, noise of 10 % added": (there + noise).round().clip(0, 255).astype(np.uint8),
        "real, frames in random order": np.stack([clip[order] for clip, order in zip(there, orders, strict=True)]),
        "real, first frame only": np.repeat(there[:, :1], FRAMES, axis=1),
        "noise": rng.integers(256, size=there.shape, dtype=np.uint8),
    }

    def seen(batch: np.ndarray) -> np.ndarray:
        parts = [network.features(as_input(batch[i : i + 64])).numpy() for i in range(0, len(batch), 64)]
        return np.concatenate(parts)

    reference = seen(here)
    return {name: frechet(reference, seen(batch)) for name, batch in damaged.items()}


def make(
    data: Path, folder: Path, *, config: EmojiFeaturesConfig | None = None, progress: bool = True
) -> EmojiFeatures:
    """Train the network, measure it on the test split, and write it to a folder with its metrics and checksums.

    Args:
        data: folder that `lumiere data emoji` wrote.
    """
    atlases = load_atlases(data, list(vocabulary()["subjects"]), side=2 * SIDE)
    network = train(atlases, config, progress=progress)
    finish(network, atlases, folder)
    return load(folder)


def finish(network: EmojiFeatures, atlases: Mapping[str, Atlas], folder: Path, *, clips: int = 500) -> None:
    """Measure a trained network as it will be loaded again, rounded to half precision, and write it.

    Args:
        clips: see `sanity`.
    """
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half().float())
    metrics = {
        "accuracy": {
            "seen combinations": accuracy(network, atlases, split="train"),
            "held-out combinations": accuracy(network, atlases, split="combinations"),
        },
        f"fvd_emoji_from_{clips}_real_clips": sanity(network, atlases, clips=clips),
    }
    save(network, folder, data=cache.data_fingerprint(atlases), metrics=metrics)
    write_checksums(folder)


def save(network: EmojiFeatures, folder: Path, *, data: str, metrics: Mapping[str, Any]) -> None:
    """Write weights, in half precision, and configuration with metrics; the card beside them is prose."""
    weights = {
        name: tensor.half().contiguous() if tensor.is_floating_point() else tensor.contiguous()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    with files.replacing(folder / WEIGHTS) as partial:
        save_file(weights, partial)
    config = {
        "subjects": network.subjects,
        "motions": network.motions,
        "config": dataclasses.asdict(network.config),
        "data_sha256": data,
        **metrics,
    }
    files.write_json(folder / CONFIG, config, indent=1)


def load(folder: Path) -> EmojiFeatures:
    """Load the network that `save` wrote, ready to be called, in float32.

    Raises:
        LumiereError: missing or damaged.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        network = EmojiFeatures(config["subjects"], config["motions"], EmojiFeaturesConfig(**config["config"]))
        weights = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
        missing, unknown = network.load_state_dict(weights, strict=False)
    except Exception as error:
        reason = files.one_line(error)
        raise LumiereError(
            f"{folder} holds no whole feature network ({reason}); make one with: lumiere evaluate train-features"
        ) from error
    if unknown or any(not name.endswith("num_batches_tracked") for name in missing):
        raise LumiereError(f"{folder} holds the weights of another network; install the package again")
    return network.eval().requires_grad_(False)
