"""Animated pictures by Pillow: WebP, APNG, GIF. They loop for ever, and last exactly frames / fps in total."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image, PngImagePlugin

from ..alpha import bleed, one_bit, opaque
from ..palette import nearest, palette_of
from .timing import delays

_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description><rdf:Alt>'
    '<rdf:li xml:lang="x-default">{}</rdf:li>'
    "</rdf:Alt></dc:description></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def write_webp(
    pixels: np.ndarray, file: Path | BinaryIO, fps: float, note: str,
    *, lossless: bool, quality: int = 90, alpha_quality: int = 100,
) -> None:  # fmt: skip
    """WebP, with alpha where the frames have it.

    Args:
        quality, alpha_quality: 0 to 100, where not lossless.
    """
    if pixels.shape[-1] == 4 and not lossless:
        pixels = bleed(pixels)
    pictures = [Image.fromarray(frame) for frame in pixels]
    pictures[0].save(
        file, "WEBP", save_all=True, append_images=pictures[1:], duration=delays(len(pixels), fps, 1000), loop=0,
        lossless=lossless, quality=quality, alpha_quality=alpha_quality, method=4, xmp=_XMP.format(escape(note)),
    )  # fmt: skip


def write_apng(pixels: np.ndarray, file: Path | BinaryIO, fps: float, note: str, *, colours: int | None = None) -> None:
    """Animated PNG, lossless unless brought to a palette.

    Args:
        colours: of a palette for the whole clip, with alpha, at most 256; None keeps all.
    """
    info = PngImagePlugin.PngInfo()
    info.add_itxt("Comment", note)
    options = {}
    if colours is None:
        pictures = [Image.fromarray(frame) for frame in pixels]
    else:
        table = palette_of(pixels, colours)
        pictures = [_indexed(index, table[:, :3]) for index in nearest(pixels, table)]
        options["transparency"] = table[:, 3].tobytes()
    pictures[0].save(
        file, "PNG", save_all=True, append_images=pictures[1:], duration=delays(len(pixels), fps, 1000), loop=0,
        disposal=PngImagePlugin.Disposal.OP_NONE, blend=PngImagePlugin.Blend.OP_SOURCE, pnginfo=info, **options,
    )  # fmt: skip


def write_gif(
    pixels: np.ndarray, file: Path | BinaryIO, fps: float, note: str,
    *, background: str | None = None, colours: int = 256, dither: bool = True,
) -> None:  # fmt: skip
    """GIF: one palette for the whole clip, so that colours don't flicker; pixels are shown or not, see `one_bit`.

    Args:
        background: where given, what half transparent pixels are laid over before they are shown.
        colours: of the palette, 2 to 256, the transparent one among them.
        dither: colours between those of the palette, by error diffusion.
    """
    transparent = pixels.shape[-1] == 4
    shown = np.stack([one_bit(frame[..., 3]) for frame in pixels]) if transparent else None
    if not transparent:
        solid = pixels
    elif background is None:
        solid = bleed(pixels)[..., :3]  # errors are diffused from unseen pixels too
    else:
        solid = opaque(pixels, background)
    table, palette = _gif_palette(solid if shown is None else solid[shown], colours - transparent)
    clear, options = len(table), {}
    if transparent:
        spare = next(gray for gray in range(256) if not (table == gray).all(axis=1).any())
        table, options = np.vstack([table, np.full(3, spare, np.uint8)]), {"transparency": clear, "disposal": 2}
    pictures = []
    method = Image.Dither.FLOYDSTEINBERG if dither else Image.Dither.NONE
    for i, frame in enumerate(solid):
        index = np.array(Image.fromarray(np.ascontiguousarray(frame)).quantize(palette=palette, dither=method))
        if shown is not None:
            index[~shown[i]] = clear
        pictures.append(_indexed(index, table))
    pictures[0].save(
        file, "GIF", save_all=True, append_images=pictures[1:], loop=0, optimize=False, comment=note.encode(),
        duration=[10 * delay for delay in delays(len(pixels), fps, 100)], palette=table.tobytes(), **options,
    )  # fmt: skip


def _gif_palette(pixels: np.ndarray, colours: int) -> tuple[np.ndarray, Image.Image]:
    """A palette for opaque colours: as an array, (colours, 3), and as Pillow takes it."""
    flat = pixels.reshape(-1, 3)
    flat = flat if len(flat) else np.zeros((1, 3), np.uint8)
    sample = np.ascontiguousarray(flat[:: max(1, len(flat) // 2**17)])
    chosen = Image.fromarray(sample[None]).quantize(colours, method=Image.Quantize.MEDIANCUT, kmeans=1)
    # Each colour once: Pillow finds the entries again by their colours.
    table = np.unique(np.array(chosen.getpalette(), np.uint8).reshape(-1, 3), axis=0)
    palette = Image.new("P", (1, 1))
    palette.putpalette(table.tobytes())
    return table, palette


def _indexed(index: np.ndarray, table: np.ndarray) -> Image.Image:
    picture = Image.fromarray(index).convert("P")
    picture.putpalette(np.ascontiguousarray(table).tobytes())
    return picture
