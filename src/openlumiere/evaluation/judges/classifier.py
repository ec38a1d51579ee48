"""Which subject a clip shows: a small network on single frames, trained on real clips only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from openlumiere.data.emoji.drawing import Atlas, draw
from openlumiere.data.emoji.scenes import Scene, SceneSampler, Split, has_test_animation
from openlumiere.evaluation import cache, training
from openlumiere.evaluation.metrics.pixels import SIDE, as_clip


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Network and training of the subject classifier; the defaults take some four minutes on one CPU thread."""

    side: int = SIDE  # height and width in pixels of the frames it looks at
    width: int = 32  # channels of the first layer
    deep: bool = False  # two layers more, for frames of 128 pixels
    steps: int = 1400
    batch_size: int = 128
    lr: float = 3e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.05
    num_frames: int = 80  # length of the clips that frames are taken from
    frames_per_clip: int = 8  # frames that vote on a clip
    held_out_clips: int = 444  # real clips that the accuracies are measured on
    seed: int = 0


class SubjectClassifier(nn.Module):
    """Convolutional network of 3x3 layers on frames: (N, 3, side, side) in [0, 1] -> (N, subjects).

    Attributes:
        subjects: keys, in the order of the logits.
        card: configuration, fingerprint of the data, and accuracies on real clips of the test split; set by
            `subject_classifier`.
    """

    def __init__(self, subjects: Sequence[str], config: ClassifierConfig) -> None:
        super().__init__()
        self.subjects, self.config = list(subjects), config
        self.card: cache.Card = {}
        w = config.width
        self.body = nn.Sequential(
            *_layer(3, w, kernel=5, stride=2),
            *_layer(w, 2 * w, stride=2),
            *_layer(2 * w, 2 * w),
            *_layer(2 * w, 4 * w, stride=2),
            *_layer(4 * w, 4 * w),
            *(_layer(4 * w, 8 * w, stride=2) + _layer(8 * w, 8 * w) if config.deep else []),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear((8 if config.deep else 4) * w, len(self.subjects))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        frames = (frames * 2.0 - 1.0).contiguous(memory_format=torch.channels_last)
        return self.head(self.body(frames))

    @torch.inference_mode()
    def features(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return the last layer but one, for metrics that compare distributions.

        Args:
            frames: (F, H, W, 3), uint8 or float in [0, 1].

        Returns:
            (F, 4 * width), or twice as many of a deep network; not negative.
        """
        return self.body(self._seen(frames))

    @torch.inference_mode()
    def distance(self, frames: np.ndarray | torch.Tensor, reference: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return how different frames look: LPIPS (Zhang et al. 2018, equation 1) on this network, all channels alike.

        Activations after each ReLU are made unit vectors at every position; their squared differences are averaged
        over positions and summed over layers. Between 0, the same, and 2 a layer.

        Args:
            frames, reference: (F, H, W, 3), uint8 or float in [0, 1].

        Returns:
            (F,)
        """
        both = torch.cat([self._seen(frames), self._seen(reference)])
        total = torch.zeros(len(frames))
        for layer in self.body:
            both = layer(both)
            if isinstance(layer, nn.ReLU):
                ours, theirs = F.normalize(both, dim=1).chunk(2)
                total += (ours - theirs).square().sum(1).mean((1, 2))
        return total

    def _seen(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        clip = as_clip(frames, side=self.config.side) * 2.0 - 1.0
        return clip.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def classify(self, frames: np.ndarray | torch.Tensor) -> tuple[str, float]:
        """Return the subject of a clip and its probability: the mean of log-probabilities over frames spread evenly.

        Args:
            frames: (F, H, W, 3), uint8 or float in [0, 1].
        """
        spread = np.linspace(0, len(frames) - 1, self.config.frames_per_clip).round().astype(int)
        scores = self(as_clip(frames, np.unique(spread), side=self.config.side)).log_softmax(1).mean(0).softmax(0)
        best = int(scores.argmax())
        return self.subjects[best], float(scores[best])


def _layer(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def subject_classifier(
    atlases: Mapping[str, Atlas], folder: Path, *, config: ClassifierConfig | None = None, progress: bool = True
) -> SubjectClassifier:
    """Return the classifier of these subjects: read from `folder`, or trained and kept there when absent."""
    config = config or ClassifierConfig()
    subjects, data = sorted(atlases), cache.data_fingerprint(atlases)
    path = cache.cached_path(folder, "subject", data, dataclasses.asdict(config))
    network = SubjectClassifier(subjects, config)
    if cache.restore(path, network):
        return network
    network = train(atlases, config, progress=progress)
    network.card = {
        "subjects": subjects,
        "config": dataclasses.asdict(config),
        "data": data,
        "parameters": sum(p.numel() for p in network.parameters()),
        "accuracy": {
            "held-out combinations": accuracy(network, atlases, split="combinations"),
            "held-out animations": accuracy(network, atlases, test_animation=True),
        },
    }
    cache.save(path, network, network.card)
    return network


def train(atlases: Mapping[str, Atlas], config: ClassifierConfig, *, progress: bool = True) -> SubjectClassifier:
    """Train on frames of real clips of the train split, at one random time each, blurred and noised at random."""
    scenes = SceneSampler({key: atlas.names for key, atlas in atlases.items()}, split="train", seed=config.seed)
    generator = torch.Generator().manual_seed(config.seed)

    def frame(index: int) -> tuple[torch.Tensor, str]:
        scene = scenes(index)
        return draw_frame(scene, atlases[scene.subject], config, generator), scene.subject

    return fit_classifier(sorted(atlases), frame, config, title="training the subject classifier", progress=progress)


def draw_frame(scene: Scene, atlas: Atlas, config: ClassifierConfig, generator: torch.Generator) -> torch.Tensor:
    """Draw a real clip's frame at a random time, (3, side, side) in [0, 1]."""
    time = int(torch.randint(config.num_frames, (), generator=generator))
    rgb, _ = draw(scene, atlas, size=config.side, num_frames=config.num_frames, frames=[time])
    return (rgb[:, 0] + 1.0) / 2.0


def fit_classifier(
    classes: Sequence[str],
    frame: Callable[[int], tuple[torch.Tensor, str]],
    config: ClassifierConfig,
    *,
    title: str,
    progress: bool = True,
) -> SubjectClassifier:
    """Train a network to classify frames.

    Args:
        frame: the n-th frame, (3, side, side) in [0, 1], and its class.
        title: shown at the progress bar.
    """
    network = training.build(lambda: SubjectClassifier(classes, config), seed=config.seed)
    label = {key: index for index, key in enumerate(network.subjects)}
    generator = torch.Generator().manual_seed(config.seed)

    def loss_of(step: int) -> torch.Tensor:
        drawn = [frame(index) for index in range(step * config.batch_size, (step + 1) * config.batch_size)]
        batch = degrade(torch.stack([pixels for pixels, _ in drawn]), generator)
        labels = torch.tensor([label[shown] for _, shown in drawn])
        return F.cross_entropy(network(batch), labels, label_smoothing=config.label_smoothing)

    return training.fit(network, loss_of, config, title=title, progress=progress)


def degrade(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Blur and noise each frame by a random amount, so that shape counts and not sharpness.

    Args:
        frames: (N, 3, H, W) in [0, 1]; half of them are mixed with their blur, all are noised a little.
    """
    blurred = F.avg_pool2d(F.pad(frames, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = (torch.rand(len(frames), 1, 1, 1, generator=generator) * 2.0 - 1.0).clamp(min=0.0)
    noise = torch.randn(frames.shape, generator=generator) * 0.05 * torch.rand(share.shape, generator=generator)
    return (torch.lerp(frames, blurred, share) + noise).clamp(0.0, 1.0)


def accuracy(
    network: SubjectClassifier,
    atlases: Mapping[str, Atlas],
    *,
    split: Split = "train",
    test_animation: bool = False,
) -> float | None:
    """Return the share of real clips whose subject is right; None where no subject has a test animation.

    Args:
        test_animation: use the subjects alone whose animation has a half that is not trained on, and show that half.
    """
    names = {k: a.names for k, a in atlases.items() if not test_animation or has_test_animation(k)}
    if not names:
        return None
    config = network.config
    scenes = SceneSampler(names, split=split, seed=config.seed + 1)  # never the seed that was trained on
    right = 0
    spread = np.linspace(0, config.num_frames - 1, config.frames_per_clip).round().astype(int).tolist()
    for index in range(config.held_out_clips):
        scene = scenes(index)
        rgb, _ = draw(
            scene, atlases[scene.subject], size=config.side, num_frames=config.num_frames, frames=spread,
            test_animation=test_animation,
        )  # fmt: skip
        right += network.classify((rgb.permute(1, 2, 3, 0) + 1.0) / 2.0)[0] == scene.subject
    return right / config.held_out_clips
