"""Real clips that no model was trained on, for measures that compare with the real thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from openlumiere.clock import clip_seconds, frame_seconds
from openlumiere.data.emoji.drawing import Atlas, Sprites, draw, draw_batch, ground, over
from openlumiere.data.emoji.scenes import SECONDS, Scene, SceneSampler, vocabulary
from openlumiere.data.emoji.shards import load_atlases
from openlumiere.evaluation.metrics.pixels import SIDE

SCENES = 2_000_003  # scenes of their own, far from those of training


def atlases_of(data: Path | Mapping[str, Atlas], size: int) -> Mapping[str, Atlas]:
    """Return the animations for clips of `size` pixels: from `lumiere data emoji`'s folder, or as given."""
    if isinstance(data, Mapping):
        return data
    return load_atlases(Path(data), list(vocabulary()["subjects"]), side=2 * size)


def draw_test_clips(
    atlases: Mapping[str, Atlas], count: int, *, size: int, num_frames: int, seed: int = 0, transparent: bool = False
) -> Iterator[tuple[Scene, torch.Tensor]]:
    """Yield scenes of combinations of the test split and their clips, (3, F, size, size) in [-1, 1].

    Args:
        transparent: leave their backgrounds out: premultiplied RGBA, (4, F, size, size), instead.
    """
    sampler = SceneSampler({key: a.names for key, a in atlases.items()}, split="combinations", seed=SCENES + seed)
    for index in range(count):
        scene = sampler(index)
        if transparent:
            yield scene, _subject_alone(scene, atlases[scene.subject], size, num_frames)
        else:
            yield scene, draw(scene, atlases[scene.subject], size=size, num_frames=num_frames)[0]


def _subject_alone(scene: Scene, atlas: Atlas, size: int, num_frames: int) -> torch.Tensor:
    """Draw a scene without its background, over as many seconds as `drawing.draw` makes of so many frames."""
    seconds = frame_seconds(np.arange(num_frames), num_frames / SECONDS)
    drawn, _ = draw_batch([scene], Sprites({scene.subject: atlas}), size=size, seconds=seconds)
    return drawn[0].clamp(0, 1) * 2 - 1


def real_clips(
    atlases: Mapping[str, Atlas],
    scenes: Sequence[Scene],
    *,
    num_frames: int = 80,
    size: int = SIDE,
    channels: int = 3,
    frames: np.ndarray | None = None,
) -> np.ndarray:
    """Draw clips of the data set, at the classifiers' size by default: uint8 (scenes, F, size, size, channels).

    Args:
        channels: 4 = with straight alpha, for scenes without a background.
        frames: indices of those to draw; None = all.
    """
    seconds = frame_seconds(np.arange(num_frames) if frames is None else frames)
    clips = []
    for scene in scenes:
        sprites = Sprites({scene.subject: atlases[scene.subject]})
        rgba, _ = draw_batch([scene], sprites, size=size, seconds=seconds, duration=clip_seconds(num_frames))
        rgba = over(rgba, ground([scene.background]))[0].permute(1, 2, 3, 0).clamp(0, 1)
        alpha = rgba[..., 3:]
        straight = torch.cat([rgba[..., :3] / alpha.clamp(min=1e-4), alpha], dim=-1) if channels == 4 else rgba[..., :3]
        clips.append((straight.clamp(0, 1) * 255).round().to(torch.uint8))
    return torch.stack(clips).numpy()


def smaller(atlases: Mapping[str, Atlas], side: int) -> dict[str, Atlas]:
    """Return animations in at most `side` pixels."""
    resized = {}
    for key, atlas in atlases.items():
        frames = atlas.frames
        if frames.shape[-1] > side:
            small = F.interpolate(frames.float(), size=(side, side), mode="bilinear", antialias=True)
            frames = small.round().clamp(0, 255).to(torch.uint8)
        resized[key] = replace(atlas, frames=frames)
    return resized
