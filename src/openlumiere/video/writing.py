"""Writing clips: MP4, WebP, GIF, contact sheets and folders of frames.

Every file carries one JSON note, where its format keeps comments: ``{"fps", "num_frames", "metadata"}``. Files are
written beside their place and renamed, so that a half-written one is never found under its name.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from openlumiere.errors import LumiereError

# Highest rate that players honour: browsers show delays of 10 ms and less as 100 ms.
_MAX_FPS = {".mp4": 240, ".mov": 240, ".webp": 90, ".gif": 50, ".png": 1000, "": 1000}
# x264's constant rate factor: flat colours come back within a level or two.
_CRF = "12"
# Larger WebP files are stored with loss (4:2:0 chroma), which small pictures would not survive.
_LOSSLESS_WEBP_SIDE = 160
_CELL = (128, 256)
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description><rdf:Alt>'
    '<rdf:li xml:lang="x-default">{}</rdf:li>'
    "</rdf:Alt></dc:description></rdf:Description></rdf:RDF></x:xmpmeta>"
)
_BT709 = 1  # code of ITU-T H.273


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
    """The path and the kind of file to write there: its suffix in lower case, "" for a folder of frames."""
    suffix = "" if str(path).endswith(("/", os.sep)) else Path(path).suffix.lower()
    if suffix not in _MAX_FPS:
        known = ", ".join(filter(None, _MAX_FPS))
        raise LumiereError(f"cannot write {suffix} files; choose one of {known}, or end the name with / for a folder")
    return Path(path), suffix


def _is_ours(path: Path) -> bool:
    return path.name == "metadata.json" or (path.suffix == ".png" and path.stem.isdigit())


def write_clip(
    frames: np.ndarray,
    path: str | Path,
    *,
    fps: float = 16,
    metadata: Mapping[str, str | int | float] | None = None,
    min_side: int = 0,
    lossless: bool = False,
) -> Path:
    """Write a clip in the format that the suffix names, beside its place first, then renamed.

    - ``.mp4``: H.264, yuv420p, BT.709, index first; odd sizes grow by a copy of the last row or column,
      transparency is laid over white.
    - ``.mov``: ProRes 4444, for editing programs; keeps transparency.
    - ``.webp``, ``.gif``: loop for ever, keep transparency (in a GIF as on or off), last exactly frames / fps
      in total. WebP is lossless up to 160 pixels.
    - ``.png``: a contact sheet, see `contact_sheet`.
    - no suffix, or a trailing slash: a folder of PNG frames with ``metadata.json``.

    Args:
        frames: (frames, height, width, 3 or 4), float in [0, 1] or uint8.
        fps: frames per second.
        metadata: kept in the file, see `read_metadata`.
        min_side: enlarge clips whose shorter side (pixels) is below this by a whole factor with nearest
            neighbour, as players blur tiny clips.
        lossless: keep every pixel whatever the size, where the format can: WebP and frames.

    Returns:
        The path written.

    Raises:
        LumiereError: bad frames, fps or path; a full disk or any other failure to write, after which nothing
            is left behind.
    """
    path, suffix = check_writable(path), _target(path)[1]
    if not 0 < fps <= _MAX_FPS[suffix]:
        kind = suffix or "a folder"
        raise LumiereError(f"{fps} frames per second: {kind} plays more than 0 and at most {_MAX_FPS[suffix]}")
    pixels = _as_uint8(frames)
    side = min(pixels.shape[1:3])
    if side < min_side:
        factor = math.ceil(min_side / side)
        pixels = pixels.repeat(factor, axis=1).repeat(factor, axis=2)
    # ASCII alone passes through every container.
    note = json.dumps({"fps": float(fps), "num_frames": len(pixels), "metadata": dict(metadata or {})})
    webp = partial(_write_webp, lossless=lossless or max(pixels.shape[1:3]) <= _LOSSLESS_WEBP_SIDE)
    write: dict[str, Callable[[np.ndarray, Path, float, str], None]] = {
        ".mp4": _write_mp4, ".mov": _write_mov, ".webp": webp, ".gif": _write_gif, ".png": _write_sheet,
        "": _write_folder,
    }  # fmt: skip
    with _beside(path) as unfinished:
        write[suffix](pixels, unfinished, float(fps), note)
    return path


def _as_uint8(frames: np.ndarray) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] not in (3, 4) or 0 in frames.shape:
        raise LumiereError(f"frames of shape {frames.shape}: give (frames, height, width, 3 or 4), none of them 0")
    if frames.dtype == np.uint8:
        return frames
    if not np.issubdtype(frames.dtype, np.floating):
        raise LumiereError(f"frames of type {frames.dtype}: give floats in [0, 1] or uint8")
    if not np.isfinite(frames).all():
        raise LumiereError("frames hold values that are not numbers; sample again in float32 (--dtype float32)")
    return (frames.astype(np.float32) * 255.0).round().clip(0, 255).astype(np.uint8)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A hidden name in the same folder, renamed to `path` at the end, and gone if anything fails."""
    from av import FFmpegError

    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        if path.is_dir():  # a folder cannot be replaced in one step
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            os.replace(path, old)
            os.replace(partial, path)
            shutil.rmtree(old)
        else:
            os.replace(partial, path)
    except (OSError, FFmpegError) as error:
        if error.errno in _DISK_FULL:
            raise LumiereError(f"no space left for {path}; free some, or write to another disk") from error
        raise LumiereError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def opaque(pixels: np.ndarray) -> np.ndarray:
    """Lay transparent pixels over white: uint8 (..., 4) or (..., 3) -> (..., 3)."""
    if pixels.shape[-1] == 3:
        return np.ascontiguousarray(pixels)
    alpha = pixels[..., 3:].astype(np.float32) / 255.0
    return (pixels[..., :3] * alpha + 255.0 * (1.0 - alpha)).round().astype(np.uint8)


