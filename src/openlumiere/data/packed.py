"""`lumiere data pack`: what a training needs, in a few small files for a machine without a network.

- ``emoji-packed-0000.tar``, ...: the chosen subjects' loops, as `lumiere data emoji` writes them, but lossy WebP.
- ``pictures-train-0000.tar``, ``pictures-test-0000.tar``, ...: a selection of artwork, ``SOURCE/00000.webp``.
- ``text/``: the text encoder in few bits, which knows the words of the data set alone.

`emoji.shards.iterate` and `artwork.Artwork` read such a folder as they read those that it was made of.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from openlumiere.errors import LumiereError
from openlumiere.files import one_line, replacing
from openlumiere.packing import PART_BYTES

from .emoji.designs import UNSEEN
from .emoji.shards import FPS, add_member, decode_loop, iterate
from .emoji.vocabulary import vocabulary

_TAR_MEMBER = 2 * 512  # a member's header, and at most so much to fill its last block
_TAR_END = 10240
_METHOD = 4  # of WebP's encoder: slower ones gain little


@dataclass(frozen=True)
class Packed:
    """What was written: the files, and the PSNR of lossy WebP, of premultiplied RGBA, in dB."""

    files: list[Path]
    psnr: float


def pack_loops(
    folder: Path, out: Path, *, subjects: list[str], quality: int = 90, part_bytes: int = PART_BYTES
) -> Packed:
    """Write some subjects' loops as lossy WebP; alpha stays exact.

    Args:
        folder: shards made by `lumiere data emoji`.
        subjects: keys of the vocabulary.
        quality: WebP's, 0 to 100.
        part_bytes: most that a file may hold.

    Raises:
        LumiereError: a subject is missing, or a loop is larger than a file may be; older files are then left.
    """
    words = vocabulary()["subjects"]
    codes = {words[subject]["emoji"]: subject for subject in subjects}
    errors, side = [], 0

    def samples() -> Iterator[list[tuple[str, bytes]]]:
        nonlocal side
        for meta, frames in tqdm(iterate(folder, list(codes)), total=len(codes), desc="loops", unit="loop"):
            side = meta["size"]
            images = [Image.fromarray(frame) for frame in frames]
            buffer = io.BytesIO()
            images[0].save(
                buffer, "WEBP", save_all=True, append_images=images[1:], duration=1000 // FPS, loop=0,
                quality=quality, method=_METHOD, use_sharp_yuv=True,
            )  # fmt: skip
            again = decode_loop(buffer.getvalue(), size=side, count=len(frames))
            errors.append(float(np.square(_premultiplied(again) - _premultiplied(frames)).mean()))
            found.add(codes[meta["emoji"]])
            described = json.dumps(meta, ensure_ascii=False).encode()
            yield [(f"{meta['emoji']}.webp", buffer.getvalue()), (f"{meta['emoji']}.json", described)]
        if missing := sorted(set(subjects) - found):
            raise LumiereError(
                f"{folder} lacks the subjects {missing}; make it anew with: lumiere data emoji -o {folder}"
            )

    found: set[str] = set()
    files = _write_tars(out, "emoji-packed", samples(), part_bytes)
    return Packed(files, _psnr(errors))


def pack_artwork(
    folder: Path, out: Path, *, count: int = 2000, size: int = 192, quality: int = 90, part_bytes: int = PART_BYTES
) -> Packed:
    """Write a selection of artwork as lossy WebP, the same share of each source, and a sixteenth as much to test on.

    Args:
        folder: arrays made by `lumiere data artwork`.
        count: pieces of artwork to train on.
        size: side of each in pixels.
        quality, part_bytes: see `pack_loops`.
    """
    errors: list[float] = []
    files: list[Path] = []
    for split, wanted in (("train", count), ("test", max(count // 16, 1))):
        arrays = {path.name.partition(".")[0]: np.load(path, mmap_mode="r") for path in folder.glob(f"*.{split}.npy")}
        arrays = {name: arrays[name] for name in sorted(arrays) if name not in UNSEEN and len(arrays[name])}
        if not arrays:
            raise LumiereError(f"{folder} holds no artwork; make it with: lumiere data artwork -o {folder}")
        share = min(wanted / sum(len(array) for array in arrays.values()), 1.0)
        chosen = [
            (name, array, int(number))
            for name, array in arrays.items()
            for number in np.linspace(0, len(array) - 1, max(round(len(array) * share), 1)).round()
        ]

        def samples(chosen: list[tuple[str, np.ndarray, int]] = chosen) -> Iterator[list[tuple[str, bytes]]]:
            for name, array, number in tqdm(chosen, desc="artwork"):
                yield [(f"{name}/{number:05d}.webp", _encoded(array[number], size, quality, errors))]

        files += _write_tars(out, f"pictures-{split}", samples(), part_bytes)
    return Packed(files, _psnr(errors))


def holds_packed(folder: Path) -> bool:
    """Return whether `pack_artwork` wrote there."""
    return any(folder.glob("pictures-*.tar"))


def read_packed(folder: Path, split: str) -> dict[str, np.ndarray]:
    """Read the artwork that `pack_artwork` wrote, by source: premultiplied RGBA, uint8, (N, 4, size, size).

    Raises:
        LumiereError: a file is damaged.
    """
    found: dict[str, list[np.ndarray]] = {}
    for path in sorted(folder.glob(f"pictures-{split}-*.tar")):
        try:
            with tarfile.open(path) as tar:
                for member in tar:
                    data = tar.extractfile(member).read()  # type: ignore[union-attr]
                    artwork = Image.open(io.BytesIO(data)).convert("RGBA").convert("RGBa")
                    found.setdefault(member.name.partition("/")[0], []).append(np.asarray(artwork).transpose(2, 0, 1))
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            raise LumiereError(f"{path} is damaged ({one_line(error)}); copy it anew") from error
    return {name: np.stack(artwork) for name, artwork in found.items()}


def _premultiplied(rgba: np.ndarray) -> np.ndarray:
    """Multiply RGBA, uint8, (..., 4), by its alpha: float in [0, 1]."""
    values = rgba.astype(np.float32) / 255
    return np.concatenate([values[..., :3] * values[..., 3:], values[..., 3:]], axis=-1)


def _encoded(artwork: np.ndarray, size: int, quality: int, errors: list[float]) -> bytes:
    """Encode premultiplied RGBA, (4, S, S), as WebP of at most `size` pixels; its squared error goes to `errors`."""
    whole = Image.frombytes("RGBa", artwork.shape[:0:-1], np.ascontiguousarray(artwork.transpose(1, 2, 0)).tobytes())
    small = whole.resize((size, size), Image.Resampling.BOX) if artwork.shape[-1] > size else whole
    buffer = io.BytesIO()
    small.convert("RGBA").save(buffer, "WEBP", quality=quality, method=_METHOD, use_sharp_yuv=True)
    again = Image.open(buffer).convert("RGBA").convert("RGBa")
    errors.append(float(np.square((np.asarray(again, np.float32) - np.asarray(small, np.float32)) / 255).mean()))
    return buffer.getvalue()


def _psnr(errors: list[float]) -> float:
    return float(-10 * np.log10(max(float(np.mean(errors)), 1e-12)))


def _write_tars(out: Path, stem: str, samples: Iterable[list[tuple[str, bytes]]], part_bytes: int) -> list[Path]:
    """Write samples into as many tar files as it takes; a sample's members stay together.

    Older files of the stem are replaced when all new ones are whole.
    """
    files: list[Path] = []
    with ExitStack() as unfinished:
        tar, filled = None, 0
        for sample in samples:
            more = sum(len(data) + _TAR_MEMBER for _, data in sample)
            if more + _TAR_END > part_bytes:
                raise LumiereError(f"{sample[0][0]} takes {more} bytes, a file at most {part_bytes}: lower the quality")
            if tar is None or filled + more + _TAR_END > part_bytes:
                if tar is not None:
                    tar.close()
                files.append(out / f"{stem}-{len(files):04d}.tar")
                partial = unfinished.enter_context(replacing(files[-1]))
                tar, filled = unfinished.enter_context(tarfile.open(partial, "w")), 0
            for name, data in sample:
                add_member(tar, name, data)
            filled += more
    for old in set(out.glob(f"{stem}-*.tar")) - set(files):
        old.unlink()
    return files
