"""Writing clips: videos, animated pictures, contact sheets and folders of frames.

Every file carries a note, see `metadata`, and is written whole or not at all.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from openlumiere.errors import LumiereError
from openlumiere.files import replacing

from .encoders.films import write_mov, write_mp4, write_webm
from .encoders.pictures import write_apng, write_gif, write_webp
from .metadata import FOLDER_NOTE, note_text, picture_options, write_folder_note
from .pixels import as_uint8, colour, enlarged
from .sheet import contact_sheet

# Highest rate that players honour: browsers show delays of 10 ms and less as 100 ms.
_MAX_FPS = {
    ".mp4": 240, ".mov": 240, ".webm": 240, ".webp": 90, ".apng": 90, ".gif": 50, ".png": 1000, "": 1000,
}  # fmt: skip
# Larger WebP files are stored with loss (4:2:0 chroma), which small pictures would not survive.
_LOSSLESS_WEBP_SIDE = 160
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_writable(path: str | Path) -> Path:
    """Refuse what `write_clip` could not write, before any work is done.

    Raises:
        LumiereError: unknown suffix, missing or unwritable folder, or a folder of frames that would replace
            one holding anything else.
    """
    path, suffix = _target(path)
    parent = path.parent
    if not parent.is_dir():
        raise LumiereError(f"the folder {parent} does not exist; make it with: mkdir -p {parent}")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise LumiereError(f"the folder {parent} is not writable; choose another place for {path.name}")
    if suffix and path.is_dir():
        raise LumiereError(f"{path} is a folder; choose another name, or end it with / for a folder of frames")
    if not suffix and path.exists() and not (path.is_dir() and all(map(_is_ours, path.iterdir()))):
        raise LumiereError(f"{path} holds something else than a clip's frames; choose another name")
    return path


def _target(path: str | Path) -> tuple[Path, str]:
    """Return the path and the kind of file to write there: its suffix in lower case, "" for a folder of frames."""
    suffix = "" if str(path).endswith(("/", os.sep)) else Path(path).suffix.lower()
    if suffix not in _MAX_FPS:
        known = ", ".join(filter(None, _MAX_FPS))
        raise LumiereError(f"cannot write {suffix} files; choose one of {known}, or end the name with / for a folder")
    return Path(path), suffix


def _is_ours(path: Path) -> bool:
    return path.name == FOLDER_NOTE or (path.suffix == ".png" and path.stem.isdigit())


def write_clip(
    frames: np.ndarray,
    path: str | Path,
    *,
    fps: float = 16,
    metadata: Mapping[str, str | int | float] | None = None,
    min_side: int = 0,
    lossless: bool = False,
    background: str | None = None,
) -> Path:
    """Write a clip in the format that the suffix names, whole or not at all.

    - ``.mp4``: H.264, yuv420p, BT.709, index first; odd sizes grow by a copy of the last row or column,
      transparency is laid over the background.
    - ``.mov``: ProRes 4444, for editing programs; keeps transparency.
    - ``.webm``: VP9; keeps transparency (yuva420p), which `read_clip` and browsers show.
    - ``.webp``, ``.apng``, ``.gif``: loop for ever, keep transparency (in a GIF as on or off, wide fades dithered),
      last exactly frames / fps in total. WebP is lossless up to 160 pixels, APNG always.
    - ``.png``: a contact sheet, see `contact_sheet`.
    - no suffix, or a trailing slash: a folder of PNG frames with ``metadata.json``.

    Args:
        frames: (frames, height, width, 3 or 4), float in [0, 1] or uint8; alpha is straight.
        fps: frames per second.
        metadata: kept in the file, see `read_metadata`.
        min_side: enlarge clips whose shorter side (pixels) is below this by a whole factor with nearest
            neighbour, as players blur tiny clips.
        lossless: keep every pixel whatever the size, where the format can: WebP, APNG and frames.
        background: a colour's name or ``#rrggbb``: what an MP4's and a contact sheet's transparency is laid over,
            default white; and, where given, the half transparent edge of a GIF.

    Returns:
        The path written.

    Raises:
        LumiereError: bad frames, fps, colour or path; a full disk or any other failure to write, after which
            nothing is left behind.
    """
    path, suffix = check_writable(path), _target(path)[1]
    if not 0 < fps <= _MAX_FPS[suffix]:
        kind = suffix or "a folder"
        raise LumiereError(f"{fps} frames per second: {kind} plays more than 0 and at most {_MAX_FPS[suffix]}")
    below = background or "white"
    colour(below)
    pixels = enlarged(as_uint8(frames), min_side)
    note = note_text(fps, len(pixels), metadata)
    webp = partial(write_webp, lossless=lossless or max(pixels.shape[1:3]) <= _LOSSLESS_WEBP_SIDE)
    write: dict[str, Callable[[np.ndarray, Path, float, str], None]] = {
        ".mp4": partial(write_mp4, background=below), ".mov": write_mov, ".webm": _write_webm, ".webp": webp,
        ".apng": write_apng, ".gif": partial(write_gif, background=background),
        ".png": partial(_write_sheet, background=below), "": _write_folder,
    }  # fmt: skip
    with replacing_clip(path) as unfinished:
        write[suffix](pixels, unfinished, float(fps), note)
    return path


@contextmanager
def replacing_clip(path: Path) -> Iterator[Path]:
    """Write a clip's file or folder whole or not at all, see `files.replacing`; failures as one line.

    Raises:
        LumiereError: a full disk, or any other failure to write.
    """
    from av import FFmpegError

    try:
        with replacing(path) as unfinished:
            yield unfinished
    except (OSError, FFmpegError) as error:
        if error.errno in _DISK_FULL:
            raise LumiereError(f"no space left for {path}; free some, or write to another disk") from error
        raise LumiereError(f"cannot write {path}: {error.strerror or error}; choose another place") from error


def _write_webm(pixels: np.ndarray, path: Path, fps: float, note: str) -> None:
    # Without alpha where all is opaque: such a file is smaller, and plays everywhere.
    opaque_throughout = pixels.shape[-1] == 4 and (pixels[..., 3] == 255).all()
    write_webm(pixels[..., :3] if opaque_throughout else pixels, path, fps, note)


def _write_sheet(pixels: np.ndarray, path: Path, fps: float, note: str, *, background: str) -> None:
    contact_sheet(pixels, fps=fps, background=background).save(path, "PNG", **picture_options("PNG", note))


def _write_folder(pixels: np.ndarray, path: Path, fps: float, note: str) -> None:
    path.mkdir()
    for i, frame in enumerate(pixels):
        Image.fromarray(frame).save(path / f"{i:05d}.png")
    write_folder_note(path, note)
