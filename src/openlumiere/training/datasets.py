"""The data sets that denoising stages train on, and the keys of their section `data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from openlumiere.data.emoji.dataset import EmojiClips
from openlumiere.errors import LumiereError

from .config import DataConfig, check_on_device
from .masks import STAGES_WITH_MASKS


@dataclass(frozen=True, kw_only=True)
class PictureDataConfig(DataConfig):
    """Captioned pictures."""

    # Keys of the vocabulary (pictures: names of files), in files also the name of one of its sets; None = all
    subjects: list[str] | None = None
    layout_dropout: float = 0.15  # fraction of clips without their layout, for networks that take layouts
    # emoji, pictures: fraction whose subjects stay upright in the middle, see diffusion/canonical.py
    canonical: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.canonical <= 1:
            raise LumiereError(f"data.canonical must be between 0 and 1, not {self.canonical}")


@dataclass(frozen=True, kw_only=True)
class ClipDataConfig(PictureDataConfig):
    """Captioned clips, or single frames of them.

    `kind` is "emoji" (composed on the fly), "folder" (a user's own clips), "shards" (the same in tar files, `folder`
    their address), "artwork" (stage ssr-image), or "pictures".
    """

    pool: int = 0  # emoji: number of distinct scenes, 0 = unbounded
    with_motion: float = 1.0  # emoji: fraction of captions that tell the motion
    motions: list[str] | None = None  # emoji: these alone
    periods: tuple[float, float] | None = None  # emoji: shortest and longest of those that repeat themselves, seconds
    channels: int = 3  # emoji: 3 = RGB, 4 = premultiplied RGBA; with a VAE those that it takes
    transparent: float = 0.25  # emoji, 4 channels: fraction of clips without a background
    other_names: float = 0.0  # emoji: fraction of captions whose subject goes by another name, see more_words.yaml
    num_frames: int = 80
    frame_stride: int = 1  # emoji: of each clip, show every n-th frame alone
    crop: int = 0  # artwork, emoji: side of the part of a frame that is shown, in pixels; 0 = all
    fps: float = 16.0  # of clips before `frame_stride`
    on_device: bool = False  # emoji and artwork: draw where the network is, for a GPU; without workers

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels not in (3, 4):
            raise LumiereError(f"data.channels must be 3 or 4, not {self.channels}")
        for name in ("transparent", "other_names"):
            if not 0 <= getattr(self, name) <= 1:
                raise LumiereError(f"data.{name} must be between 0 and 1, not {getattr(self, name)}")
        if self.frame_stride < 1:
            raise LumiereError(f"data.frame_stride must be 1 or more, not {self.frame_stride}")
        check_on_device(self)

    @property
    def frames_of_clip(self) -> int:
        """Frames of a whole clip, the strides' others left out."""
        return len(range(0, self.num_frames, self.frame_stride))

    @property
    def shown_fps(self) -> float:
        """Frames a second of what the network sees."""
        return self.fps / self.frame_stride


@dataclass(frozen=True, kw_only=True)
class CachedClipDataConfig(ClipDataConfig):
    """Clips whose latents can be kept on disk; for models with a VAE."""

    cache: str | None = None  # folder that keeps the latents of `cached` clips; None = encode anew
    cached: int = 0  # how many different clips it holds


@dataclass(frozen=True, kw_only=True)
class WindowedClipDataConfig(CachedClipDataConfig):
    """Clips of which windows may be shown."""

    window: int = 0  # so many consecutive frames are shown, at a random position; 0 = all


@dataclass(frozen=True, kw_only=True)
class CompletedClipDataConfig(WindowedClipDataConfig):
    """Clips of which a part is given."""

    # emoji: fraction of clips that show a still picture of another emoji than the subjects, of which something is
    # always given; what is not of the vocabulary can be learnt from what is given alone
    stills: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.stills < 1:
            raise LumiereError(f"data.stills must be 0 or more, and less than 1, not {self.stills}")


def make_dataset(
    config: Any, *, single_frame: bool, channels: int | None = None, device: torch.device | str = "cpu"
) -> Dataset[Any]:
    """Return the data set that the configuration of a denoising stage names.

    Args:
        channels: of pixels; the configuration's own when None.
        device: where clips are drawn if the configuration wants it to be where the network is.
    """
    data, size = config.data, config.model.size
    match data.kind:
        case "emoji":
            return EmojiClips(
                Path(data.folder), subjects=data.subjects, size=size, num_frames=data.num_frames, fps=data.fps,
                frame_stride=data.frame_stride, window=1 if single_frame else data.window, seed=config.seed,
                pool=data.pool, with_motion=data.with_motion, channels=channels or data.channels,
                transparent=data.transparent, alpha=config.stage in STAGES_WITH_MASKS, crop=data.crop,
                motions=data.motions, periods=data.periods, stills=getattr(data, "stills", 0.0),
                canonical=data.canonical, device=device if data.on_device else "cpu",
            )  # fmt: skip
        case "folder":
            from openlumiere.data.folder import ClipFolder

            if data.frame_stride != 1:
                raise LumiereError("data.frame_stride is for emoji clips; of your own, lower data.fps and num_frames")
            num_frames = 1 if single_frame else data.window or data.num_frames
            return ClipFolder(Path(data.folder), num_frames=num_frames, fps=data.fps, size=size, seed=config.seed)
        case "shards":
            from openlumiere.data.clip_shards import ClipShards

            if data.frame_stride != 1:
                raise LumiereError("data.frame_stride is for emoji clips; of your own, lower data.fps and num_frames")
            num_frames = 1 if single_frame else data.window or data.num_frames
            return ClipShards(data.folder, num_frames=num_frames, fps=data.fps, size=size, seed=config.seed)
        case "artwork":
            from openlumiere.data.artwork import ArtworkClips

            if not single_frame or data.channels != 4:
                raise LumiereError(
                    "data.kind artwork: single pictures with transparency, for stage ssr-image with data.channels=4"
                )
            return ArtworkClips(Path(data.folder), size=size, crop=data.crop, seed=config.seed, native_size=True)
        case "pictures":
            from openlumiere.data.style_images import StyleImages

            return StyleImages(
                Path(data.folder), size=size, channels=channels or 3, seed=config.seed, only=data.subjects,
                canonical=data.canonical,
            )  # fmt: skip
        case _:
            raise LumiereError(f"data.kind {data.kind!r}: use emoji, folder, shards, pictures or artwork")
