"""The emoji data set as training sees it: clips, or frames of them, drawn on the fly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset

from openlumiere.clock import FPS, clip_seconds, frame_seconds
from openlumiere.data.shown_frames import ShownFrames
from openlumiere.diffusion.layout import layout_of
from openlumiere.errors import LumiereError

from .drawing import Sprites, canonical_path, crop_path, draw_batch, ground, over
from .motions import check_sampling
from .scenes import SceneSampler
from .shards import load_atlases, load_stills
from .vocabulary import vocabulary


class Sample(TypedDict):
    """One clip.

    Attributes:
        pixels: (3, F, size, size) in [-1, 1]; or (4, F, size, size), premultiplied RGBA, scaled likewise: 2 a - 1.
        caption: what they show.
        alpha: of the subject, (1, F, size, size) in [0, 1].
        layout: where the subject is in each frame, (F, 6), see `diffusion.layout`.
        frame_positions: of each frame in its clip, (F,), see `clock.frame_position`; left out of whole clips.
        still: whether it shows a still picture of an emoji that is none of the subjects; left out where none does.
    """

    pixels: torch.Tensor
    caption: str
    alpha: NotRequired[torch.Tensor]
    layout: NotRequired[torch.Tensor]
    frame_positions: NotRequired[torch.Tensor]
    still: NotRequired[torch.Tensor]


class EmojiClips(Dataset[Sample]):
    """Composed emoji clips; item n is a pure function of (seed, n).

    Args:
        folder: shards made by `lumiere data emoji`.
        subjects: keys of the vocabulary; None = all of them.
        size: height and width in pixels.
        num_frames: length of a clip.
        fps: of such a clip; motions that lead anywhere spread over it, all others go on in real time.
        frame_stride, window: see `ShownFrames`.
        pool, with_motion, motions, periods: see `SceneSampler`.
        channels: 3 = RGB over a plain background; 4 = premultiplied RGBA, opaque but for transparent scenes.
        transparent: fraction of RGBA scenes that have no background.
        alpha: give the subject's alpha too.
        side: of the subjects' own frames, that clips are drawn from; None = twice `size`.
        crop: show a square of so many pixels of each frame, somewhere about the subject, which is drawn no larger
            than its own frames are: a part of a large frame that is sharp. 0 = whole frames.
        stills: fraction of clips that show a still picture of another emoji, see `load_stills`.
        canonical: fraction of clips whose subjects stay upright in the middle, and move there by themselves alone, as
            clips are drawn in a `CanonicalFrame`; their captions tell of where they would go.
        device: where clips are drawn.
    """

    def __init__(
        self, folder: Path, *, subjects: list[str] | None, size: int, num_frames: int = 80, fps: float = FPS,
        frame_stride: int = 1, window: int = 0, seed: int = 0, pool: int = 0, with_motion: float = 1.0,
        channels: int = 3, transparent: float = 0.25, alpha: bool = False, side: int | None = None, crop: int = 0,
        motions: Sequence[str] | None = None, periods: tuple[float, float] | None = None,
        stills: float = 0.0, canonical: float = 0.0, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.shown = ShownFrames(num_frames, frame_stride, window, seed)
        if not 0 <= crop <= size:
            raise LumiereError(
                f"a crop of {crop} pixels of frames of {size}: choose 0, which is all of them, to {size}"
            )
        if channels not in (3, 4):
            raise LumiereError(f"{channels} channels: choose 3 (RGB) or 4 (RGBA)")
        if len(self.shown) > 1:
            check_sampling(fps / frame_stride, periods and periods[0])
        self.size, self.fps, self.seed = size, fps, seed
        self.channels, self.alpha, self.crop, self.canonical = channels, alpha, crop, canonical
        chosen = subjects if subjects is not None else list(vocabulary()["subjects"])
        atlases = load_atlases(folder, chosen, side=side or 2 * size)
        others = load_stills(folder, without=chosen, side=side or 2 * size) if stills else {}
        if stills and not others:
            raise LumiereError(f"{folder} holds no emoji but the subjects: leave data.stills out")
        self.sprites = Sprites(atlases | others, device=device)
        scenes = partial(
            SceneSampler, pool=pool, with_motion=with_motion, transparent=transparent if channels == 4 else 0.0,
            motions=motions, periods=periods,
        )  # fmt: skip
        self.scenes = scenes({key: atlas.names for key, atlas in atlases.items()}, seed=seed)
        self.stills, self.other_scenes = stills, None
        if others:
            self.other_scenes = scenes({key: atlas.names for key, atlas in others.items()}, seed=seed)

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Draw a batch at once; PyTorch's loader asks for batches so."""
        still = [self.other_scenes is not None and self._is_still(index) for index in indices]
        scenes = [
            self.other_scenes(index) if other and self.other_scenes else self.scenes(index)
            for index, other in zip(indices, still, strict=True)
        ]
        frames = [self.shown.of(index) for index in indices]
        drawn, poses = draw_batch(
            scenes, self.sprites, size=self.crop or self.size, seconds=frame_seconds(np.array(frames), self.fps),
            duration=clip_seconds(self.shown.num_frames, self.fps),
            view=lambda row, path: self._seen(indices[row], path),
        )  # fmt: skip
        pixels = over(drawn, ground([scene.background for scene in scenes]))[:, : self.channels]
        pixels = (pixels * 2.0 - 1.0).clamp(-1.0, 1.0)
        layouts = layout_of(poses)
        samples = []
        for row, scene in enumerate(scenes):
            sample = Sample(pixels=pixels[row], caption=scene.caption, layout=layouts[row])
            if self.alpha:
                sample["alpha"] = drawn[row, 3:].clamp(0.0, 1.0)
            if (positions := self.shown.positions(frames[row])) is not None:
                sample["frame_positions"] = positions
            if self.other_scenes is not None:
                sample["still"] = torch.tensor(still[row])
            samples.append(sample)
        return samples

    def _is_still(self, index: int) -> bool:
        return bool(np.random.default_rng([self.seed, index, 0x57111]).random() < self.stills)

    def _seen(self, index: int, path: np.ndarray) -> np.ndarray:
        """Return the path that is drawn of a clip, (F, 4)."""
        if self.canonical and np.random.default_rng([self.seed, index, 0xCA70]).random() < self.canonical:
            path = canonical_path(path)
        return self._cropped(index, path) if self.crop else path

    def _cropped(self, index: int, path: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([self.seed, index, 0xC409])
        largest = self.sprites.frames.shape[-1] / self.size
        return crop_path(path, rng, zoom=self.size / self.crop, largest=largest)
