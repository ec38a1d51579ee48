"""`lumiere data designs`: the emoji of the data set as others draw them, for styles.

Flat and high-contrast Fluent Emoji (MIT), Noto Emoji (Apache 2.0) and Twemoji (CC-BY 4.0), as Iconify packs them for
npm; and a pencil sketch, made of the animated emoji's own first frames. Each design is a folder of PNG files with
transparency, one for each subject of the vocabulary, named by its key.
"""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps
from tqdm import tqdm

from openlumiere.errors import LumiereError
from openlumiere.files import replacing

from .shards import fetch_package, iterate
from .vocabulary import vocabulary

SKETCH = "sketch"


@dataclass(frozen=True)
class Design:
    """An icon set of npm: its package, version and licence."""

    package: str
    version: str
    licence: str


DESIGNS = {
    "flat": Design("@iconify-json/fluent-emoji-flat", "1.2.6", "MIT"),
    "high-contrast": Design("@iconify-json/fluent-emoji-high-contrast", "1.2.6", "MIT"),
    "noto": Design("@iconify-json/noto", "1.2.9", "Apache-2.0"),
    "twemoji": Design("@iconify-json/twemoji", "1.2.5", "CC-BY-4.0"),
}
# Never trained on: kinds of drawing that the autoencoder has not seen.
UNSEEN = {
    "fxemoji": Design("@iconify-json/fxemoji", "1.2.2", "Apache-2.0"),
    "meteocons": Design("@iconify-json/meteocons", "1.2.4", "MIT"),
}


def build(out: Path, *, emoji: Path | None = None, size: int = 128, cache: Path | None = None) -> dict[str, list[str]]:
    """Fetch and rasterise every design.

    Args:
        out: folder for the designs' folders.
        emoji: folder that `lumiere data emoji` wrote, for the sketch; None = leave that out.
        size: side of the images in pixels.
        cache: folder with, or for, the npm packages' archives.

    Returns:
        For each design the subjects that it lacks.
    """
    lacking: dict[str, list[str]] = {}
    for name, design in tqdm(DESIGNS.items(), desc="drawing", unit="design"):
        archive = fetch_package(design.package, design.version, cache or out / "packages")
        lacking[name] = _rasterise(archive, out / name, size)
    if emoji is not None:
        _sketch(emoji, out / SKETCH, size)
    return lacking


def _rasterise(archive: Path, folder: Path, size: int) -> list[str]:
    """Draw a design's subjects; return those that it lacks."""
    icons, codes = icon_set(archive)
    lacking = []
    for key, entry in vocabulary()["subjects"].items():
        code = entry["emoji"]
        icon = codes.get(code) or codes.get(code.removesuffix("-fe0f"))
        if icon is None or icon not in icons["icons"]:
            lacking.append(key)
            continue
        _save(draw_icon(icons, icon, size), folder / f"{key}.png")
    return lacking


def icon_set(archive: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read an Iconify package: its icons, and the names of those that have code points, by code points."""
    with tarfile.open(archive) as tar:
        icons = json.loads(_member(tar, "package/icons.json"))
        # Sets that are no emoji have no code points.
        names = tar.getnames()
        return icons, json.loads(_member(tar, "package/chars.json")) if "package/chars.json" in names else {}


def draw_icon(icons: dict[str, Any], name: str, size: int) -> Image.Image:
    """Draw one icon of a set as RGBA, `size` pixels wide and high."""
    import resvg_py

    drawn = icons["icons"][name]
    width, height = (drawn.get(side, icons.get(side, 16)) for side in ("width", "height"))
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    svg = f'<svg {spaces} viewBox="0 0 {width} {height}">{drawn["body"]}</svg>'
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size))))


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise LumiereError(f"{tar.name!r} lacks {name!s}: delete it and run the command again")
    return file.read()


def _sketch(emoji: Path, folder: Path, size: int) -> None:
    """Draw the animated emoji in pencil: each first frame divided by its own blurred negative, as in darkrooms."""
    key_of = {entry["emoji"]: key for key, entry in vocabulary()["subjects"].items()}
    for meta, frames in iterate(emoji, list(key_of)):
        frame = Image.fromarray(frames[0]).resize((size, size), Image.Resampling.LANCZOS)
        _save(_pencil(frame), folder / f"{key_of[meta['emoji']]}.png")


def _pencil(frame: Image.Image) -> Image.Image:
    """Turn an RGBA frame into gray lines on white, transparent where the frame is."""
    paper = Image.alpha_composite(Image.new("RGBA", frame.size, "white"), frame).convert("L")
    blurred = ImageOps.invert(paper).filter(ImageFilter.GaussianBlur(frame.width / 32))
    light = np.asarray(paper, np.float32) * 255 / np.maximum(255 - np.asarray(blurred, np.float32), 1)
    lines = Image.fromarray(light.clip(0, 255).astype(np.uint8))
    edges = ImageOps.invert(frame.getchannel("A").filter(ImageFilter.FIND_EDGES))
    drawn = ImageChops.multiply(lines, edges).convert("RGBA")
    drawn.putalpha(frame.getchannel("A"))
    return drawn


def _save(image: Image.Image, path: Path) -> None:
    with replacing(path) as unfinished:
        image.save(unfinished, "PNG")
