"""What a classifier is shown of pictures and clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from openlumiere.video import read_clip, read_picture
from openlumiere.video.fitting import over
from openlumiere.video.opening import PICTURE_SUFFIXES, VIDEO_SUFFIXES, decoding_errors

_MOST = 4  # of a clip
_SIDE = 512  # pixels of the longer one


def stills(name: str, to: str) -> list[Path]:
    """Write some frames, evenly spread, as small JPEG files, over white where they are transparent.

    Args:
        name: of a picture, a clip or a folder of frames.
        to: begins the names of the new files.

    Raises:
        LumiereError: it cannot be read.
    """
    path, written = Path(name), []
    if _moves(path):
        frames = read_clip(path).frames
        chosen = np.unique(np.linspace(0, len(frames) - 1, min(_MOST, len(frames))).round().astype(int))
        pictures = [over(Image.fromarray(frames[index]), "white") for index in chosen]
    else:
        pictures = [read_picture(path)]
    for number, picture in enumerate(pictures):
        picture.thumbnail((_SIDE, _SIDE))
        written.append(Path(f"{to}-{number}.jpg"))
        picture.save(written[-1], quality=90)
    return written


def _moves(path: Path) -> bool:
    if path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES:
        return True
    with decoding_errors(path, "picture"), Image.open(path) as picture:
        return path.suffix.lower() in PICTURE_SUFFIXES and getattr(picture, "n_frames", 1) > 1
