"""Drawing scenes: a subject's RGBA animation, placed and moved, over a plain background or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from openlumiere.clock import clip_seconds, frame_seconds
from openlumiere.diffusion.canonical import canonical_poses
from openlumiere.errors import LumiereError

from .motions import SECONDS, trajectory
from .scenes import animation_frames
from .vocabulary import TRANSPARENT, Scene, vocabulary

# Frames are drawn this many times larger and averaged down, so that edges are smooth.
_SUPERSAMPLING = 2
# Pixels of a source that a drawn pixel may step over: above, every second one would be missed.
_LARGEST_STEP = 1.5
# Frames are drawn so many pixels at once (before averaging down): on a CPU what its cache holds, which is twice as fast
# as more; elsewhere what bounds the memory, some 16 floats a pixel.
_PIXELS_AT_ONCE_CPU, _PIXELS_AT_ONCE = 2**18, 2**24


@dataclass(frozen=True)
class Atlas:
    """One subject's animation loop, or its one frame.

    Attributes:
        key: the subject's key.
        names: what captions may call it.
        frames: uint8, shape (loop, 4, side, side): premultiplied RGB and alpha.
        fps: of the loop.
    """

    key: str
    names: list[str]
    frames: torch.Tensor
    fps: float = 16.0


def render(sources: torch.Tensor, poses: torch.Tensor, *, size: int) -> torch.Tensor:
    """Draw each source in a frame of its own, on any device.

    Args:
        sources: premultiplied RGBA, (N, 4, S, S), uint8 or float in [0, 1].
        poses: (N, 4): centre x, centre y (in [-1, 1] of the frame, y down), side of the source as a fraction of the
            frame's, angle in radians (clockwise on screen).
        size: height and width of the frames in pixels.

    Returns:
        Premultiplied RGBA in [0, 1], float32, (N, 4, size, size); transparent around the source.
    """
    fine = size * _SUPERSAMPLING
    step = sources.shape[-1] / (poses[:, 2] * fine)
    # Small copies of large sources are drawn of sources averaged beforehand, or details would alias.
    at_once = max((_PIXELS_AT_ONCE_CPU if sources.device.type == "cpu" else _PIXELS_AT_ONCE) // fine**2, 1)
    halvings = (step / _LARGEST_STEP).log2().ceil().clamp(0, 4).long()
    frames = torch.empty(len(sources), 4, size, size, device=sources.device)
    for level in halvings.unique().tolist():
        for chosen in (halvings == level).nonzero()[:, 0].split(at_once):
            source = sources[chosen]
            source = source.float() / 255.0 if source.dtype == torch.uint8 else source.float()
            source = F.avg_pool2d(source, 2**level) if level else source
            grid = F.affine_grid(_from_frame(poses[chosen]), [len(chosen), 4, fine, fine], align_corners=False)
            frames[chosen] = F.avg_pool2d(F.grid_sample(source, grid, align_corners=False), _SUPERSAMPLING)
    return frames


def _from_frame(poses: torch.Tensor) -> torch.Tensor:
    """Return the affine maps, (N, 2, 3), from a frame's coordinates to its source's: rotate back, scale."""
    x, y, side, angle = poses.float().unbind(1)
    cos, sin = torch.cos(angle) / side, torch.sin(angle) / side
    across = torch.stack([cos, sin, -(cos * x + sin * y)], dim=1)
    down = torch.stack([-sin, cos, sin * x - cos * y], dim=1)
    return torch.stack([across, down], dim=1)


def draw_batch(
    scenes: Sequence[Scene],
    sprites: Sprites,
    *,
    size: int,
    seconds: np.ndarray,
    duration: float = SECONDS,
    test_animation: bool = False,
    view: Callable[[int, np.ndarray], np.ndarray] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a clip of each scene, on the device of `sprites`.

    Args:
        size: height and width in pixels.
        seconds: when to draw the clips, from their start: (F,), or (B, F) with times of each scene's own.
        duration: of the whole clips in seconds, see `trajectory`.
        test_animation: draw the test half of the subjects' animations, where there is one.
        view: maps a scene's index in the batch and its path, (F, 4), to the path that is drawn; see `crop_path`.

    Returns:
        The subjects, premultiplied RGBA in [0, 1], (B, 4, F, size, size); and their poses, (B, F, 4), see `render`.
    """
    times = np.broadcast_to(seconds, (len(scenes), np.shape(seconds)[-1]))
    chosen = [sprites.frame_indices(scene, at, test=test_animation) for scene, at in zip(scenes, times, strict=True)]
    paths = np.stack([trajectory(scene, at, duration) for scene, at in zip(scenes, times, strict=True)])
    if view is not None:
        paths = np.stack([view(row, path) for row, path in enumerate(paths)])
    frames = sprites.frames[torch.from_numpy(np.concatenate(chosen)).to(sprites.frames.device)]
    poses = torch.from_numpy(paths).float().to(sprites.frames.device)
    drawn = render(frames, poses.flatten(0, 1), size=size)
    return drawn.unflatten(0, times.shape).transpose(1, 2), poses


def canonical_path(path: np.ndarray) -> np.ndarray:
    """Return the path of a subject that stays where a `CanonicalFrame` has it; both are of poses, (F, 4)."""
    return canonical_poses(torch.from_numpy(path[:, 2])).numpy()


