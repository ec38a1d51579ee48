"""A classifier that fails where an eye fails: which subject a clip shows at its own size, if any.

The subject classifier was made to forgive blur and noise: it says what a clip may be meant to show. This one is trained
on unspoiled frames, and on spoiled ones that all bear the label `NOTHING`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from openlumiere.clock import clip_seconds, frame_seconds
from openlumiere.data.emoji.drawing import Atlas, Sprites, draw_batch, ground, over
from openlumiere.data.emoji.scenes import Scene, SceneSampler, Split
from openlumiere.errors import LumiereError
from openlumiere.evaluation import cache, training
from openlumiere.evaluation.metrics.pixels import as_clip
from openlumiere.video import opaque, read_clip

from .classifier import ClassifierConfig, SubjectClassifier
from .spoiling import SPOILERS, Spoiler, bend, blur

SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".webp", ".gif", ".png")
NOTHING = "nothing"  # what spoiled pictures show
_WEAK_TEST_EVERY = 4  # one clip of weak models in so many is not trained on
_GROUP = 8  # scenes drawn at a time


@dataclass(frozen=True, kw_only=True)
class StrictConfig(ClassifierConfig):
    """Network and training of the strict classifier; the defaults take a quarter of an hour on one idle CPU thread."""

    side: int = 128
    width: int = 16
    deep: bool = True
    steps: int = 1500
    batch_size: int = 64
    lr: float = 4e-3
    spoiled: float = 0.45  # share of the frames of a batch that are spoiled
    held_out_clips: int = 222


def strict_classifier(
    atlases: Mapping[str, Atlas],
    folder: Path,
    *,
    config: StrictConfig | None = None,
    spoiled: Path | None = None,
    progress: bool = True,
) -> SubjectClassifier:
    """Return the strict classifier of these subjects: read from `folder`, or trained and kept there when absent.

    Args:
        spoiled: folder of weak models' clips, files or arrays (F, H, W, 3), that are to be called `NOTHING` too; every
            fourth, from the first, is kept to measure how many are. They are part of the cached file's name.
    """
    config = config or StrictConfig()
    weak = weak_frames(spoiled, config.side) if spoiled else []
    data = cache.data_fingerprint(atlases) + cache.arrays_fingerprint(weak)
    path = cache.cached_path(folder, "strict", data, dataclasses.asdict(config))
    network = SubjectClassifier([*sorted(atlases), NOTHING], config)
    if cache.restore(path, network):
        return network
    network = train(atlases, config, weak=weak, progress=progress)
    network.card = {
        "subjects": network.subjects,
        "config": dataclasses.asdict(config),
        "data": data,
        "parameters": sum(p.numel() for p in network.parameters()),
        "accuracy": accuracies(network, atlases, weak=weak),
    }
    cache.save(path, network, network.card)
    return network


def train(
    atlases: Mapping[str, Atlas], config: StrictConfig, *, weak: Sequence[np.ndarray] = (), progress: bool = True
) -> SubjectClassifier:
    """Train on real frames of the train split, and on spoiled ones."""
    subjects = [*sorted(atlases), NOTHING]
    network = training.build(lambda: SubjectClassifier(subjects, config), seed=config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    shown = [frame for index, clip in enumerate(weak) if index % _WEAK_TEST_EVERY for frame in clip]
    batches = _batches(network, atlases, config, shown, generator)

    def loss_of(_step: int) -> torch.Tensor:
        frames, labels = next(batches)
        return F.cross_entropy(network(frames), labels, label_smoothing=config.label_smoothing)

    return training.fit(network, loss_of, config, title="training the strict classifier", progress=progress)


def _batches(
    network: SubjectClassifier,
    atlases: Mapping[str, Atlas],
    config: StrictConfig,
    weak: Sequence[np.ndarray],
    generator: torch.Generator,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Frames (batch, 3, side, side) and labels: the first are real, the others spoiled in turn."""
    label = {key: index for index, key in enumerate(network.subjects)}
    scenes = SceneSampler({key: atlas.names for key, atlas in atlases.items()}, split="train", seed=config.seed)
    sprites = Sprites(atlases)
    spoiled = round(config.spoiled * config.batch_size)
    real = config.batch_size - spoiled
    # Bent subjects keep all of their texture, so they are the last to be refused, and shown twice as often.
    ways = [*SPOILERS.values(), SPOILERS["warped"]]
    start = turn = 0
    while True:
        listed = [scenes(index) for index in range(start, start + config.batch_size)]
        start += config.batch_size
        # Subjects go round in turn: without this the spoiled ones would always be the same.
        order = torch.randperm(len(listed), generator=generator).tolist()
        listed = [listed[index] for index in order]
        seconds = frame_seconds(torch.randint(config.num_frames, (len(listed), 1), generator=generator).numpy())
        rgba, _ = draw_batch(
            listed, sprites, size=config.side, seconds=seconds, duration=clip_seconds(config.num_frames)
        )
        subjects = rgba[:, :, 0]
        parts = [almost_unspoiled(subjects[:real], generator)]
        for part in subjects[real:].split(max(-(-spoiled // len(ways)), 2)):
            parts.append(ways[turn % len(ways)](part, generator))
            turn += 1
        colors = ground([scene.background for scene in listed])
        frames = over(torch.cat(parts), colors)[:, :3]
        labels = [label[scene.subject] for scene in listed[:real]] + [label[NOTHING]] * spoiled
        if weak:
            share = max(spoiled // 3, 1)
            for index in range(len(frames) - share, len(frames)):
                chosen = weak[int(torch.randint(len(weak), (), generator=generator))]
                frames[index] = torch.from_numpy(chosen).permute(2, 0, 1).float() / 255
        noise = torch.randn(frames.shape, generator=generator)
        level = 0.012 * torch.rand(len(frames), 1, 1, 1, generator=generator)
        yield (frames + level * noise).clamp(0, 1), torch.tensor(labels)


def almost_unspoiled(rgba: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Blur half of the subjects by up to half a pixel in 128 and bend them as little, which an eye forgives."""
    softened = blur(rgba, 0.005 * float(torch.rand((), generator=generator)))
    softened = bend(softened, 0.004 * torch.rand(len(rgba), generator=generator), generator)
    return torch.where(torch.rand(len(rgba), 1, 1, 1, generator=generator) < 0.5, softened, rgba)


def accuracies(
    network: SubjectClassifier, atlases: Mapping[str, Atlas], *, weak: Sequence[np.ndarray] = ()
) -> dict[str, float | None]:
    """Return the share of the test split's real clips whose subject is right, and of spoiled ones that are refused."""
    found: dict[str, float | None] = {"held-out combinations": real_accuracy(network, atlases, split="combinations")}
    for name in SPOILERS:
        found[f"{name}, refused"] = refused(network, atlases, name)
    if weak:
        kept = weak[::_WEAK_TEST_EVERY]
        found["weak models', refused"] = float(np.mean([network.classify(clip)[0] == NOTHING for clip in kept]))
    return found


def real_accuracy(network: SubjectClassifier, atlases: Mapping[str, Atlas], *, split: Split = "train") -> float:
    """Return the share of real clips, of scenes that were not trained on, whose subject is right."""
    config = network.config
    listed = _test_clips(atlases, config, split, count=config.held_out_clips, frames=config.frames_per_clip)
    return float(np.mean([network.classify(clip)[0] == scene.subject for scene, clip in listed]))


def refused(network: SubjectClassifier, atlases: Mapping[str, Atlas], way: str) -> float:
    """Return the share of test clips, spoiled in one way frame by frame, that show `NOTHING`."""
    config = network.config
    listed = _test_clips(
        atlases, config, "combinations", count=max(config.held_out_clips // 5, 2), frames=config.frames_per_clip // 2,
        spoil=SPOILERS[way],
    )  # fmt: skip
    return float(np.mean([network.classify(clip)[0] == NOTHING for _, clip in listed]))


def _test_clips(
    atlases: Mapping[str, Atlas], config: ClassifierConfig, split: Split, *, count: int, frames: int,
    spoil: Spoiler | None = None,
) -> Iterator[tuple[Scene, torch.Tensor]]:  # fmt: skip
    """Scenes that were not trained on, and frames spread over their clips, (frames, side, side, 3) in [0, 1]."""
    names = {key: atlas.names for key, atlas in atlases.items()}
    scenes = SceneSampler(names, split=split, seed=config.seed + 1)  # never the seed that was trained on
    generator = torch.Generator().manual_seed(config.seed + 1)
    sprites = Sprites(atlases)
    seconds = frame_seconds(np.linspace(0, config.num_frames - 1, max(frames, 1)).round())
    for start in range(0, count, _GROUP):
        # At least two, as blending takes two; subjects go round in turn, so they differ.
        listed = [scenes(index) for index in range(start, max(min(start + _GROUP, count), start + 2))]
        rgba, _ = draw_batch(
            listed, sprites, size=config.side, seconds=seconds, duration=clip_seconds(config.num_frames)
        )
        if spoil is not None:
            rgba = torch.stack([spoil(rgba[:, :, time], generator) for time in range(rgba.shape[2])], dim=2)
        clips = over(rgba, ground([scene.background for scene in listed]))[:, :3].clamp(0, 1)
        yield from zip(listed[: count - start], clips.permute(0, 2, 3, 4, 1), strict=False)


def weak_frames(folder: Path, side: int, *, frames: int = 8) -> list[np.ndarray]:
    """Read frames spread over each clip in a folder, uint8 (frames, side, side, 3): files of clips, or arrays."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".npy", *SUFFIXES))
    if not found:
        raise LumiereError(f"{folder} holds no clips; give a folder of a weak model's clips")
    clips = []
    for path in found:
        shown = cache.read_array(path) if path.suffix == ".npy" else opaque(read_clip(path).frames)
        clip = as_clip(shown, np.linspace(0, len(shown) - 1, frames).round().astype(int), side=side)
        clips.append((clip.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy())
    return clips
