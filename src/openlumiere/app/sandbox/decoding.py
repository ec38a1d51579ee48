"""What is done with users' files, and with clips that are wanted in another format, by a limited process.

Files are named relative to the folder that the process runs in. What is read is written anew by our own writers, so
that no other process ever decodes a user's file.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from openlumiere.app.detection import detection
from openlumiere.app.moderation.stills import stills as moderation_stills
from openlumiere.errors import LumiereError
from openlumiere.generation.recipe import Recipe
from openlumiere.generation.requests import Sticker
from openlumiere.generation.stickers import sticker_from_file
from openlumiere.provenance.identity import Identity
from openlumiere.video import read_clip, read_metadata, read_picture, write_clip
from openlumiere.video.encoders.pictures import write_webp
from openlumiere.video.metadata import note_text
from openlumiere.video.opening import PICTURE_SUFFIXES, VIDEO_SUFFIXES, decoding_errors, open_video

# By Pillow alone, as the first bytes say, and by no other of its many decoders.
_FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".gif": "GIF", ".webp": "WEBP", ".bmp": "BMP", ".tiff": "TIFF"
}  # fmt: skip
_MAX_FPS = 90  # of WebP
_LONGEST_WEBP_SIDE = 16383


def take(name: str, to: str, *, pixels: int, clip_pixels: int, frames: int, seconds: float) -> dict[str, Any]:
    """Read a user's picture or clip, and write it anew without loss: a picture as PNG, a clip as WebP.

    Pictures are turned upright as their EXIF says, 16 bits become 8; nothing else of the file is kept.

    Args:
        to: name of the new file, without suffix.
        pixels, clip_pixels, frames, seconds: the most of a frame, of all frames together, and of a clip; what the
            header says is checked before anything is decoded, and what is then found again.

    Raises:
        LumiereError: no picture or clip, corrupt, or too large.
    """
    path = Path(name)
    most = _Most(name, pixels, clip_pixels, frames, seconds)
    if not _checked_header(path, most):
        picture = read_picture(path, background=None)
        most.check(picture.width, picture.height, 1, 0)
        picture.save(f"{to}.png", compress_level=1)
        alpha = picture.mode == "RGBA"
        return {"name": f"{to}.png", "width": picture.width, "height": picture.height, "frames": 1, "alpha": alpha}
    clip = read_clip(path)
    count, height, width, channels = clip.frames.shape
    most.check(width, height, count, count / clip.fps)
    if clip.fps > _MAX_FPS:
        raise LumiereError(f"{name} plays {clip.fps:.4g} frames a second; give at most {_MAX_FPS}")
    note = note_text(clip.fps, count, None)
    write_webp(clip.frames, Path(f"{to}.webp"), clip.fps, note, lossless=True, quality=0, method=0)
    return {
        "name": f"{to}.webp", "width": width, "height": height, "frames": count, "fps": clip.fps, "alpha": channels == 4
    }  # fmt: skip


@dataclass(frozen=True)
class _Most:
    """The limits, and the lines that say which of them a file breaks."""

    name: str
    pixels: int
    clip_pixels: int
    frames: int
    seconds: float

    def check(self, width: int, height: int, frames: int, seconds: float) -> None:
        """Raise LumiereError for what is too large."""
        if min(width, height) < 1:
            raise LumiereError(f"{self.name} holds no picture; give another file")
        size = f"{width}x{height}"
        if max(width, height) > _LONGEST_WEBP_SIDE:
            raise LumiereError(f"{self.name} has {size} pixels; give at most {_LONGEST_WEBP_SIDE} on a side")
        if width * height > self.pixels:
            raise LumiereError(f"{self.name} has {size} pixels; give at most {_millions(self.pixels)}")
        if frames > self.frames:
            raise LumiereError(f"{self.name} has {frames} frames; give at most {self.frames}")
        if seconds > self.seconds:
            raise LumiereError(f"{self.name} lasts {seconds:.4g} s; give at most {self.seconds:.4g}")
        if frames > 1 and width * height * frames > self.clip_pixels:
            raise LumiereError(
                f"{self.name} has {frames} frames of {size}, {_millions(width * height * frames)} pixels together; "
                f"give at most {_millions(self.clip_pixels)}: make it smaller or shorter"
            )


def _millions(count: int) -> str:
    return f"{count / 1e6:.4g} million"


def _checked_header(path: Path, most: _Most) -> bool:
    """Check what a file's header says; return whether it is a clip."""
    if path.suffix in VIDEO_SUFFIXES:
        with open_video(path) as (container, stream):
            lasts = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            lasts = max(lasts, (container.duration or 0) / 1e6)
            counted = stream.frames or round(lasts * float(stream.average_rate or 0))
            most.check(stream.codec_context.width, stream.codec_context.height, counted, lasts)
        return True
    with decoding_errors(path, "picture"), Image.open(path, formats=[_FORMATS[path.suffix]]) as picture:
        most.check(*picture.size, 1, 0)
        count = getattr(picture, "n_frames", 1)
        most.check(*picture.size, count, 0)
        return count > 1 and path.suffix in PICTURE_SUFFIXES


def stills(name: str, to: str) -> dict[str, Any]:
    """Write some frames of a picture or clip as small JPEG files; their names begin with `to`.

    Raises:
        LumiereError: it cannot be read.
    """
    return {"names": [path.name for path in moderation_stills(name, to)]}


def inspect(name: str) -> dict[str, Any]:
    """Return the metadata of a clip of ours, which `Recipe.from_metadata` reads.

    Raises:
        LumiereError: no clip, or not one of ours.
    """
    metadata = read_metadata(name)
    recipe = Recipe.from_metadata(metadata)
    if recipe is None:
        raise LumiereError(f"{name} holds no settings: it was not made by openlumiere, or they were removed")
    return {"metadata": metadata}


def detect(name: str, *, key: str, root: str, anchors: str, pixels: int, frames: int, seconds: float) -> dict[str, Any]:
    """Look for a watermark and for content credentials, as `schemas.Detected` tells of them.

    Args:
        key: of the watermark, hexadecimal.
        root, anchors: see `Identity.root` and `credentials.check`; paths.
        pixels, frames, seconds: as of `take`. A few frames are held at a time, so that their sum has no limit.

    Raises:
        LumiereError: it can't be read, is too large, or smaller than 32 pixels.
    """
    _checked_header(Path(name), _Most(name, pixels, sys.maxsize, frames, seconds))
    # What decodes users' files needn't know more of the keys.
    keys = Identity(watermark_key=bytes.fromhex(key), key_id=0, certificate=Path(), private_key=Path(), root=Path(root))
    return detection(Path(name), keys, [Path(anchors)] if Path(anchors).is_dir() else [])


def convert(name: str, to: str, *, background: str) -> dict[str, Any]:
    """Write a finished clip in the format of another suffix, with all that it says of itself.

    Raises:
        LumiereError: it cannot be read or written.
    """
    clip = read_clip(name)
    write_clip(clip.frames, to, fps=clip.fps, metadata=read_metadata(name), background=_laid_over(background))
    return {}


def make_sticker(name: str, to: str, *, target: str, background: str, spare: int) -> dict[str, Any]:
    """Write a finished clip as a sticker.

    Args:
        spare: bytes to leave for the credentials, which are signed outside.

    Raises:
        LumiereError: it cannot be read, or does not fit into the service's limits.
    """
    report = sticker_from_file(name, Sticker(target=target), to, background=_laid_over(background), spare=spare)
    return {"note": report.line()}


def _laid_over(background: str) -> str | None:
    # As in generation.make: by default nothing is laid under half transparent edges.
    return None if background == "white" else background