def _delays(count: int, fps: float, ticks: int) -> list[int]:
    """Frames' delays in ticks of 1/`ticks` s, rounded so that their sum, at every frame, is the true time."""
    ends = [math.floor(i * ticks / fps + 0.5) for i in range(count + 1)]
    return [b - a for a, b in pairwise(ends)]


def _write_mp4(pixels: np.ndarray, path: Path, fps: float, note: str) -> None:
    height, width = pixels.shape[1:3]
    even = ((0, height % 2), (0, width % 2), (0, 0))
    frames = (np.pad(opaque(picture), even, mode="edge") for picture in pixels)
    options = {"crf": _CRF, "preset": "medium"}
    _encode(frames, path, fps, note, container="mp4", codec="libx264", pix_fmt="yuv420p", options=options)


def _write_mov(pixels: np.ndarray, path: Path, fps: float, note: str) -> None:
    transparent = pixels.shape[-1] == 4
    pix_fmt = "yuva444p10le" if transparent else "yuv444p10le"
    options = {"profile": "4444", "vendor": "apl0"}
    _encode(iter(pixels), path, fps, note, container="mov", codec="prores_ks", pix_fmt=pix_fmt, options=options)


def _encode(
    frames: Iterator[np.ndarray], path: Path, fps: float, note: str,
    *, container: str, codec: str, pix_fmt: str, options: dict[str, str],
) -> None:  # fmt: skip
    """A video in BT.709 colours, its index first."""
    import av
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

    rate = Fraction(fps).limit_denominator(1001)
    first = next(frames)
    with av.open(str(path), "w", format=container, options={"movflags": "+faststart"}) as file:
        file.metadata["comment"] = note
        stream = file.add_stream(codec, rate=rate, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = *first.shape[:2], pix_fmt
        context = stream.codec_context
        context.time_base = 1 / rate
        context.colorspace, context.color_range = _BT709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        for i, picture in enumerate(chain([first], frames)):
            colours = "rgba" if picture.shape[-1] == 4 else "rgb24"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=colours).reformat(
                format=pix_fmt,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
            )
            frame.pts, frame.time_base = i, 1 / rate
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def _write_webp(pixels: np.ndarray, path: Path, fps: float, note: str, *, lossless: bool) -> None:
    pictures = [Image.fromarray(frame) for frame in pixels]
    pictures[0].save(
        path, "WEBP", save_all=True, append_images=pictures[1:], duration=_delays(len(pixels), fps, 1000), loop=0,
        lossless=lossless, quality=90, method=4, xmp=_XMP.format(escape(note)),
    )  # fmt: skip


