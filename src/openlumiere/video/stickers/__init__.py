"""Stickers: a clip brought to what a messenger or chat takes, and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from openlumiere.errors import LumiereError
from openlumiere.video.pixels import as_uint8, colour
from openlumiere.video.writing import check_writable, replacing_clip

from .checking import Measured, check_sticker
from .encoding import MAX_FPS, PALETTED, Encoder, Settings
from .search import search
from .shape import shape
from .targets import KB, TARGETS, StickerTarget, target_for
from .timing import find_period, fit_time, resample

__all__ = [
    "TARGETS", "Measured", "Settings", "StickerReport", "StickerTarget", "check_sticker", "find_period",
    "make_sticker", "target_for",
]  # fmt: skip


@dataclass(frozen=True)
class StickerReport:
    """What a sticker is, and what was given up for it.

    Attributes:
        measured: read back from the file.
        given_up: parts of a sentence; empty if it is the clip as it was, resized.
    """

    path: Path
    target: StickerTarget
    measured: Measured
    settings: Settings
    given_up: tuple[str, ...]

    def line(self) -> str:
        """One line, such as ``512x512, 60 frames, 3.00 s; quality 62, 20 of 24 fps: 251 KB of 256 KB``."""
        found = self.measured
        what = f"{found.width}x{found.height}, {found.num_frames} frames, {found.duration:.2f} s"
        parts = [what, *([", ".join(self.given_up)] if self.given_up else [])]
        return f"{'; '.join(parts)}: {found.size / KB:.0f} KB of {self.target.max_bytes // KB} KB"


def make_sticker(
    frames: np.ndarray,
    fps: float,
    target: str,
    path: str | Path,
    *,
    crop: bool = False,
    outline: int = 0,
    outline_colour: str = "white",
    background: str | None = None,
    period: float | None = None,
    speed_up: bool = False,
    metadata: Mapping[str, str | int | float] | None = None,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
    spare: int = 0,
    progress: Callable[[str], None] | None = None,
) -> StickerReport:
    """Make a sticker of a clip: format, size, length, frame rate and bytes as a service takes them.

    Args:
        frames: (frames, height, width, 3 or 4), float in [0, 1] or uint8; alpha is straight.
        fps: frames per second.
        target: one of `TARGETS`.
        path: its suffix is one that the target takes.
        crop: cut to the subject, all that is visible in any frame, with a margin; needs transparency.
        outline: width in pixels of the finished sticker of a line around what is visible; 0 for none.
        outline_colour: a name or ``#rrggbb``.
        background: what a GIF's half transparent edges are laid over; None keeps their own colours.
        period: seconds after which the clip repeats itself, if known; else that is looked for.
        speed_up: play a clip that is too long faster rather than cut it.
        metadata: kept in the file, see `read_metadata`.
        change: given the frames at their finished size, returns those to be encoded.
        spare: bytes of the target's to leave, for what is added to the file afterwards.
        progress: called with each attempt, such as ``quality 70, 24 fps: 310 KB``.

    Returns:
        What was made, read back from the file.

    Raises:
        LumiereError: bad frames, names or path; a clip that can't be made small enough; a file that does not
            pass the check, which then doesn't take its place.
    """
    rules, path = target_for(target, path), check_writable(path)
    suffix = path.suffix.lower()
    line_colour = colour(outline_colour)
    if background is not None:
        colour(background)
    if not fps > 0 or outline < 0:
        raise LumiereError(
            f"{fps} frames per second and an outline of {outline} pixels: give more than 0, and 0 or more"
        )
    pixels = as_uint8(frames)
    if pixels.shape[-1] == 3:
        pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], -1)
    timed = fit_time(pixels, fps, rules.max_seconds, period=period, speed_up=speed_up)
    duration = len(timed.frames) / timed.fps
    top = Settings(quality=100, num_frames=_most_frames(len(timed.frames), duration, rules, suffix))
    # Fewer frames first: each costs time to resize and outline.
    shaped = shape(
        resample(timed.frames, top.num_frames), rules, crop=crop, outline=outline, outline_colour=line_colour
    )
    if rules.animated and (shaped == shaped[:1]).all():
        raise LumiereError(f"the clip does not move, and {target} takes animated stickers only; give one that does")

    if change is not None:
        shaped = change(shaped)

    def tell(settings: Settings, size: int) -> None:
        if progress is not None:
            progress(f"{_described(settings, duration, suffix)}: {size / KB:.0f} KB")

    encoder = Encoder(shaped, duration, suffix, background=background, metadata=metadata)
    best = search(encoder, top, duration, suffix, rules.max_bytes - spare, tell)
    check = partial(check_sticker, target=rules, suffix=suffix, transparent=bool((shaped[..., 3] < 128).any()))
    with replacing_clip(path) as unfinished:
        unfinished.write_bytes(best.data)
        measured = check(unfinished)
    given_up = [timed.change] if timed.change else []
    settings = best.settings
    if settings != top or settings.num_frames != len(timed.frames):
        given_up += _sacrifices(settings, top, len(timed.frames), duration, suffix)
    return StickerReport(path, rules, measured, settings, tuple(given_up))


def _most_frames(count: int, duration: float, rules: StickerTarget, suffix: str) -> int:
    fastest = min(rules.max_fps or MAX_FPS[suffix], MAX_FPS[suffix])
    return max(min(count, int(fastest * duration + 1e-6), rules.max_frames or count), 1)


def _described(settings: Settings, duration: float, suffix: str) -> str:
    """Return settings in words."""
    words = [f"quality {settings.quality}", f"{settings.num_frames / duration:.3g} fps"]
    if suffix in PALETTED and (suffix == ".gif" or settings.quality < 100 or settings.colours < 256):
        words.append(f"{settings.colours} colours")
    if settings.detail < 1:
        words.append(f"detail {settings.detail:g}")
    return ", ".join(words)


def _sacrifices(settings: Settings, top: Settings, count: int, duration: float, suffix: str) -> list[str]:
    """Return what was given up, in words."""
    words = [f"quality {settings.quality}"] if settings.quality < top.quality else []
    if settings.num_frames < count:
        words.append(f"{settings.num_frames / duration:.3g} of {count / duration:.3g} fps")
    if suffix in PALETTED and (settings.colours < top.colours or (suffix != ".gif" and settings.quality < 100)):
        words.append(f"{settings.colours} colours")
    if settings.detail < 1:
        words.append(f"{settings.detail:.0%} of the detail")
    return words
