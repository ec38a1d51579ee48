"""Reading clips: videos, animated pictures and folders of frames."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from openlumiere.errors import LumiereError

from .metadata import read_note
from .opening import decoding_errors, kind_of, open_video
from .pixels import eight_bit

if TYPE_CHECKING:
    import av

# Formats that store a run of equal frames as a single long one.
_MERGING = frozenset({".webp", ".gif", ".apng"})
# Formats whose clock counts milliseconds: a frame's length says less of the rate than the note does.
_COARSE = frozenset({".webm", ".mkv"})
# FFmpeg's own decoders drop the alpha that VP8 and VP9 keep in a second stream with each frame.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_SHORTEST_DELAY, _USUAL_DELAY = 0.010, 0.100  # browsers show delays of 10 ms and less as 100 ms
_UNEVEN = 0.5  # frames that last so much more or less than the average, as a share of it, make a rate variable
_MOST_REPEATED = 10_000  # frames that are repeated for a constant rate: one that rests for hours would fill the memory
_UNSPECIFIED = 2  # code of ITU-T H.273


@dataclass(frozen=True)
class Clip:
    """A decoded clip: uint8 frames of shape (frames, height, width, 3 or 4) and their rate per second."""

    frames: np.ndarray
    fps: float


@dataclass(frozen=True)
class ClipInfo:
    """What a file's headers say: size as displayed (pixels), duration (s), average frames per second."""

    width: int
    height: int
    duration: float
    fps: float


@dataclass(frozen=True)
class Frame:
    """A frame on screen from `start` to `end` (s); `pixels` converts it: uint8, (height, width, 3 or 4)."""

    start: float
    end: float
    pixels: Callable[[], np.ndarray]


def read_clip(path: str | Path) -> Clip:
    """Read a whole clip: a video, an animated picture, or a folder of PNG frames.

    Frames are those stored, upright, at their average rate; alpha is kept where any pixel is not opaque. Of a clip
    of variable rate the frames that stay longer are repeated, so that it plays on time at a constant rate; so are
    the runs of equal frames that WebP and GIF store as one long frame.

    Raises:
        LumiereError: missing, of unknown format, corrupt or cut short.
    """
    path = Path(path)
    frames: list[np.ndarray] = []
    ends: list[float] = []
    for frame in iter_frames(path):
        frames.append(frame.pixels())
        ends.append(frame.end)
    if len({frame.shape for frame in frames}) != 1:
        raise LumiereError(f"{path} holds frames of different sizes; make them equal")
    count, fps = _true_rate(path, len(frames), ends[-1])
    lengths = np.diff(ends, prepend=0.0)
    as_stored = count == len(frames)
    if as_stored and np.abs(lengths * fps - 1).max() > _UNEVEN:
        as_stored, fps = False, 1 / float(np.median(lengths))
        count = max(round(ends[-1] * fps), 1)
        if count - len(frames) > _MOST_REPEATED:
            raise LumiereError(
                f"{path} has frames of {lengths.min():.3g} to {lengths.max():.3g} s, {count} at a constant rate; "
                "cut it, or convert it to a constant rate"
            )
    if not as_stored:
        shown = np.searchsorted(ends, (np.arange(count) + 0.5) / fps)
        frames = [frames[i] for i in shown.clip(max=len(frames) - 1)]
    pixels = np.stack(frames)
    if pixels.shape[-1] == 4 and (pixels[..., 3] == 255).all():
        pixels = np.ascontiguousarray(pixels[..., :3])
    return Clip(pixels, fps)


def iter_frames(path: str | Path, *, start: float = 0.0) -> Iterator[Frame]:
    """Decode a clip one frame at a time, so that memory does not grow with its length.

    Args:
        start: time (s) at which to begin: with the frame on screen then. Videos are sought, pictures decoded
            from their beginning.

    Raises:
        LumiereError: as `read_clip`.
    """
    path = Path(path)
    frames = {"video": _video_frames, "picture": _picture_frames, "folder": _folder_frames}[kind_of(path)]
    for frame in frames(path, start):
        if frame.end > start:
            yield frame


