"""Pictures that models without a prompt start from: of a folder, or the first frames of other clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from openlumiere.errors import LumiereError
from openlumiere.files import replacing
from openlumiere.study.pairs import prompt_key
from openlumiere.video import PICTURE_SUFFIXES, read_picture

from .prompts import Shot


def pictures_of(folder: Path, shots: Sequence[Shot]) -> dict[str, Path]:
    """Find a picture for each prompt: the one that is named after it, or, if none is, those of a folder in order.

    Returns:
        Pictures by `Shot.key`.

    Raises:
        LumiereError: no folder, a prompt without a picture, or, where none is named after one, another number of them.
    """
    if not folder.is_dir():
        raise LumiereError(f"{folder} is not a folder of pictures; check the name")
    suffixes = PICTURE_SUFFIXES | {".jpg", ".jpeg"}
    pictures = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes]
    keys = list(dict.fromkeys(shot.key for shot in shots))
    named = {prompt_key(path.stem): path for path in pictures}
    if not set(keys) & set(named):
        if len(pictures) != len(keys):
            raise LumiereError(
                f"{folder} holds {len(pictures)} pictures for {len(keys)} prompts, none named after one; name them so"
            )
        return dict(zip(keys, pictures, strict=True))
    missing = next((key for key in keys if key not in named), None)
    if missing is not None:
        raise LumiereError(f"no picture in {folder} is named after the prompt {missing!r}; add it")
    return {key: named[key] for key in keys}


def first_frame(clip: Path, picture: Path) -> Path:
    """Write a clip's first frame as PNG, unless it is there and younger than the clip.

    Raises:
        LumiereError: the clip cannot be read.
    """
    if not picture.exists() or picture.stat().st_mtime < clip.stat().st_mtime:
        frame = read_picture(clip)
        with replacing(picture) as partial:
            frame.save(partial, format="PNG")
    return picture
