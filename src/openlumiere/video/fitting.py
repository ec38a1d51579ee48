"""Pictures, clips and masks as people have them, brought to the size and rate that a model works at.

One rule for all of one call's inputs, so that a mask stays where it was painted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from openlumiere.errors import LumiereError

from .opening import VIDEO_SUFFIXES, decoding_errors
from .pixels import colour, eight_bit
from .reading import Clip, probe, sample_frames

Fit = Literal["crop", "pad", "stretch"]
FITS: tuple[Fit, ...] = ("crop", "pad", "stretch")

# How far the sides' ratio of a mask may be from its picture's: a size in whole pixels can't keep it exactly.
_ASPECT_TOLERANCE = 0.03


def fit(picture: Image.Image, size: tuple[int, int], how: Fit = "crop") -> Image.Image:
    """Bring a picture to a size, (height, width) in pixels.

    Args:
        how: "crop" cuts off what is too wide or too high, evenly on both sides; "pad" keeps all, and fills up with the
            colours of the edges; "stretch" changes its proportions.
    """
    wanted = (size[1], size[0])
    if how == "crop":
        return ImageOps.fit(picture, wanted, Image.Resampling.LANCZOS)
    if how == "stretch":
        return picture.resize(wanted, Image.Resampling.LANCZOS)
    inside = np.asarray(ImageOps.contain(picture, wanted, Image.Resampling.LANCZOS))
    around = [
        ((full - own) // 2, full - own - (full - own) // 2) for full, own in zip(size, inside.shape, strict=False)
    ]
    return Image.fromarray(np.pad(inside, [*around, (0, 0)][: inside.ndim], mode="edge"))


def read_picture(path: str | Path, *, background: str | None = "white") -> Image.Image:
    """Read a still picture, or the first frame of an animated one or of a video, upright, as RGB.

    Gray, palettes, CMYK and 16 bits are converted; transparency is laid over the background.

    Args:
        background: a colour's name or ``#rrggbb``; None = keep transparency, as RGBA.

    Raises:
        LumiereError: missing, no picture, or corrupt.
    """
    return over(_read(Path(path)), background)


def read_mask_picture(path: str | Path) -> Image.Image:
    """Read a mask as `read_picture` reads a picture: gray, what is transparent is black."""
    return over(_read(Path(path)), "black").convert("L")


def over(picture: Image.Image, background: str | None) -> Image.Image:
    """Lay a picture over a colour: RGB; None = keep alpha, RGBA, if it has any."""
    if "A" not in picture.getbands():
        return picture.convert("RGB")
    if background is None:
        return picture.convert("RGBA")
    below = Image.new("RGBA", picture.size, colour(background))
    return Image.alpha_composite(below, picture.convert("RGBA")).convert("RGB")


def _read(path: Path) -> Image.Image:
    if path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES:
        return Image.fromarray(next(sample_frames(path, [0.0])))
    if not path.exists():
        raise LumiereError(f"{path} does not exist; check the name")
    with decoding_errors(path, "picture"), Image.open(path) as picture:
        picture.load()
        upright = eight_bit(ImageOps.exif_transpose(picture))
        return upright.convert("RGBA") if upright.has_transparency_data else upright.convert("RGB")


def is_clip(path: str | Path) -> bool:
    """Return whether a file holds more than one frame, or a folder is given; of what can't be read: no."""
    path = Path(path)
    if path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES:
        return True
    try:
        with decoding_errors(path), Image.open(path) as picture:
            return getattr(picture, "n_frames", 1) > 1
    except LumiereError:
        return False


def read_fitted(
    path: str | Path,
    size: tuple[int, int],
    *,
    how: Fit = "crop",
    fps: float | None = None,
    max_frames: int | None = None,
    background: str | None = "white",
) -> Clip:
    """Read a clip at a model's size and rate, one frame at a time: uint8 (F, H, W, 3), or 4 with alpha.

    Args:
        size: (height, width), pixels.
        fps: frames are repeated or left out to play on time at this rate; the clip's own where None.
        max_frames: read no more than so many from its start.
        background: what transparent pixels are laid over; None = keep alpha.

    Raises:
        LumiereError: as `read_clip`.
    """
    frames, rate = _timed(Path(path), fps, max_frames)
    return Clip(np.stack([np.asarray(fit(over(frame, background), size, how)) for frame in frames]), rate)


def read_mask(
    path: str | Path,
    of: tuple[int, int],
    size: tuple[int, int],
    *,
    num_frames: int,
    fps: float,
    how: Fit = "crop",
    max_frames: int | None = None,
) -> np.ndarray:
    """Read a mask, white = change, painted on a picture or clip: bool, (1 or F, H, W).

    A picture holds for all frames. A mask of another size than its picture is resized with it, if it has the same
    proportions. A mask that is itself a clip must last as long as its clip, to the frame.

    Args:
        of: (height, width) in pixels of the picture or clip that it was painted on, before any fitting.
        size: (height, width) to work at; it is fitted as its picture is.
        num_frames, fps: of the clip, after fitting.
        max_frames: read no more than so many, as of the clip.

    Raises:
        LumiereError: other proportions or another length, or as `read_clip`.
    """
    path = Path(path)
    if not is_clip(path):
        frames = [read_mask_picture(path)]
    else:
        frames = [over(frame, "black").convert("L") for frame in _timed(path, fps, max_frames)[0]]
        if len(frames) not in (1, num_frames):
            raise LumiereError(
                f"the mask {path} lasts {len(frames)} frames at {fps:.4g} a second, its clip {num_frames}; "
                "make them equally long, or give one picture for all frames"
            )
    width, height = frames[0].size
    if abs(math.log((width / height) / (of[1] / of[0]))) > _ASPECT_TOLERANCE:
        raise LumiereError(
            f"the mask {path} is {width}x{height} pixels, what it is for {of[1]}x{of[0]}: they must have the same "
            "proportions; paint it on a frame"
        )
    same = [frame if frame.size == of[::-1] else frame.resize(of[::-1], Image.Resampling.BILINEAR) for frame in frames]
    return np.stack([np.asarray(fit(frame, size, how)) for frame in same]) >= 128


def _timed(path: Path, fps: float | None, max_frames: int | None = None) -> tuple[Iterator[Image.Image], float]:
    """Return the frames at a rate, decoded as they are asked for, and the rate."""
    shape = probe(path)
    rate = fps or shape.fps
    count = max(round(shape.duration * rate), 1)
    if max_frames is not None:
        count = min(count, max_frames)
    # In the middle of each frame's time, where rounding cannot pick a neighbour.
    times = [min((i + 0.5) / rate, shape.duration - 1e-3) for i in range(count)]
    return (Image.fromarray(pixels) for pixels in sample_frames(path, times)), rate
