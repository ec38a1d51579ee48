"""Reference images of a style, one or many, as training sees them: drawn into captioned frames on the fly.

An image with transparency is an object: it is placed on plain backgrounds as the emoji data set's objects are, which
the caption says, or, with four channels, also on none. One without is taken whole. What an image shows is the first
line of a text file of its name (``owl.png``, ``owl.txt``), or else its file's name: ``grinning-face.png`` shows a
grinning face.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from openlumiere.clock import FPS, frame_seconds
from openlumiere.diffusion.layout import LAYOUT_DIM, layout_of
from openlumiere.errors import LumiereError
from openlumiere.files import one_line
from openlumiere.video import fit, read_picture

from .emoji.dataset import Sample
from .emoji.drawing import Atlas, Sprites, canonical_path, draw_batch, ground, over
from .emoji.scenes import SceneSampler
from .emoji.vocabulary import vocabulary

_TRANSPARENT = 0.25  # of the pictures of objects, where there is an alpha channel
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


class StyleImages(Dataset[Sample]):
    """Single frames of a style's reference images; item n is a pure function of (seed, n).

    Args:
        path: an image, or a folder of images.
        size: height and width in pixels.
        channels: 3 = RGB; 4 = premultiplied RGBA, opaque but for a part of the objects.
        only: names of files, without suffix, to take from the folder; None = all.
        canonical: fraction of objects that are upright in the middle, see `EmojiClips`.

    Raises:
        LumiereError: no images, or one that is corrupt.
    """

    def __init__(
        self, path: Path, *, size: int, channels: int = 3, seed: int = 0, only: list[str] | None = None,
        canonical: float = 0.0,
    ) -> None:  # fmt: skip
        self.size, self.channels, self.seed, self.canonical = size, channels, seed, canonical
        self.atlases: dict[str, Atlas] = {}
        self.whole: list[tuple[torch.Tensor, str]] = []
        for file in _files(path, only):
            rgba = _transparent(file)
            if rgba is None:
                frame = np.asarray(fit(read_picture(file), (size, size)), np.float32) / 127.5 - 1
                self.whole.append((torch.from_numpy(frame).permute(2, 0, 1)[:, None].contiguous(), _shown(file)[0]))
            else:
                self.atlases[file.stem] = Atlas(file.stem, _shown(file), _premultiplied(rgba, 2 * size))
        names = {key: atlas.names for key, atlas in self.atlases.items()}
        transparent = _TRANSPARENT if channels == 4 else 0.0
        self.scenes = SceneSampler(names, seed=seed, with_motion=0.6, transparent=transparent) if names else None
        self._sprites = Sprites(self.atlases) if names else None

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, index])
        drawn_from = len(self.whole) + len(self.atlases)
        if self.scenes is None or self._sprites is None or rng.random() * drawn_from < len(self.whole):
            pixels, caption = self.whole[int(rng.integers(len(self.whole)))]
            if self.channels == 4:
                pixels = torch.cat([pixels, torch.ones_like(pixels[:1])])
            return Sample(pixels=pixels, caption=caption, layout=torch.zeros(1, LAYOUT_DIM))  # not told
        scene = self.scenes(index)
        seconds = frame_seconds(np.array([rng.integers(80)]), FPS)
        view = (lambda _row, path: canonical_path(path)) if rng.random() < self.canonical else None
        drawn, poses = draw_batch([scene], self._sprites, size=self.size, seconds=seconds, view=view)
        pixels = over(drawn, ground([scene.background]))[0, : self.channels]
        return Sample(pixels=(pixels * 2 - 1).clamp(-1, 1), caption=scene.caption, layout=layout_of(poses)[0])


def _files(path: Path, only: list[str] | None) -> list[Path]:
    if not path.exists():
        raise LumiereError(f"{path} does not exist; give an image, or a folder of images")
    if path.is_file():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    chosen = [file for file in found if only is None or file.stem in only]
    if not chosen:
        raise LumiereError(f"{path} holds no images{'' if only is None else ' of these names'}; put some into it")
    return chosen


def _shown(file: Path) -> list[str]:
    """Return what an image may be called."""
    caption_file = file.with_suffix(".txt")
    if caption_file.is_file():
        try:
            lines = caption_file.read_text(encoding="utf-8-sig").strip().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise LumiereError(f"cannot read {caption_file} ({one_line(error)}); save it as UTF-8") from error
        if not lines:
            raise LumiereError(f"{caption_file} is empty; write what {file.name} shows")
        return [" ".join(lines[0].split())]
    known = vocabulary()["subjects"].get(file.stem)
    return known["names"] if known else [" ".join(file.stem.replace("-", " ").replace("_", " ").split())]


def _transparent(file: Path) -> Image.Image | None:
    """Read an image of an object as RGBA on a square; None where nothing is transparent."""
    with_alpha = read_picture(file, background=None)
    if with_alpha.mode != "RGBA" or np.asarray(with_alpha)[..., 3].min() == 255:
        return None
    side = max(with_alpha.size)
    square = Image.new("RGBA", (side, side))
    square.paste(with_alpha, ((side - with_alpha.width) // 2, (side - with_alpha.height) // 2))
    return square


def _premultiplied(rgba: Image.Image, side: int) -> torch.Tensor:
    """Return an image as the one frame of an `Atlas`."""
    small = rgba.convert("RGBa").resize((side, side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].contiguous()
