"""A finished sticker read back, and checked against what its service takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from openlumiere.errors import LumiereError
from openlumiere.video.opening import decoding_errors, open_video
from openlumiere.video.reading import video_frames_with_alpha

from .targets import StickerTarget

if TYPE_CHECKING:
    import av

_FORMATS = {".webm": "vp9", ".webp": "WEBP", ".png": "PNG", ".apng": "PNG", ".gif": "GIF"}
_CLOCK = 1e-4  # seconds: less than the finest clock of these formats


@dataclass(frozen=True)
class Measured:
    """What a file is.

    Attributes:
        codec: FFmpeg's or Pillow's name.
        pixel_format: of video; "" of pictures.
        duration, shortest: seconds: all frames', and the shortest frame's.
        transparent: whether any pixel of any frame is.
        loops: whether it plays for ever; true of video, where the player decides.
    """

    codec: str
    pixel_format: str
    width: int
    height: int
    num_frames: int
    duration: float
    shortest: float
    transparent: bool
    loops: bool
    audio: bool
    size: int

    @property
    def fps(self) -> float:
        """Frames per second, on average."""
        return self.num_frames / self.duration


def measure(path: Path) -> Measured:
    """Decode every frame of a sticker.

    Raises:
        LumiereError: it can't be read.
    """
    with path.open("rb") as file:
        is_matroska = file.read(4) == b"\x1a\x45\xdf\xa3"
    return _measure_video(path) if is_matroska else _measure_picture(path)


def _measure_video(path: Path) -> Measured:
    starts, transparent, frame = [], False, None
    with open_video(path) as (container, stream):
        for frame in video_frames_with_alpha(container, stream):
            starts.append(float((frame.pts or 0) * (frame.time_base or 0)))
            transparent |= _lowest_alpha(frame) < 255
        if frame is None:
            raise LumiereError(f"{path} holds no frames")
        duration = (container.duration or 0) / 1e6
        return Measured(
            codec=stream.codec_context.name, pixel_format=frame.format.name, width=frame.width, height=frame.height,
            num_frames=len(starts), duration=duration, shortest=float(np.diff([*starts, duration]).min()),
            transparent=transparent, loops=True, audio=len(container.streams) > 1, size=path.stat().st_size,
        )  # fmt: skip


def _measure_picture(path: Path) -> Measured:
    lengths, transparent = [], False
    with decoding_errors(path), Image.open(path) as picture:
        for i in range(getattr(picture, "n_frames", 1)):
            picture.seek(i)
            picture.load()
            lengths.append((picture.info.get("duration") or 0) / 1000)
            transparent |= bool(np.asarray(picture.convert("RGBA"))[..., 3].min() < 255)
        return Measured(
            codec=picture.format or "", pixel_format="", width=picture.width, height=picture.height,
            num_frames=len(lengths), duration=sum(lengths), shortest=min(lengths), transparent=transparent,
            loops=len(lengths) == 1 or picture.info.get("loop") == 0, audio=False, size=path.stat().st_size,
        )  # fmt: skip


def _lowest_alpha(frame: av.VideoFrame) -> int:
    if frame.format.name != "yuva420p":
        return 255
    plane = frame.planes[3]
    rows = np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)
    return int(rows[: frame.height, : frame.width].min())


def check_sticker(path: Path, target: StickerTarget, *, suffix: str, transparent: bool) -> Measured:
    """Check a file against the target's rules.

    Args:
        suffix: of the name that it will have.
        transparent: whether it must have transparent pixels, as its frames do.

    Raises:
        LumiereError: it breaks any.
    """
    found = measure(path)
    sides = {found.width, found.height}
    wanted = f"{target.side}x{target.side}" if target.square else f"one side {target.side}, the other no longer"
    right_size = sides == {target.side} if target.square else max(sides) == target.side
    rules = {
        f"{found.codec} instead of {_FORMATS[suffix]}": found.codec == _FORMATS[suffix],
        f"{found.pixel_format} instead of yuva420p": suffix != ".webm" or found.pixel_format == "yuva420p",
        f"{found.width}x{found.height} pixels instead of {wanted}": right_size,
        "its transparency lost": found.transparent or not transparent,
        f"{found.size} bytes instead of {target.max_bytes}": found.size <= target.max_bytes,
        f"{found.duration:.3f} s instead of {target.max_seconds}": (
            target.max_seconds is None or found.duration <= target.max_seconds + _CLOCK
        ),
        f"{found.fps:.2f} frames per second instead of {target.max_fps}": (
            target.max_fps is None or found.fps <= target.max_fps + _CLOCK
        ),
        f"{found.num_frames} frames instead of {target.max_frames}": (
            target.max_frames is None or found.num_frames <= target.max_frames
        ),
        f"a frame of {found.shortest} s, too short": (
            found.num_frames == 1 or found.shortest >= max(target.min_frame_seconds, _CLOCK)
        ),
        "a single frame": found.num_frames > 1 or not target.animated,
        "no endless loop": found.loops,
        "sound in it": not found.audio,
    }
    broken = [rule for rule, kept in rules.items() if not kept]
    if broken:
        raise LumiereError(f"the sticker that was made is not what {target.name} takes, with {', '.join(broken)}")
    return found
