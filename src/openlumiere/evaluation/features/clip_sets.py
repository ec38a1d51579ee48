"""Sets of clips for distribution metrics: what is in a folder or in shards, and the frames that are looked at.

Clips are listed first and read one by one, so that memory does not grow with their number.
"""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from openlumiere.errors import LumiereError
from openlumiere.video import PICTURE_SUFFIXES, VIDEO_SUFFIXES, iter_frames, opaque, probe

Sampling = Literal["centre", "start", "spread", "random"]
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)
FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
# Arrays of uint8 (F, H, W, 3) are what evaluations keep; AVI is what UCF101 is made of.
_ARRAY, _AVI = ".npy", ".avi"
_ANIMATED = PICTURE_SUFFIXES - {".png"}
SUFFIXES = VIDEO_SUFFIXES | _ANIMATED | {_ARRAY, _AVI}
_HEAD = 512  # bytes of a tar member's header


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What becomes of a clip before a network looks at it.

    Attributes:
        num_frames: that are looked at.
        sampling: which: the middle ones, the first ones, some spread evenly from first to last, or a window at a random
            place, which depends on `seed` and the clip's content only.
        fps: rate that the clip is first brought to, by repeating or leaving out frames; None = its own.
        size: height and width in pixels that the central square is resized to; None = the square as it is.
        resize: one of FILTERS: Pillow's, which average where they shrink.
    """

    num_frames: int = 16
    sampling: Sampling = "centre"
    fps: float | None = None
    size: int | None = None
    resize: str = "lanczos"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_frames < 1 or (self.size is not None and self.size < 1):
            raise LumiereError(f"{self.num_frames} frames of {self.size} pixels: give at least 1 of each")
        if self.sampling not in SAMPLINGS:
            raise LumiereError(f"--sampling {self.sampling}: choose from {', '.join(SAMPLINGS)}")
        if self.resize not in FILTERS:
            raise LumiereError(f"--resize {self.resize}: choose from {', '.join(FILTERS)}")

    def chosen(self, count: int, *, key: str = "") -> np.ndarray:
        """Return indices, (num_frames,), into a clip of `count` frames.

        Raises:
            LumiereError: a clip that is too short.
        """
        if count < self.num_frames:
            raise LumiereError(f"too short: {count} of {self.num_frames} frames")
        if self.sampling == "spread":
            return np.linspace(0, count - 1, self.num_frames).round().astype(int)
        room = count - self.num_frames
        first = {"start": 0, "centre": room // 2, "random": _offset(key, self.seed, room)}[self.sampling]
        return first + np.arange(self.num_frames)


def _offset(key: str, seed: int, room: int) -> int:
    digest = hashlib.blake2s(f"{seed} {key}".encode(), digest_size=8).digest()
    return int(np.random.default_rng(int.from_bytes(digest, "big")).integers(room + 1))


@dataclass(frozen=True)
class ClipFile:
    """One clip: a file, a folder of PNG frames, or a part of an uncompressed tar.

    Attributes:
        name: unique in its set.
        suffix: what kind of file it is; empty for a folder.
        start, length: where it lies in the tar, bytes; `length` is None for a file of its own.
    """

    name: str
    path: Path
    suffix: str
    start: int = 0
    length: int | None = None

    def content(self) -> Iterator[bytes]:
        """Yield its bytes, a piece at a time."""
        if not self.suffix:
            for frame in sorted(self.path.glob("*.png")):
                yield frame.name.encode() + frame.read_bytes()
            return
        with self.path.open("rb") as file:
            file.seek(self.start)
            left = self.length
            while piece := file.read(1 << 20 if left is None else min(left, 1 << 20)):
                left = None if left is None else left - len(piece)
                yield piece

    def fingerprint(self) -> str:
        """Return the SHA-256 of its content; its name and age say nothing.

        Raises:
            LumiereError: it cannot be read.
        """
        digest = hashlib.sha256(self.suffix.lower().encode())
        try:
            for piece in self.content():
                digest.update(piece)
        except OSError as error:
            raise LumiereError(f"cannot be read ({error.strerror})") from error
        return digest.hexdigest()


def list_clips(source: str | Path) -> list[ClipFile]:
    """List the clips of a folder and its subfolders, or of WebDataset shards (.tar), in the order of their names.

    Files of other kinds are passed over, and so is what starts with a dot. A folder of PNGs, two or
    more, is one clip.

    Raises:
        LumiereError: missing, empty, or a damaged shard.
    """
    source = Path(source)
    if source.is_file() and source.suffix.lower() == ".tar":
        found = _in_tar(source, source.name)
    elif source.is_dir():
        found = []
        pictures: Counter[Path] = Counter()
        for path in sorted(source.rglob("*")):
            inside = path.relative_to(source)
            if any(part.startswith(".") for part in inside.parts) or not path.is_file():
                continue
            suffix = path.suffix.lower()
            if suffix == ".tar":
                found += _in_tar(path, inside.as_posix())
            elif suffix in SUFFIXES:
                found.append(ClipFile(inside.as_posix(), path, suffix))
            elif suffix == ".png":
                pictures[inside.parent] += 1
        # A single picture is a preview, not a clip.
        found += [ClipFile(folder.as_posix(), source / folder, "") for folder, count in pictures.items() if count > 1]
    else:
        raise LumiereError(f"{source} is no folder of clips and no .tar; check the path")
    if not found:
        known = ", ".join(sorted(SUFFIXES))
        raise LumiereError(f"{source} holds no clips; give a folder or shards of {known}, or folders of PNG frames")
    return sorted(found, key=lambda clip: clip.name)


def _in_tar(path: Path, name: str) -> list[ClipFile]:
    try:
        with tarfile.open(path, "r:") as tar:
            members = [member for member in tar if member.isfile()]
        # A tar that was cut short ends within its last member.
        if any(member.offset_data + member.size > path.stat().st_size for member in members):
            raise tarfile.ReadError("cut short")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise LumiereError(f"{path} is no uncompressed tar, or damaged ({error}); make it again") from error
    return [
        ClipFile(f"{name}/{m.name}", path, Path(m.name).suffix.lower(), m.offset_data, m.size)
        for m in members
        if Path(m.name).suffix.lower() in SUFFIXES
    ]


def some_of(clips: Sequence[ClipFile], count: int | None, *, seed: int, what: str) -> list[ClipFile]:
    """Return a random choice of so many clips, in the order of their names; all when None.

    Raises:
        LumiereError: there are fewer.
    """
    if count is None:
        return list(clips)
    if len(clips) < count:
        raise LumiereError(f"{what} holds {len(clips)} clips of the {count} asked for; ask for fewer, or add some")
    chosen = np.random.default_rng([seed, 0xC11F]).choice(len(clips), count, replace=False)
    return [clips[i] for i in sorted(chosen.tolist())]


def read_prepared(clip: ClipFile, preparation: Preparation, *, key: str = "") -> np.ndarray:
    """Return the frames of a clip that are looked at: uint8 (num_frames, size, size, 3); what is transparent is white.

    Args:
        key: what a random window depends on besides the seed: the clip's fingerprint.

    Raises:
        LumiereError: corrupt, cut short or too short.
    """
    if clip.length is None:
        return _read(clip.path, clip.suffix, preparation, key)
    with tempfile.NamedTemporaryFile(suffix=clip.suffix) as file:
        for piece in clip.content():
            file.write(piece)
        file.flush()
        try:
            return _read(Path(file.name), clip.suffix, preparation, key)
        except LumiereError as error:
            raise LumiereError(str(error).replace(file.name, clip.name)) from error


def _read(path: Path, suffix: str, preparation: Preparation, key: str) -> np.ndarray:
    if suffix == _ARRAY:
        frames = _array(path)
        if preparation.fps is not None:
            raise LumiereError("an array has no rate of its own; leave --fps out")
        return np.stack([_square(frames[i], preparation) for i in preparation.chosen(len(frames), key=key)])
    ends = np.array([end for end, _ in _frames(path, suffix)])
    shown = np.arange(len(ends))
    # Pictures store a run of equal frames as one, so their frames go by time.
    rate = preparation.fps or (probe(path).fps if suffix in _ANIMATED else None)
    if rate:
        count = round(float(ends[-1]) * rate)
        # Just before each frame's middle: at half the rate, stored frames meet there, give or take rounding.
        shown = np.searchsorted(ends, (np.arange(count) + 0.49) / rate).clip(max=len(ends) - 1)
    wanted = shown[preparation.chosen(len(shown), key=key)]
    needed = set(wanted.tolist())
    # Decoded a second time, so that no more than the wanted frames are ever in memory.
    pixels = {}
    for index, (_, convert) in enumerate(_frames(path, suffix)):
        if index in needed:
            pixels[index] = _square(opaque(convert()), preparation)
        if len(pixels) == len(needed):
            break
    sides = {frame.shape for frame in pixels.values()}
    if len(sides) > 1:
        raise LumiereError(f"{path} holds frames of different sizes; make them equal")
    return np.stack([pixels[index] for index in wanted.tolist()])


def _frames(path: Path, suffix: str) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """Each stored frame: when it ends (s), and its pixels, converted when asked for."""
    if suffix != _AVI:
        yield from ((frame.end, frame.pixels) for frame in iter_frames(path))
        return
    # AVI has no timestamps: frames follow each other at the header's rate.
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise LumiereError(f"{path} has no picture, only sound; give a video")
            stream = container.streams.video[0]
            rate, count = float(stream.average_rate or 25), 0
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise LumiereError(f"{path} is corrupt at frame {count}; replace it")
                count += 1
                yield count / rate, lambda frame=frame: frame.to_ndarray(format="rgb24")  # type: ignore[misc]
            if count < stream.frames - 3 or not count:
                raise LumiereError(f"{path} is cut short: {count} of {stream.frames} frames are there; replace it")
    except (av.FFmpegError, OSError, EOFError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise LumiereError(f"{path} is corrupt or no clip ({reason}); replace it") from error


def _array(path: Path) -> np.ndarray:
    try:
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise LumiereError(f"{path} is damaged ({error}); replace it") from error
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise LumiereError(f"{path} holds no uint8 clip (frames, height, width, 3); replace it")
    return frames


def _square(frame: np.ndarray, preparation: Preparation) -> np.ndarray:
    """Return the central square of a frame, uint8 (H, W, 3), resized where a size is asked for."""
    side = min(frame.shape[:2])
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    # Cropped first: resizing a box would let pixels from outside it in at the edges.
    square = np.ascontiguousarray(frame[top : top + side, left : left + side])
    size = preparation.size
    if size in (None, side):
        return square
    return np.asarray(Image.fromarray(square).resize((size, size), FILTERS[preparation.resize]))