def _write_gif(pixels: np.ndarray, path: Path, fps: float, note: str) -> None:
    transparent = pixels.shape[-1] == 4
    colors = pixels[..., :3][pixels[..., 3] >= 128] if transparent else pixels.reshape(-1, 3)
    colors = colors if len(colors) else np.zeros((1, 3), np.uint8)
    # One palette for the whole clip, so that colours don't flicker.
    sample = np.ascontiguousarray(colors[:: max(1, len(colors) // 2**17)])
    chosen = Image.fromarray(sample[None]).quantize(256 - transparent, method=Image.Quantize.MEDIANCUT, kmeans=1)
    # Each colour once: Pillow finds the entries again by their colours.
    table = np.unique(np.array(chosen.getpalette(), np.uint8).reshape(-1, 3), axis=0)
    palette = Image.new("P", (1, 1))
    palette.putpalette(table.tobytes())
    clear, options = len(table), {}
    if transparent:
        spare = next(gray for gray in range(256) if not (table == gray).all(axis=1).any())
        table, options = np.vstack([table, np.full(3, spare, np.uint8)]), {"transparency": clear, "disposal": 2}
    pictures = []
    for frame in pixels:
        visible = Image.fromarray(np.ascontiguousarray(frame[..., :3]))
        index = np.array(visible.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG))
        if transparent:
            index[frame[..., 3] < 128] = clear
        pictures.append(Image.fromarray(index).convert("P"))
        pictures[-1].putpalette(table.tobytes())
    pictures[0].save(
        path, "GIF", save_all=True, append_images=pictures[1:], loop=0, optimize=False, comment=note.encode(),
        duration=[10 * delay for delay in _delays(len(pixels), fps, 100)], palette=table.tobytes(), **options,
    )  # fmt: skip


def _write_sheet(pixels: np.ndarray, path: Path, fps: float, note: str) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("Comment", note)
    contact_sheet(pixels, fps=fps).save(path, "PNG", pnginfo=info)


def _write_folder(pixels: np.ndarray, path: Path, fps: float, note: str) -> None:
    path.mkdir()
    for i, frame in enumerate(pixels):
        Image.fromarray(frame).save(path / f"{i:05d}.png")
    (path / "metadata.json").write_text(json.dumps(json.loads(note), indent=2) + "\n", encoding="utf-8")


def contact_sheet(
    frames: np.ndarray, columns: int = 10, *, rows: int = 2, fps: float = 16, gap: int = 4
) -> Image.Image:
    """Rows of evenly spaced frames, each with its time in seconds beneath.

    Args:
        frames: as for `write_clip`. Small ones are enlarged by a whole factor, large ones shrunk to 256 pixels.
        columns: frames in a row, fewer if the clip is shorter.
        rows: rows at most.
        gap: pixels between frames.

    Returns:
        An RGB picture on a light grey, from which white frames stand out.
    """
    if columns < 1 or rows < 1 or gap < 0 or fps <= 0:
        raise LumiereError(f"a contact sheet of {rows} rows, {columns} columns, gap {gap}, {fps} fps: too small")
    pixels = _as_uint8(frames)
    shown = min(len(pixels), columns * rows)
    columns = min(columns, shown)
    height, width = pixels.shape[1:3]
    scale = max(1, _CELL[0] // max(height, width)) if max(height, width) <= _CELL[1] else _CELL[1] / max(height, width)
    cell = (max(round(width * scale), 1), max(round(height * scale), 1))
    text = max(11, min(cell[0] // 9, 20))
    font = ImageFont.load_default(text)
    pitch = (cell[0] + gap, cell[1] + round(1.7 * text) + gap)
    margin = 2 * gap
    size = (columns * pitch[0] - gap + 2 * margin, math.ceil(shown / columns) * pitch[1] - gap + 2 * margin)
    sheet = Image.new("RGB", size, (240, 240, 242))
    pen = ImageDraw.Draw(sheet)
    for k in range(shown):
        index = k * len(pixels) // shown
        picture = Image.fromarray(opaque(pixels[index]))
        picture = picture.resize(cell, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)
        x, y = margin + k % columns * pitch[0], margin + k // columns * pitch[1]
        sheet.paste(picture, (x, y))
        label = f"{index / fps:.2f} s"
        pen.text((x + cell[0] / 2, y + cell[1] + 0.3 * text), label, font=font, fill=(96, 96, 96), anchor="ma")
    return sheet
