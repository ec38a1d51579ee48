"""`lumiere data artwork`: artwork with transparency from many sources, for the autoencoder.

A model that knows its own emoji alone would spoil a user's picture, so the autoencoder sees far more: every animated
and every still 3-D emoji, other designs of them, and public-domain clip art. Each source is two arrays of premultiplied
RGBA, uint8, (N, 4, size, size), `SOURCE.train.npy` and `SOURCE.test.npy`, read without loading them whole. Whatever an
emoji's design, its code points decide in which split it is, so training never sees a subject of the test split.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from tqdm import tqdm

from openlumiere.errors import LumiereError
from openlumiere.files import remove_leftovers, replacing

from .emoji.designs import DESIGNS, UNSEEN, Design, draw_icon, icon_set
from .emoji.drawing import render
from .emoji.scenes import is_test_artwork
from .emoji.shards import SKIN_TONES, fetch_package, iterate
from .packed import holds_packed, read_packed

STILL = Design("@lobehub/fluent-emoji-3d", "1.1.0", "MIT")
_ANIMATED = "animated"
_FRAMES_OF_LOOP = 6  # of each animation: neighbours are too alike to teach more

# key of a piece of artwork, the artwork
Named = Iterator[tuple[str, Image.Image]]


def build(
    out: Path, *, emoji: Path, clip_art: Path | None = None, size: int = 256, cache: Path | None = None
) -> dict[str, tuple[int, int]]:
    """Fetch, draw and store every source; sources that are there are kept.

    Args:
        out: folder for the arrays.
        emoji: folder that `lumiere data emoji` wrote, for the animations.
        clip_art: folder of SVG files marked as public domain, such as Debian's openclipart-svg installs; None = none.
        size: side of the stored artwork in pixels.
        cache: folder with, or for, the npm packages' archives.

    Returns:
        For each source the number of pieces to train on, and to test on.
    """
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    packages = cache or out / "packages"
    sources: dict[str, Callable[[], Named]] = {
        _ANIMATED: lambda: _animated(emoji),
        "still": lambda: _still(packages),
        **{name: partial(_icons, design, packages, size) for name, design in (DESIGNS | UNSEEN).items()},
    }
    if clip_art is not None:
        sources["clip-art"] = lambda: _clip_art(clip_art, size)
    return {name: _store(out, name, artwork, size) for name, artwork in sources.items()}


def _store(out: Path, name: str, artwork: Callable[[], Named], size: int) -> tuple[int, int]:
    """Draw and store a source that is not there yet; return the number of pieces to train on, and to test on."""
    targets = [out / f"{name}.{split}.npy" for split in ("train", "test")]
    if not all(target.exists() for target in targets):
        kept: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for key, drawn in tqdm(artwork(), desc=name, unit="piece"):
            kept[name in UNSEEN or is_test_artwork(key)].append(in_square(drawn, size))
        for target, arrays in zip(targets, kept, strict=True):
            with replacing(target) as unfinished, unfinished.open("wb") as file:
                np.save(file, np.stack(arrays) if arrays else np.zeros((0, 4, size, size), np.uint8))
    train, test = (len(np.load(target, mmap_mode="r")) for target in targets)
    return train, test


def in_square(artwork: Image.Image, size: int) -> np.ndarray:
    """Fit artwork into a transparent square, at its centre: premultiplied RGBA, (4, size, size), uint8."""
    rgba = artwork.convert("RGBA").convert("RGBa")
    scale = size / max(rgba.size)
    small = rgba.resize([max(round(side * scale), 1) for side in rgba.size], Image.Resampling.LANCZOS)
    square = np.zeros((size, size, 4), np.uint8)
    top, left = (size - small.height) // 2, (size - small.width) // 2
    square[top : top + small.height, left : left + small.width] = np.asarray(small)
    square[..., :3] = np.minimum(square[..., :3], square[..., 3:])  # Lanczos overshoots
    return square.transpose(2, 0, 1)


def _animated(folder: Path) -> Named:
    for meta, frames in iterate(folder):
        for frame in frames[:: max(len(frames) // _FRAMES_OF_LOOP, 1)]:
            yield meta["emoji"], Image.fromarray(frame)


def _still(packages: Path) -> Named:
    with tarfile.open(fetch_package(STILL.package, STILL.version, packages)) as tar:
        for member in tar:
            key = Path(member.name).stem
            if member.name.endswith(".webp") and not SKIN_TONES & set(key.split("-")):
                yield key, Image.open(io.BytesIO(tar.extractfile(member).read()))  # type: ignore[union-attr]


def _icons(design: Design, packages: Path, size: int) -> Named:
    icons, codes = icon_set(fetch_package(design.package, design.version, packages))
    code_of = {icon: code for code, icon in reversed(codes.items())}
    for name in icons["icons"]:
        key = code_of.get(name, name)
        if not SKIN_TONES & set(key.split("-")) and "skin-tone" not in name:
            yield key, draw_icon(icons, name, size)


def _clip_art(folder: Path, size: int) -> Named:
    import resvg_py

    found = sorted(folder.rglob("*.svg"))
    if not found:
        raise LumiereError(
            f"{folder} holds no SVG files; with Debian's package openclipart-svg: /usr/share/openclipart/svg"
        )
    for file in found:
        svg = file.read_text(encoding="utf-8", errors="replace")
        if "PublicDomain" not in svg or len(svg) > 400_000:  # the largest few take a minute each to draw
            continue
        try:
            drawn = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size))
            artwork = Image.open(io.BytesIO(drawn))
            artwork.load()
        except (ValueError, OSError, RuntimeError):
            continue  # a broken drawing among thousands is no loss
        if artwork.getbbox() is not None and max(artwork.size) < 4 * min(artwork.size):
            yield file.stem, artwork


class Artwork(Dataset[dict[str, Any]]):
    """Frames composed of artwork, or crops of them; item n is a pure function of (seed, n).

    A piece is placed, turned, flipped and scaled at random; half of the frames are transparent around it, the others
    have a plain colour, a gradient or another piece behind it.

    Args:
        folder: arrays made by `lumiere data artwork`.
        size: height and width of a whole frame in pixels.
        crop: side of the part that an item shows; 0 = the whole frame.
        split: "train" or "test".
        sources: names of those to draw from; None = all that are there, save `UNSEEN`.
        device: where frames are drawn; elsewhere than on the CPU all artwork is kept in its memory.
        native_size: draw nothing larger than it is stored, so that all is sharp.
    """

    def __init__(
        self, folder: Path, *, size: int, crop: int = 0, seed: int = 0, split: str = "train",
        sources: list[str] | None = None, device: torch.device | str = "cpu", native_size: bool = False,
    ) -> None:  # fmt: skip
        self.size, self.crop, self.seed, self.native_size = size, crop or size, seed, native_size
        self.device = torch.device(device)
        packed = read_packed(folder, split) if holds_packed(folder) else {}
        found = {path.name.removesuffix(f".{split}.npy"): path for path in sorted(folder.glob(f"*.{split}.npy"))}
        known = sorted({*found, *packed})
        chosen = [name for name in known if name not in UNSEEN] if sources is None else sources
        missing = [name for name in chosen if name not in known]
        if missing or not chosen:
            lacks = f"lacks {', '.join(missing)}" if missing else "holds no artwork"
            raise LumiereError(f"{folder} {lacks}; make it with: lumiere data artwork -o {folder}")
        self.arrays = [packed[name] if name in packed else np.load(found[name], mmap_mode="r") for name in chosen]
        on_cpu = self.device.type == "cpu"
        self._on_device = None if on_cpu else [torch.from_numpy(np.array(a)).to(self.device) for a in self.arrays]
        # The animated emoji are what the model draws; of the others a thousand weigh as much as four thousand.
        weights = [
            len(array) ** 0.5 * (2.0 if name == _ANIMATED else 1.0)
            for name, array in zip(chosen, self.arrays, strict=True)
        ]
        self._shares = np.asarray(weights) / sum(weights)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Draw several at once: premultiplied RGBA in [-1, 1], (4, crop, crop) each."""
        rngs = [np.random.default_rng([self.seed, index, 0xA27]) for index in indices]
        front = self._placed(rngs)
        behind = torch.stack([self._ground(rng) for rng in rngs]).to(self.device)
        backed = [n for n, rng in enumerate(rngs) if rng.random() < 0.1]
        if backed:
            other = self._placed([rngs[n] for n in backed], largest=2.5)
            behind[backed] = other + (1 - other[:, 3:]) * behind[backed]
        frames = front + (1 - front[:, 3:]) * behind
        return [{"pixels": frame * 2 - 1} for frame in frames]

    def _placed(self, rngs: list[np.random.Generator], largest: float = 1.4) -> torch.Tensor:
        """Draw a random piece at a random pose for each generator: (N, 4, crop, crop) in [0, 1]."""
        pieces, poses = [], []
        for rng in rngs:
            source = int(rng.choice(len(self.arrays), p=self._shares))
            piece = self._piece(source, int(rng.integers(len(self.arrays[source]))))
            pieces.append(piece.flip(-1) if rng.random() < 0.5 else piece)
            most = min(largest, piece.shape[-1] / self.size) if self.native_size else largest
            side = np.exp(rng.uniform(np.log(min(0.4, most / 2)), np.log(most)))
            angle = 0.0 if rng.random() < 0.6 else rng.uniform(-np.pi, np.pi)
            x, y = rng.uniform(-0.35, 0.35, 2)
            # Where in the frame the crop is; coordinates and side as seen from it.
            zoom = self.size / self.crop
            cx, cy = rng.uniform(-1, 1, 2) * (1 - 1 / zoom)
            poses.append([(x - cx) * zoom, (y - cy) * zoom, side * zoom, angle])
        return render(torch.stack(pieces), torch.tensor(poses, dtype=torch.float32).to(self.device), size=self.crop)

    def _piece(self, source: int, number: int) -> torch.Tensor:
        if self._on_device is not None:
            return self._on_device[source][number]
        return torch.from_numpy(np.array(self.arrays[source][number]))

    def _ground(self, rng: np.random.Generator) -> torch.Tensor:
        """Draw a background: nothing, a plain colour or a gradient; (4, crop, crop)."""
        kind = rng.random()
        if kind < 0.5:
            return torch.zeros(4, self.crop, self.crop)
        ends = torch.from_numpy(rng.random((2, 3))).float()
        if kind < 0.6:
            ends = ends.round()
        if kind < 0.85:
            colour = ends[:1].expand(self.crop**2, -1)
        else:
            across, down = torch.meshgrid(*[torch.linspace(0, 1, self.crop)] * 2, indexing="ij")
            share = float(rng.random())
            ramp = (share * across + (1 - share) * down).flatten()[:, None]
            colour = ends[:1] + ramp * (ends[1:] - ends[:1])
        return torch.cat([colour.T.reshape(3, self.crop, self.crop), torch.ones(1, self.crop, self.crop)])


class ArtworkClips(Artwork):
    """The same as clips of a single frame without a caption, for the second stage to learn sharpness from."""

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """See `Artwork`: ``pixels``, (4, 1, crop, crop), and an empty ``caption``."""
        return [{"pixels": item["pixels"][:, None], "caption": ""} for item in super().__getitems__(indices)]
