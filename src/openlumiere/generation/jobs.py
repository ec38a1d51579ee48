"""The requests that one command makes: which prompts, seeds and files."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from .requests import EditRequest, GenerateRequest, Request, UpscaleRequest, random_seed

R = TypeVar("R", bound=Request)

_TRANSPARENT = re.compile(r"\b(transparent|no|without( an?y?)?) (background|backdrop)", re.IGNORECASE)
_OPAQUE_FORMATS = {".mp4", ".png"}


def asks_for_transparency(prompt: str) -> bool:
    """Return whether a prompt says "on a transparent background", "no background", "without a background"."""
    return _TRANSPARENT.search(prompt) is not None


def wants_alpha(request: Request) -> bool:
    """Return whether a clip is to be transparent: as told; else stickers, prompts that say so, and such sources are."""
    if request.transparent is not None:
        return request.transparent
    if request.sticker is not None or asks_for_transparency(request.prompt):
        return True
    return isinstance(request, EditRequest) and _shows_through(request.source)


def holds_alpha(request: Request) -> bool:
    """Return whether the format of the request's output holds transparency: all stickers' do."""
    output = request.output
    return request.sticker is not None or output.endswith("/") or Path(output).suffix.lower() not in _OPAQUE_FORMATS


def _shows_through(path: str) -> bool:
    from openlumiere.video import read_picture

    picture = read_picture(path, background=None)
    return "A" in picture.getbands() and min(picture.getchannel("A").getdata()) < 255


def from_prompt(request: GenerateRequest, *, count: int = 1) -> list[GenerateRequest]:
    """Return `count` requests of one prompt, seeds counting up.

    Without an `output` files are named after the prompt, and replace none.
    """
    return several(request, slug(request.prompt), count=count)


def from_source(request: EditRequest, *, count: int = 1) -> list[EditRequest]:
    """Return `count` requests of one picture or clip; without an `output` names say of which, and what is done."""
    return several(request, f"{Path(request.source).stem or 'clip'}.{request.task}", count=count)


def several(request: R, stem: str, *, count: int) -> list[R]:
    """Return `count` requests with seeds that count up, and names of their own."""
    seed = random_seed() if request.seed is None else request.seed
    if not request.output:
        names = free_names(stem, count, default_suffix(request))
    elif count == 1:
        names = [request.output]
    else:
        names = _numbered(request.output, count)
    return [replace(request, seed=seed + i, output=name) for i, name in enumerate(names)]


def default_suffix(request: Request) -> str:
    """Return the suffix of a file whose name is left to us: the sticker's, or one that holds the clip's alpha."""
    if request.sticker is not None:
        from openlumiere.video.stickers import target_for

        return target_for(request.sticker.target).suffixes[0]
    return ".webp" if wants_alpha(request) else ".mp4"


def sharp_name(request: UpscaleRequest) -> str:
    """Return a name for a sharper clip that replaces no file: in its own format if that holds as much, or a sticker's.

    Else WebP or MP4.
    """
    path = Path(request.source)
    is_folder = path.is_dir()
    if request.sticker is not None:
        suffix = default_suffix(request)
    elif is_folder:
        suffix = "/"
    elif path.suffix.lower() in (".webp", ".apng", ".webm", ".gif"):
        suffix = path.suffix
    else:
        suffix = ".webp" if request.transparent is not False and has_alpha(path) else ".mp4"
    return free_names(f"{path if is_folder else path.with_suffix('')}.sharp", 1, suffix)[0]


def has_alpha(clip: Path) -> bool:
    """Return whether a clip has an alpha channel.

    Raises:
        LumiereError: it cannot be read.
    """
    if clip.suffix.lower() == ".mp4":
        return False
    from openlumiere.video import read_clip

    return read_clip(clip).frames.shape[-1] == 4


def slug(prompt: str) -> str:
    """Return a file name without suffix: the prompt's letters and digits, words joined by dashes, at most 60."""
    return re.sub(r"[^\w]+|_", "-", prompt.lower()).strip("-")[:60].strip("-") or "clip"


def free_names(stem: str, count: int, suffix: str) -> list[str]:
    """Return `count` names that no file has: the stem, or the stem and a version, and a number where there are several.

    Args:
        stem: may begin with a folder.
        suffix: ``/`` for folders.
    """
    attempt = 1
    while True:
        base = f"{stem}{suffix}" if attempt == 1 else f"{stem}-v{attempt}{suffix}"
        names = [base] if count == 1 else _numbered(base, count)
        if not any(Path(name).exists() for name in names):
            return names
        attempt += 1


def _numbered(name: str, count: int) -> list[str]:
    slash = "/" if name.endswith("/") else ""
    path = Path(name)
    stem, suffix = (path.name, "") if slash else (path.stem, path.suffix)
    width = len(str(count - 1))
    return [f"{path.parent / f'{stem}-{i:0{width}d}{suffix}'}{slash}" for i in range(count)]