def sample_frames(path: str | Path, times: list[float]) -> Iterator[np.ndarray]:
    """Read the frame on screen at each of `times` (s, rising), decoding near them only.

    Equal frames that follow each other are the same array.

    Raises:
        LumiereError: as `read_clip`, or when the clip ends before the last time.
    """
    frames = iter_frames(path, start=times[0])
    frame, shown = next(frames, None), None
    for time in times:
        while frame is not None and frame.end <= time:
            frame = next(frames, None)
        if frame is None:
            raise LumiereError(f"{path} ends before {time:.2f} s; its file may be cut short: replace it")
        if frame is not shown:
            pixels, shown = frame.pixels(), frame
        yield pixels


def probe(path: str | Path) -> ClipInfo:
    """Measure size, duration and rate of a clip: a video's by its headers, first frame and last packets, without
    decoding the rest; a picture's or folder's by going through it.

    Raises:
        LumiereError: as `read_clip`, as far as that shows.
    """
    path = Path(path)
    if kind_of(path) == "video":
        return _probe_video(path)
    count, frame = deque(enumerate(iter_frames(path), 1), maxlen=1).pop()
    height, width = frame.pixels().shape[:2]
    count, fps = _true_rate(path, count, frame.end)
    return ClipInfo(width, height, count / fps, fps)


def _true_rate(path: Path, count: int, duration: float) -> tuple[int, float]:
    """Return number of frames and rate: of the note, where the format holds runs of equal frames as one, or its clock
    is coarse; else as stored.
    """
    suffix = path.suffix.lower()
    animated_png = suffix == ".png" and count > 1
    if suffix in _MERGING | _COARSE or animated_png:
        note = read_note(path)
        known = note.num_frames == count or (note.num_frames and suffix not in _COARSE)
        if known and abs(note.num_frames / note.fps - duration) < 0.01:
            return note.num_frames, note.fps
    return count, count / duration


def _no_frames(path: Path) -> LumiereError:
    return LumiereError(f"{path} holds no frames; replace it")


def _time_base(stream: av.VideoStream) -> float:
    return float(stream.time_base or Fraction(1, 1_000_000))


def _duration(stream: av.VideoStream) -> float | None:
    """Return the stream's length in seconds, as its header says; None where it doesn't."""
    if stream.duration:
        return stream.duration * _time_base(stream)
    tag = stream.metadata.get("DURATION", "")  # Matroska and WebM: 00:00:05.000000000
    if tag.count(":") == 2:
        hours, minutes, seconds = tag.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    return None


def _check_whole(path: Path, stream: av.VideoStream, end: float) -> None:
    """Refuse a stream that ends more than three frames before its header says."""
    duration, rate = _duration(stream), float(stream.average_rate or 25)
    if duration is not None and end < duration - 3 / rate:
        raise LumiereError(f"{path} is cut short: {max(end, 0):.2f} of {duration:.2f} s are there; replace it")


def _video_frames(path: Path, start: float) -> Iterator[Frame]:
    """Decode frames from `start` on; a frame ends where the next one starts, whatever its header says."""
    with open_video(path) as (container, stream):
        base, origin = _time_base(stream), stream.start_time or 0

        def clock(frame: av.VideoFrame) -> float:
            return ((frame.pts or 0) - origin) * base

        decoded = video_frames_with_alpha(container, stream)
        if start > 0:
            container.seek(origin + math.floor(start / base), stream=stream)
            first = next(decoded, None)
            if first is None or clock(first) > start:  # no index to seek by: go through it all
                container.seek(origin, stream=stream)
                decoded = video_frames_with_alpha(container, stream)
            else:
                decoded = chain([first], decoded)
        previous = None
        for frame in decoded:
            if previous is not None:
                yield Frame(clock(previous), clock(frame), _converter(path, previous, stream))
            previous = frame
        if previous is None:
            raise _no_frames(path)
        length = previous.duration * base if previous.duration else 1 / float(stream.average_rate or 25)
        end = clock(previous) + length
        _check_whole(path, stream, end)
        yield Frame(clock(previous), end, _converter(path, previous, stream))


