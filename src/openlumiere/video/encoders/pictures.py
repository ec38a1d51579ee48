"""Animated pictures by Pillow: WebP, APNG, GIF. They loop for ever, and last exactly frames / fps in total."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from openlumiere.video.alpha import bleed, one_bit, opaque
from openlumiere.video.metadata import picture_options

from .timing import delays

_WEBP_FLAGS, _WEBP_ALPHA = 20, 0x10  # where the header of an extended WebP has its flags, and which says alpha


def write_webp(
    pixels: np.ndarray, file: Path | BinaryIO, fps: float, note: str,
    *, lossless: bool, quality: int = 90, alpha_quality: int = 100, method: int = 4,
) -> None:  # fmt: skip
    """Write WebP, with alpha where the frames have it.

    Args:
        quality, alpha_quality: 0 to 100, where not lossless; there quality is effort: 0 is the quickest.
        method: 0 is the quickest, 6 the smallest file.
    """
    if pixels.shape[-1] == 4 and not lossless:
        pixels = bleed(pixels)
    images, encoded = [Image.fromarray(frame) for frame in pixels], io.BytesIO()
    images[0].save(
        encoded, "WEBP", save_all=True, append_images=images[1:], duration=delays(len(pixels), fps, 1000), loop=0,
        lossless=lossless, quality=quality, alpha_quality=alpha_quality, method=method, **picture_options("WEBP", note),
    )  # fmt: skip
    data = bytearray(encoded.getvalue())
    if pixels.shape[-1] == 4 and data[12:16] == b"VP8X":
        # libwebp cuts frames to what is not transparent, and takes clips for opaque of which that is a rectangle.
        data[_WEBP_FLAGS] |= _WEBP_ALPHA
    if isinstance(file, Path):
        file.write_bytes(data)
    else:
        file.write(data)


def write_apng(pixels: np.ndarray, file: Path | BinaryIO, fps: float, note: str) -> None:
    """Write animated PNG, without loss."""
    _save_apng([Image.fromarray(frame) for frame in pixels], file, fps, note)


def write_indexed_apng(index: np.ndarray, table: np.ndarray, file: Path | BinaryIO, fps: float, note: str) -> None:
    """Write animated PNG with a palette: uint8 (frames, height, width) into (colours, 4), straight alpha."""
    images = [_indexed(frame, table[:, :3]) for frame in index]
    _save_apng(images, file, fps, note, transparency=table[:, 3].tobytes())


def _save_apng(images: list[Image.Image], file: Path | BinaryIO, fps: float, note: str, **options: Any) -> None:
    images[0].save(
        file, "PNG", save_all=True, append_images=images[1:], duration=delays(len(images), fps, 1000), loop=0,
        disposal=PngImagePlugin.Disposal.OP_NONE, blend=PngImagePlugin.Blend.OP_SOURCE,
        **picture_options("PNG", note), **options,
    )  # fmt: skip


def write_gif(
    pixels: np.ndarray, file: Path | BinaryIO, fps: float, note: str, *, background: str | None = None
) -> None:
    """Write GIF: one palette for the whole clip, so that colours don't flicker, and dithered by error diffusion.

    Args:
        background: where given, what half transparent pixels are laid over before they are shown.
    """
    if pixels.shape[-1] == 3:
        solid, shown = pixels, None
        table, palette = _gif_palette(solid, 256)
    else:
        flat = one_bit_frames(pixels, background)
        solid, shown = flat[..., :3], flat[..., 3] > 0
        table, palette = _gif_palette(solid[shown], 255)
    clear = len(table)
    index = np.stack([
        np.asarray(Image.fromarray(np.ascontiguousarray(frame)).quantize(palette=palette)) for frame in solid
    ])  # fmt: skip
    if shown is None:
        _save_gif(index, table, None, file, fps, note)
    else:
        index = np.where(shown, index, clear).astype(np.uint8)
        _save_gif(index, np.vstack([table, np.zeros((1, 3), np.uint8)]), clear, file, fps, note)


def one_bit_frames(pixels: np.ndarray, background: str | None) -> np.ndarray:
    """Bring alpha to 0 or 255, see `one_bit`: uint8, (frames, height, width, 4) -> the same.

    Args:
        background: where given, what half transparent pixels are laid over.
    """
    # Bled, as errors are diffused from unseen pixels too.
    solid = bleed(pixels)[..., :3] if background is None else opaque(pixels, background)
    shown = np.stack([one_bit(frame[..., 3]) for frame in pixels])
    return np.concatenate([solid, np.where(shown, 255, 0).astype(np.uint8)[..., None]], -1)


def write_indexed_gif(index: np.ndarray, table: np.ndarray, file: Path | BinaryIO, fps: float, note: str) -> None:
    """Write GIF with a given palette: uint8 (frames, height, width) into (colours, 4); alpha 0 is transparent."""
    clear = int(np.argmin(table[:, 3])) if (table[:, 3] == 0).any() else None
    _save_gif(index, table[:, :3], clear, file, fps, note)


def _save_gif(
    index: np.ndarray, table: np.ndarray, clear: int | None, file: Path | BinaryIO, fps: float, note: str
) -> None:
    options: dict[str, Any] = {}
    if clear is not None:  # each colour once: Pillow finds the entries again by their colours
        others = np.delete(table, clear, 0)
        table = table.copy()
        table[clear] = next(gray for gray in range(256) if not (others == gray).all(axis=1).any())
        options = {"transparency": clear, "disposal": 2}
    images = [_indexed(frame, table) for frame in index]
    images[0].save(
        file, "GIF", save_all=True, append_images=images[1:], loop=0, optimize=False,
        duration=[10 * delay for delay in delays(len(images), fps, 100)], palette=table.tobytes(),
        **picture_options("GIF", note), **options,
    )  # fmt: skip


def _gif_palette(pixels: np.ndarray, colours: int) -> tuple[np.ndarray, Image.Image]:
    """Choose a palette for opaque colours: as an array, (colours, 3), and as Pillow takes it."""
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
    image = Image.fromarray(index).convert("P")
    image.putpalette(np.ascontiguousarray(table).tobytes())
    return image
