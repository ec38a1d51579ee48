"""Opening clips' files: what kind a file is, decoders' errors in one line, FFmpeg's containers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from openlumiere.errors import LumiereError
from openlumiere.files import one_line

if TYPE_CHECKING:
    import av

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv"})
PICTURE_SUFFIXES = frozenset({".webp", ".gif", ".png", ".apng"})


def kind_of(path: Path) -> Literal["video", "picture", "folder"]:
    """Return what a path holds, by its suffix.

    Raises:
        LumiereError: missing, or of another suffix.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise LumiereError(f"{path} does not exist; check the name")
    if path.is_dir():
        return "folder"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if suffix in PICTURE_SUFFIXES:
        return "picture"
    known = ", ".join(sorted(VIDEO_SUFFIXES | PICTURE_SUFFIXES))
    raise LumiereError(f"{path} is not a clip; give one of {known}, or a folder of PNG frames")


@contextmanager
def decoding_errors(path: Path, kind: str = "clip") -> Iterator[None]:
    """Turn decoders' many exceptions into a LumiereError of one line that names the file.

    Args:
        kind: what the file should be, for the message.
    """
    from av import FFmpegError

    try:
        yield
    except LumiereError:
        raise
    except (
        OSError, FFmpegError, EOFError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError,
    ) as error:  # fmt: skip
        reason = one_line(getattr(error, "strerror", None) or error)
        raise LumiereError(f"{path} is corrupt or no {kind} ({reason}); replace it") from error


@contextmanager
def open_video(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a video for reading: its container and its first video stream.

    Raises:
        LumiereError: corrupt, no video stream in it, or one of an unknown codec.
    """
    import av

    with decoding_errors(path), av.open(str(path)) as container:
        if not container.streams.video:
            raise LumiereError(f"{path} has no picture, only sound; give a video")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise LumiereError(f"{path} holds video of a codec that is not known here; convert it to H.264")
        yield container, stream