def video_frames_with_alpha(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Decode frames from where the container stands, with the alpha that they have."""
    import av

    name = _ALPHA_DECODERS.get(stream.codec_context.name)
    if stream.metadata.get("alpha_mode") != "1" or name is None:
        yield from container.decode(stream)
        return
    decoder = av.CodecContext.create(name, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    for packet in container.demux(stream):
        yield from decoder.decode(packet)


def _converter(path: Path, frame: av.VideoFrame, stream: av.VideoStream) -> Callable[[], np.ndarray]:
    """Return a function that converts a frame: upright RGB or RGBA, pixels square.

    High-definition video without a colour tag is BT.709, as players take it.
    """

    def pixels() -> np.ndarray:
        from av.video.reformatter import Colorspace, Interpolation

        if frame.is_corrupt:
            raise LumiereError(f"{path} is corrupt at {frame.time:.2f} s; replace it")
        aspect = stream.sample_aspect_ratio or 1
        untagged = Colorspace.ITU709 if frame.colorspace == _UNSPECIFIED and frame.height >= 720 else None
        colours, interpolation = "rgb24", Interpolation.BICUBIC
        if any(component.is_alpha for component in frame.format.components):
            # FFmpeg's quick way to RGBA leaves out the last columns of widths that 8 does not divide.
            colours, interpolation = "rgba", interpolation | Interpolation.ACCURATE_RND
        rgb = frame.reformat(
            width=max(round(frame.width * aspect), 1), format=colours, src_colorspace=untagged,
            interpolation=interpolation,
        ).to_ndarray()  # fmt: skip
        return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))

    return pixels


def _probe_video(path: Path) -> ClipInfo:
    with open_video(path) as (container, stream):
        first = next(container.decode(stream), None)
        if first is None:
            raise _no_frames(path)
        height, width = _converter(path, first, stream)().shape[:2]
        duration = _duration(stream)
        if duration is None and container.duration:
            duration = container.duration / 1e6
        if not duration:
            raise LumiereError(f"{path} does not say how long it is; convert it to MP4")
        # The last packets must be there: a download that broke off has its header, but not its end.
        base, origin = _time_base(stream), stream.start_time or 0
        container.seek(math.floor(duration / base) + origin, stream=stream)
        ends = [p.pts + (p.duration or 0) for p in container.demux(stream) if p.pts is not None and not p.is_corrupt]
        _check_whole(path, stream, (max(ends, default=0) - origin) * base)
        return ClipInfo(width, height, duration, float(stream.average_rate or 0))


def _picture_frames(path: Path, start: float) -> Iterator[Frame]:
    """Decode an animated picture: RGBA; delays of 10 ms and less last 100 ms, as in browsers."""
    with decoding_errors(path), Image.open(path) as picture:
        clock, count, still = 0.0, getattr(picture, "n_frames", 1), 0.0
        if count == 1 and path.suffix.lower() in _MERGING:  # a single frame is stored without its duration
            note = read_note(path)
            still = note.num_frames / note.fps
        for i in range(count):
            picture.seek(i)
            picture.load()
            delay = still or (picture.info.get("duration") or 0) / 1000
            end = clock + (delay if delay > _SHORTEST_DELAY else _USUAL_DELAY)
            yield Frame(clock, end, _rgba(picture.copy()))
            clock = end


def _folder_frames(path: Path, start: float) -> Iterator[Frame]:
    files = sorted(path.glob("*.png"))
    if not files:
        raise LumiereError(f"{path} holds no PNG frames; give a clip's file or a folder of frames")
    fps = read_note(path).fps
    for i, file in enumerate(files):
        with decoding_errors(file), Image.open(file) as picture:
            picture.load()
            yield Frame(i / fps, (i + 1) / fps, _rgba(picture.copy()))


def _rgba(picture: Image.Image) -> Callable[[], np.ndarray]:
    return lambda: np.array(eight_bit(picture).convert("RGBA"))