def crop_path(path: np.ndarray, rng: np.random.Generator, *, zoom: float, largest: float) -> np.ndarray:
    """Return a path as seen from a square crop of the frame, somewhere about the subject, the same in all frames.

    Args:
        path: of poses, (F, 4), see `render`.
        zoom: the frame's side by that of the crop, 1 or more.
        largest: the subject becomes so large at most, and half as large at least, in sides of the whole frame; what
            is drawn no larger than its own frames are is sharp.
    """
    x, y, side, angle = path.T
    side = side * (largest * 2.0 ** -rng.random() / side.max())
    seen = int(rng.integers(len(path)))
    reach = 1 - 1 / zoom
    left, top = (np.clip(at[seen] + rng.uniform(-0.7, 0.7) * side[seen], -reach, reach) for at in (x, y))
    return np.stack([(x - left) * zoom, (y - top) * zoom, side * zoom, angle], axis=1)


class Sprites:
    """The animations of many subjects in one tensor, so that the pictures of a batch of clips are gathered at once.

    Args:
        atlases: pictures of one size, see `emoji.load_atlases`.

    Attributes:
        atlases: the same, on the tensor's memory.
        frames: uint8, (pictures, 4, side, side).
    """

    def __init__(self, atlases: Mapping[str, Atlas], *, device: torch.device | str = "cpu") -> None:
        sides = {atlas.frames.shape[-1] for atlas in atlases.values()}
        if len(sides) != 1:
            raise LumiereError(f"pictures of {sorted(sides)} pixels: give subjects whose pictures are of one size")
        parts = [atlas.frames for atlas in atlases.values()]
        self.frames = (parts[0] if len(parts) == 1 else torch.cat(parts)).to(device)
        self.atlases: dict[str, Atlas] = {}
        self._first: dict[str, int] = {}
        first = 0
        for key, atlas in atlases.items():
            self._first[key] = first
            self.atlases[key] = replace(atlas, frames=self.frames[first : first + len(atlas.frames)])
            first += len(atlas.frames)

    def frame_indices(self, scene: Scene, seconds: np.ndarray, *, test: bool = False) -> np.ndarray:
        """Return which of `frames` show a scene's subject at these times: its animation goes on in real time."""
        atlas = self.atlases[scene.subject]
        loop = animation_frames(scene.subject, len(atlas.frames), test=test)
        if not len(loop):
            loop = animation_frames(scene.subject, len(atlas.frames))
        # Shown is the frame on screen at that time; times are sums of fractions, so not quite exact.
        elapsed = np.floor(seconds * atlas.fps + 1e-6).astype(int)
        return self._first[scene.subject] + loop[(elapsed + int(scene.drift[2] * len(loop))) % len(loop)]


def ground(backgrounds: Sequence[str]) -> torch.Tensor:
    """Return the named backgrounds as premultiplied RGBA in [0, 1], (B, 4); all zero where there is none."""
    colors = vocabulary()["backgrounds"]
    unknown = set(backgrounds) - {*colors, TRANSPARENT}
    if unknown:
        raise LumiereError(f"unknown backgrounds {sorted(unknown)}; known: {', '.join([*colors, TRANSPARENT])}")
    rows = [[*(value / 255 for value in colors[name]), 1.0] if name in colors else [0.0] * 4 for name in backgrounds]
    return torch.tensor(rows)


def over(rgba: torch.Tensor, behind: torch.Tensor) -> torch.Tensor:
    """Lay premultiplied RGBA, (B, 4, ...), over plain premultiplied RGBA, (B, 4) (Porter and Duff 1984, "over")."""
    behind = behind.to(rgba).reshape(behind.shape + (1,) * (rgba.ndim - 2))
    return rgba + (1.0 - rgba[:, 3:]) * behind


def draw(
    scene: Scene,
    atlas: Atlas,
    *,
    size: int,
    num_frames: int = 80,
    fps: float | None = None,
    frames: list[int] | None = None,
    test_animation: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one scene's clip, or some of its frames, over its background.

    Args:
        size: height and width in pixels.
        num_frames: length of the whole clip.
        fps: of that clip; None = such that it lasts as long as the data set's clips do.
        frames: indices of the frames to draw; all when None.
        test_animation: draw the test half of the subject's animation, where there is one.

    Returns:
        RGB in [-1, 1], shape (3, frames, size, size), and the subject's alpha in [0, 1],
        shape (1, frames, size, size).
    """
    if scene.background == TRANSPARENT:
        raise LumiereError("a scene without a background has no RGB: draw it with draw_batch, or lay it over a color")
    wanted = np.arange(num_frames) if frames is None else np.asarray(frames)
    fps = num_frames / SECONDS if fps is None else fps
    rgba, _ = draw_batch(
        [scene],
        Sprites({scene.subject: atlas}),
        size=size,
        seconds=frame_seconds(wanted, fps),
        duration=clip_seconds(num_frames, fps),
        test_animation=test_animation,
    )
    rgb = over(rgba, ground([scene.background]))[0, :3]
    return (rgb * 2.0 - 1.0).clamp(-1.0, 1.0), rgba[0, 3:].clamp(0.0, 1.0)
